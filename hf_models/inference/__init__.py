"""From an image file and a model's name to an answer: reading images, loading models, classifying."""

from .classify import classify_images, default_checkpoint, load_classifier, load_model, read_image

__all__ = ["classify_images", "default_checkpoint", "load_classifier", "load_model", "read_image"]
