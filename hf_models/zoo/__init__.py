"""The zoo: every published checkpoint that the families here can load, as its authors describe it."""

from .backbone import PublishedBackbone
from .catalogue import find_checkpoint, get_model, list_models, published_as
from .checkpoint import PublishedCheckpoint
from .classification import Preprocessing, PublishedClassifier
from .detection import PublishedDetector
from .detection_labels import DETECTION_SETS, detection_names
from .labels import LABEL_FILES, label_names, wnid_names
from .segmentation import PublishedSegmenter
from .segmentation_recipe import SegmentationRecipe

__all__ = [
    "DETECTION_SETS",
    "LABEL_FILES",
    "Preprocessing",
    "PublishedBackbone",
    "PublishedCheckpoint",
    "PublishedClassifier",
    "PublishedDetector",
    "PublishedSegmenter",
    "SegmentationRecipe",
    "detection_names",
    "find_checkpoint",
    "get_model",
    "label_names",
    "list_models",
    "published_as",
    "wnid_names",
]
