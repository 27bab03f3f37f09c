"""Deformable and large-kernel vision backbones for transformers: InternImage, FlashInternImage, SMT, RepLKNet.

Importing the package registers every family with the Auto classes of transformers.
"""

from .auto import register_families
from .inference.classify import default_checkpoint
from .segmentation.registration import register_segmenters
from .zoo import list_models

__version__ = "0.1.0"

register_families()
register_segmenters()

__all__ = ["default_checkpoint", "list_models"]
