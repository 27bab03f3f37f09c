"""Object detection and instance segmentation: loading a detector, what it finds on an image, the overlay."""

from .load import load_detector
from .overlay import class_colours, draw_detections
from .predict import Detection, detect

__all__ = ["Detection", "class_colours", "detect", "draw_detections", "load_detector"]
