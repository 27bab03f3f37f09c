"""FCOS, in which every position says what is there and how far its edges are (https://arxiv.org/abs/1904.01355).

The forward pass is the whole test of the original model in MMDetection, from the images to the detections, or its
training, from the images and what is to be found in them to the losses.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import load_backbone

from .box_assignment import assign_points
from .boxes import clip_boxes, image_sizes
from .configuration_backbone_fcos import BackboneFCOSConfig
from .dense_conv import dense_conv
from .detection_losses import RARE, focal_loss, giou_loss, iou_loss, mean_over_processes
from .detector_labels import objects_in_pixels
from .detector_output import DetectorOutput, fixed_number
from .feature_pyramid import FeaturePyramid
from .layers import initialize_linear, starting_with
from .modeling_detector import Detector
from .nms import batched_nms

BOX_LOSSES = {"iou": iou_loss, "giou": giou_loss}


def small_conv(in_channels: int, out_channels: int, bias: bool = True, start: float = 0.0) -> nn.Conv2d:
    """A 3x3 convolution that starts with small weights, and with a bias of this value."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)
    return starting_with(partial(init.normal_, std=0.01), conv, partial(init.constant_, val=start))


class Tower(nn.Module):
    """Convolutions, each with a GroupNorm and ReLU."""

    def __init__(self, config: BackboneFCOSConfig):
        super().__init__()
        width, groups = config.fpn_channels, config.group_norm_groups
        self.convs = nn.ModuleList(small_conv(width, width, bias=False) for _ in range(config.head_convs))
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(config.head_convs))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns a level (batch_size, channels, height, width)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden_states = F.relu(norm(dense_conv(conv, hidden_states)))
        return hidden_states


