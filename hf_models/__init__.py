"""Deformable and large-kernel vision backbones for transformers: InternImage, FlashInternImage, SMT, RepLKNet.

Importing the package registers every family with the Auto classes of transformers.
"""

import sys
from pathlib import Path

from .inference.names import default_checkpoint
from .zoo import list_models

__version__ = "0.1.0"


def register() -> None:
    """Make the Auto classes of transformers know every family and every head; the import of this package does it."""
    from .auto import register_families
    from .segmentation.registration import register_segmenters

    register_families()
    register_segmenters()


# The program `hf-models` registers when a command runs: its help does not wait for PyTorch and transformers.
if Path(*sys.argv[:1]).stem != "hf-models":
    register()

__all__ = ["default_checkpoint", "list_models", "register"]
