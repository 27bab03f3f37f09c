"""The zoo: every published checkpoint that the families here can load, as its authors describe it."""

from .entries import LABEL_FILES, Preprocessing, ZooModel, get_model, label_names, list_models, wnid_names

__all__ = ["LABEL_FILES", "Preprocessing", "ZooModel", "get_model", "label_names", "list_models", "wnid_names"]