class FCOSHead(nn.Module):
    """What is at each position, how far its edges are, and how near its centre is; the same for all levels."""

    def __init__(self, config: BackboneFCOSConfig):
        super().__init__()
        width = config.fpn_channels
        self.class_tower, self.box_tower = Tower(config), Tower(config)
        self.classifier = small_conv(width, config.num_labels, start=RARE)
        self.centreness = small_conv(width, 1)
        self.distances = small_conv(width, 4)
        self.scales = nn.ParameterList(torch.ones(()) for _ in config.level_strides)

    def forward(self, levels: tuple[torch.Tensor, ...]) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Takes levels (batch_size, channels, height, width).

        Returns:
            For each level, the logits (batch_size, num_labels, height, width) of the classes, those of the centreness
            (batch_size, 1, height, width), and the distances (batch_size, 4, height, width) to the left, top, right
            and bottom edge in pixels.
        """
        outputs = []
        for level, scale in zip(levels, self.scales, strict=True):
            of_class = self.class_tower(level)
            distances = (self.distances(self.box_tower(level)) * scale).float().exp()
            outputs.append((dense_conv(self.classifier, of_class), self.centreness(of_class), distances))
        return outputs


class BackboneFCOSForObjectDetection(Detector):
    """FCOS on any backbone."""

    config: BackboneFCOSConfig
    config_class = BackboneFCOSConfig
    _no_split_modules = ["FeaturePyramid", "FCOSHead"]

    def __init__(self, config: BackboneFCOSConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.neck = FeaturePyramid(self.backbone.channels, config.fpn_channels, strided_levels=config.strided_levels)
        self.head = FCOSHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier-uniform weights in the pyramid, small ones in the head; zeros for biases, ones for scales."""
        if isinstance(module, nn.Conv2d):
            initialize_linear(module, getattr(module, "initialize_weight", init.xavier_uniform_))
        elif isinstance(module, nn.ParameterList):
            for scale in module:
                init.ones_(scale)
        else:
            super()._init_weights(module)

    def find(
        self,
        feature_maps: tuple[torch.Tensor, ...],
        pixel_mask: torch.Tensor,
        labels: list[dict] | None = None,
    ) -> DetectorOutput:
        """See [`Detector`]."""
        of_levels = self.head(self.neck(feature_maps))
        # what is found is in float32 from here on, and on one device, wherever the head is
        sizes = image_sizes(pixel_mask).to(of_levels[0][0].device)
        losses = None if labels is None else self.losses(of_levels, objects_in_pixels(labels, sizes))
        if losses and self.training:
            return DetectorOutput(loss_dict=losses)
        images = [
            self.detect([[output[i] for output in of_level] for of_level in of_levels], size)
            for i, size in enumerate(sizes)
        ]
        return DetectorOutput(loss_dict=losses, **fixed_number(images, self.config.max_detections, sizes))

    def losses(
        self,
        of_levels: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        objects: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """The parts of the loss, as in MMDetection.

        Args:
            of_levels: What [`FCOSHead`] returns.
            objects: Classes (n,) and boxes (n, 4) in pixels of the objects of each image.
        """
        config, like = self.config, objects[0][1]
        # (B, C, H, W) of each level -> (B, N, C), N points of all levels
        logits, centreness, distances = (
            torch.cat([output.flatten(2) for output in outputs], dim=2).transpose(1, 2).to(like)
            for outputs in zip(*of_levels, strict=True)
        )
        levels = [
            (level_points(*of_level[0].shape[2:], stride).to(like), stride)
            for of_level, stride in zip(of_levels, config.level_strides, strict=True)
        ]
        points = torch.cat([grid for grid, _ in levels])
        strides = torch.cat([torch.full_like(grid[:, 0], stride) for grid, stride in levels])
        wanted, assigned, edges = torch.zeros_like(logits), [], []
        for i, (classes, boxes) in enumerate(objects):
            index, to_edges = assign_points(points, strides, boxes, config.centre_radius)
            (finding,) = (index >= 0).nonzero(as_tuple=True)
            wanted[i, finding, classes[index[finding]]] = 1
            assigned.append(index)
            edges.append(to_edges)
        finding = torch.stack(assigned) >= 0  # (B, N)
        edges = torch.stack(edges)[finding]  # (P, 4), of the P points that are to find objects
        # 1 in the middle of an object and 0 at its edges
        shares = (edges.minimum(edges.roll(2, dims=1)) / edges.maximum(edges.roll(2, dims=1)))[:, :2]
        centred = shares.prod(dim=1).sqrt()
        number = mean_over_processes(finding.sum().to(like))
        places = points.expand(len(objects), -1, -1)[finding]  # (N, 2) -> (B, N, 2) -> (P, 2)
        box_losses = BOX_LOSSES[config.box_loss](boxes_around(places, distances[finding]), boxes_around(places, edges))
        centre_losses = F.binary_cross_entropy_with_logits(centreness[finding][:, 0], centred, reduction="sum")
        return {
            "loss_cls": focal_loss(logits, wanted).sum() / number,
            "loss_bbox": (box_losses * centred).sum() / mean_over_processes(centred.sum(), least=1e-6),
            "loss_centreness": centre_losses / number,
        }

    def detect(
        self, of_levels: list[list[torch.Tensor]], size: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The detections of one image, the best first.

        Args:
            of_levels: What [`FCOSHead`] returns, for this image.
            size: (2,), width and height of the image.

        Returns:
            For up to `max_detections`: scores (K,), labels (K,), and boxes (K, 4) as fractions of the size.
        """
        candidates = [
            self.candidates(*of_level, stride)
            for of_level, stride in zip(of_levels, self.config.level_strides, strict=True)
        ]
        scores, labels, boxes = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        boxes = clip_boxes(boxes, size)
        kept = batched_nms(boxes, scores, labels, self.config.nms_threshold)[: self.config.max_detections]
        return scores[kept], labels[kept], boxes[kept] / size.repeat(2)

    def candidates(
        self, logits: torch.Tensor, centreness: torch.Tensor, distances: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The best pairs of a position and a class in one level: scores (N,), labels (N,) and boxes (N, 4) in pixels.

        They are chosen by the scores of the classes alone. The centreness may bring them below the threshold.
        """
        scores = logits.flatten(1).T.float().sigmoid()  # (num_labels, H, W) -> (H * W, num_labels)
        positions, labels = (scores > self.config.score_threshold).nonzero(as_tuple=True)
        scores = scores[positions, labels]
        best = scores.topk(min(self.config.candidates_per_level, len(scores))).indices
        positions, labels, scores = positions[best], labels[best], scores[best]
        points = level_points(*logits.shape[1:], stride).to(positions.device)[positions]
        boxes = boxes_around(points, distances.flatten(1).T[positions])  # (4, H, W) -> (H * W, 4) -> (N, 4)
        return scores * centreness.flatten()[positions].float().sigmoid(), labels, boxes


def level_points(height: int, width: int, stride: int) -> torch.Tensor:
    """The centres (height * width, 2) of the cells of a level, x and y in pixels of the image."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return stride * (torch.stack((columns, rows), dim=2).flatten(0, 1) + 0.5)


def boxes_around(points: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Boxes (N, 4) around points (N, 2) with distances (N, 4) to their left, top, right and bottom edges."""
    before, after = distances.split(2, dim=1)
    return torch.cat((points - before, points + after), dim=1)


__all__ = ["BackboneFCOSForObjectDetection"]
