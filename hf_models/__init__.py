"""Deformable and large-kernel vision backbones for transformers: InternImage, FlashInternImage, SMT, RepLKNet.

Importing the package registers every family with the Auto classes of transformers.
"""

import sys
from pathlib import Path

from .inference.names import default_checkpoint
from .zoo import list_models

__version__ = "0.1.0"

# Python that is started in a clone finds the clone's folder before an installed package. In a clone, `conversion` and
# the other rooms lie beside this folder, and an installation has them inside of it.
if not Path(__file__).with_name("conversion").is_dir():
    __path__.append(str(Path(__file__).parents[1]))


def register() -> None:
    """Make the Auto classes of transformers know every family and every head; the import of this package does it."""
    from .auto import register_families
    from .detection.registration import register_detectors
    from .segmentation.registration import register_segmenters

    register_families()
    register_segmenters()
    register_detectors()


# The program `hf-models` registers when a command runs: its help does not wait for PyTorch and transformers.
if Path(*sys.argv[:1]).stem != "hf-models":
    register()

__all__ = ["default_checkpoint", "list_models", "register"]
