"""What the converter knows of each head: one file a head."""

from . import backbone_rcnn, dino_detector, mask2former, segformer_head, upernet

# A new head is one entry here.
HEADS = (upernet.HEAD, mask2former.HEAD, segformer_head.HEAD, backbone_rcnn.HEAD, dino_detector.HEAD)
