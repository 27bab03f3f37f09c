"""Semantic segmentation: loading a model, its scores as its authors compute them, the overlay."""

from ..zoo.segmentation_recipe import SegmentationRecipe
from .load import load_segmenter, recipe_of, segmenter_class
from .predict import semantic_labels, semantic_scores

__all__ = [
    "SegmentationRecipe",
    "load_segmenter",
    "recipe_of",
    "segmenter_class",
    "semantic_labels",
    "semantic_scores",
]
