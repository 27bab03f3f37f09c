"""The aggregation of DCNv3 and DCNv4 (deformable convolution) as a compiled operator.

DCNv3: https://arxiv.org/abs/2211.05778 (InternImage); DCNv4: https://arxiv.org/abs/2401.06197 (FlashInternImage).
"""

from . import layers
from ._aggregate import cpu_path, deformable_aggregate, set_reference

__all__ = ["cpu_path", "deformable_aggregate", "layers", "set_reference"]
