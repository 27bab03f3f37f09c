"""What detectors compute beside convolutions and matrix products: deformable attention, RoIAlign, NMS.

Deformable attention: https://arxiv.org/abs/2010.04159 (Deformable DETR, DINO); RoIAlign:
https://arxiv.org/abs/1703.06870 (Mask R-CNN).
"""

from . import layers
from ._attention import multi_scale_deformable_attention, set_reference
from ._nms import batched_nms, nms
from ._path import cpu_path
from ._roi_align import roi_align

__all__ = [
    "batched_nms",
    "cpu_path",
    "layers",
    "multi_scale_deformable_attention",
    "nms",
    "roi_align",
    "set_reference",
]
