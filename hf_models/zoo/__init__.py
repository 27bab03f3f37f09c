"""The zoo: every published checkpoint that the families here can load, as its authors describe it."""

from .catalogue import find_checkpoint, get_model, list_models
from .checkpoint import PublishedCheckpoint
from .classification import Preprocessing, PublishedClassifier
from .labels import LABEL_FILES, label_names, wnid_names
from .segmentation import PublishedSegmenter
from .segmentation_recipe import SegmentationRecipe

__all__ = [
    "LABEL_FILES",
    "Preprocessing",
    "PublishedCheckpoint",
    "PublishedClassifier",
    "PublishedSegmenter",
    "SegmentationRecipe",
    "find_checkpoint",
    "get_model",
    "label_names",
    "list_models",
    "wnid_names",
]
