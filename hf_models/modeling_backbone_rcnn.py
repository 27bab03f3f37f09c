"""Mask R-CNN (https://arxiv.org/abs/1703.06870) and Cascade Mask R-CNN (https://arxiv.org/abs/1906.09756).

One class: Mask R-CNN is a cascade of one stage. The forward pass is the whole test of the original models in
MMDetection, from the images to the detections, or their training, from the images and what is to be found in them to
the losses.
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import load_backbone

from .box_assignment import Regions, assign_boxes, draw_regions, mask_targets, sample
from .boxes import clip_boxes, decode_deltas, encode_deltas, image_sizes
from .configuration_backbone_rcnn import BackboneRCNNConfig
from .dense_conv import dense_conv
from .detection_losses import giou_loss, mean_over_processes
from .detector_labels import masks_of_objects, objects_in_pixels
from .detector_output import DetectorOutput, fixed_number
from .feature_pyramid import FeaturePyramid
from .layers import initialize_linear, linear, starting_with
from .modeling_detector import Detector
from .nms import batched_nms
from .roi_align import roi_align

ANCHOR_RATIOS = (0.5, 1.0, 2.0)  # height / width
BOX_BINS, MASK_BINS = 7, 14  # of RoIAlign, in each direction
PADDED_TO = 32  # pixels that an image processor makes the sides of an image a multiple of

starting_small = partial(starting_with, partial(init.normal_, std=0.01))
starting_tiny = partial(starting_with, partial(init.normal_, std=0.001))


class RegionProposalHead(nn.Module):
    """Says at every position of every level whether an object is near, and where (https://arxiv.org/abs/1506.01497)."""

    def __init__(self, config: BackboneRCNNConfig):
        super().__init__()
        width, anchors = config.fpn_channels, len(ANCHOR_RATIOS)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.objectness = starting_small(nn.Conv2d(width, anchors, 1))
        self.deltas = starting_small(nn.Conv2d(width, 4 * anchors, 1))

    def forward(self, levels: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Takes levels (batch_size, channels, height, width).

        Returns:
            For each level, the logits (batch_size, 3, height, width) of the anchors at each position, and their deltas
            (batch_size, 12, height, width), four for each anchor.
        """
        hidden_states = [dense_conv(self.conv, level, relu=True) for level in levels]
        return [self.objectness(hidden) for hidden in hidden_states], [self.deltas(hidden) for hidden in hidden_states]


class BoxHead(nn.Module):
    """Classifies regions, and corrects their boxes for each class."""

    def __init__(self, config: BackboneRCNNConfig):
        super().__init__()
        width, hidden_size = config.fpn_channels, config.box_hidden_size
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(config.box_convs))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(config.box_convs))
        sizes = [width * BOX_BINS**2, *[hidden_size] * config.box_fcs]
        self.fcs = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.classifier = starting_small(nn.Linear(hidden_size, config.num_labels + 1))
        self.deltas = starting_tiny(nn.Linear(hidden_size, 4 * config.num_labels))

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes features (N, channels, 7, 7).

        Returns:
            Logits (N, num_labels + 1), the background last, and deltas (N, num_labels, 4).
        """
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = F.relu(norm(dense_conv(conv, pooled)))
        hidden_states = pooled.flatten(1)  # (N, C, 7, 7) -> (N, C * 49)
        for fc in self.fcs:
            hidden_states = F.relu(linear(fc, hidden_states))
        return self.classifier(hidden_states), self.deltas(hidden_states).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Draws the object of each region, for each class."""

    def __init__(self, config: BackboneRCNNConfig):
        super().__init__()
        width = config.fpn_channels
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.mask_convs))
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.classifier = starting_small(nn.Conv2d(width, config.num_labels, 1))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Takes features (N, channels, 14, 14); returns logits (N, num_labels, 28, 28)."""
        for conv in self.convs:
            pooled = dense_conv(conv, pooled, relu=True)
        return self.classifier(F.relu(self.upsample(pooled)))


class BackboneRCNNForObjectDetection(Detector):
    """Mask R-CNN or Cascade Mask R-CNN on any backbone: boxes, and masks where the model has mask heads."""

    config: BackboneRCNNConfig
    config_class = BackboneRCNNConfig
    _no_split_modules = ["FeaturePyramid", "RegionProposalHead", "BoxHead", "MaskHead"]

    def __init__(self, config: BackboneRCNNConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.neck = FeaturePyramid(self.backbone.channels, config.fpn_channels, config.fpn_norm)
        self.rpn = RegionProposalHead(config)
        self.box_heads = nn.ModuleList(BoxHead(config) for _ in config.box_stds)
        self.mask_heads = nn.ModuleList(MaskHead(config) for _ in config.box_stds if config.with_masks)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier-uniform weights, but small ones for the layers that predict; zeros for biases."""
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            initialize_linear(module, getattr(module, "initialize_weight", init.xavier_uniform_))
        else:
            super()._init_weights(module)

    def find(
        self,
        feature_maps: tuple[torch.Tensor, ...],
        pixel_mask: torch.Tensor,
        labels: list[dict] | None = None,
    ) -> DetectorOutput:
        """See [`Detector`]."""
        levels = self.neck(feature_maps)
        # what is found is in float32 from here on, and on one device, wherever the heads are
        sizes = image_sizes(pixel_mask).to(levels[0].device)
        of_anchors = self.rpn(levels)
        proposals = self.proposals(*of_anchors, sizes)
        losses = None
        if labels is not None:
            objects = objects_in_pixels(labels, sizes)
            masks = masks_of_objects(labels, pixel_mask) if self.mask_heads else None
            losses = self.rpn_losses(*of_anchors, sizes, objects)
            losses |= self.region_losses(levels[:-1], proposals, sizes, objects, masks)
            if self.training:
                return DetectorOutput(loss_dict=losses)
        images = [
            self.detect([level[i : i + 1] for level in levels[:-1]], regions, size)
            for i, (regions, size) in enumerate(zip(proposals, sizes, strict=True))
        ]
        side = 2 * MASK_BINS if self.mask_heads else 0
        return DetectorOutput(loss_dict=losses, **fixed_number(images, self.config.max_detections, sizes, side))

    def proposals(
        self, objectness: list[torch.Tensor], deltas: list[torch.Tensor], sizes: torch.Tensor
    ) -> list[torch.Tensor]:
        """The boxes (N, 4) of each image that are looked at closely, the best first.

        Args:
            objectness: Of each level, as [`RegionProposalHead`] returns it.
            deltas: The same.
            sizes: (batch_size, 2), width and height of each image without padding.
        """
        proposals = []
        most = self.config.rpn_train_post_nms if self.training else self.config.rpn_post_nms
        candidates, scores, levels = self.candidates(objectness, deltas, sizes)
        for boxes, score in zip(candidates, scores.detach(), strict=True):
            (exists,) = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).nonzero(as_tuple=True)
            kept = batched_nms(boxes[exists].detach(), score[exists], levels[exists], self.config.rpn_nms_threshold)
            proposals.append(boxes[exists[kept[:most]]])
        return proposals

    def candidates(
        self, objectness: list[torch.Tensor], deltas: list[torch.Tensor], sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The best anchors of each level, moved to where objects are: what proposals are chosen from.

        Returns:
            Boxes (batch_size, N, 4), scores (batch_size, N) and levels (N,).
        """
        boxes, scores, levels = [], [], []
        most = self.config.rpn_train_pre_nms if self.training else self.config.rpn_pre_nms
        for level, (logits, delta, stride) in enumerate(
            zip(objectness, deltas, self.config.level_strides, strict=True)
        ):
            box = grid_anchors(*logits.shape[2:], stride, self.config.anchor_scale).to(sizes.device)
            score, delta = per_anchor(logits, 1)[..., 0].to(sizes).sigmoid(), per_anchor(delta, 4).to(sizes)
            if score.shape[1] > most:
                score, best = score.topk(most)
                box, delta = box[best], delta.take_along_dim(best[..., None], dim=1)
            boxes.append(clip_boxes(decode_deltas(box, delta), sizes[:, None]))
            scores.append(score)
            levels.append(score.new_full(score.shape[1:], level, dtype=torch.long))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)

    def rpn_losses(
        self,
        objectness: list[torch.Tensor],
        deltas: list[torch.Tensor],
        sizes: torch.Tensor,
        objects: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """What the region proposals are learned by, as in MMDetection.

        Args:
            objectness: Of each level, as [`RegionProposalHead`] returns it.
            deltas: The same.
            sizes: (batch_size, 2), width and height of each image without padding.
            objects: Classes (n,) and boxes (n, 4) in pixels of the objects of each image.
        """
        config = self.config
        logits = torch.cat([per_anchor(level, 1) for level in objectness], dim=1)[..., 0].to(sizes)  # (B, N)
        moves = torch.cat([per_anchor(level, 4) for level in deltas], dim=1).to(sizes)  # (B, N, 4)
        anchors = torch.cat(
            [
                grid_anchors(*level.shape[2:], stride, config.anchor_scale)
                for level, stride in zip(objectness, config.level_strides, strict=True)
            ]
        ).to(sizes)
        number, class_losses, box_losses = sizes.new_zeros(()), [], []
        for i, (_, boxes) in enumerate(objects):
            (usable,) = usable_anchors(anchors, sizes[i], config.rpn_inside_anchors).nonzero(as_tuple=True)
            assigned = assign_boxes(anchors[usable], boxes, found=0.7, missed=0.3, best_from=0.3)
            finding, background = sample(assigned, config.rpn_samples, share=0.5)
            boxes, finding, background = boxes[assigned[finding]], usable[finding], usable[background]
            number += max(len(finding), 1) + max(len(background), 1)  # at least one of each, as in MMDetection
            # the cross entropy of an anchor that is to find an object, and of one that is not
            class_losses += [F.softplus(-logits[i, finding]).sum(), F.softplus(logits[i, background]).sum()]
            targets = encode_deltas(anchors[finding], boxes)
            box_losses.append(F.smooth_l1_loss(moves[i, finding], targets, reduction="sum", beta=config.rpn_loss_beta))
        number = mean_over_processes(number)
        return {"loss_rpn_cls": sum(class_losses) / number, "loss_rpn_bbox": sum(box_losses) / number}

    def region_losses(
        self,
        levels: tuple[torch.Tensor, ...],
        proposals: list[torch.Tensor],
        sizes: torch.Tensor,
        objects: list[tuple[torch.Tensor, torch.Tensor]],
        masks: list[torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        """What the stages are learned by, as in MMDetection.

        Args:
            levels: Of the feature pyramid, without the last.
            proposals: (N, 4) of each image.
            sizes: (batch_size, 2), width and height of each image without padding.
            objects: Classes (n,) and boxes (n, 4) in pixels of the objects of each image.
            masks: (n, height, width) of each image, for models with mask heads.
        """
        config, losses = self.config, {}
        proposals = [boxes.detach() for boxes in proposals]
        for stage, head in enumerate(self.box_heads):
            regions = draw_regions(
                proposals,
                objects,
                config.num_labels,
                config.box_samples,
                config.box_ious[stage],
                config.box_best_matches,
            )
            pooled = self.pool(levels, regions.boxes, BOX_BINS, regions.images)
            logits, deltas = (tensor.to(sizes) for tensor in head(pooled))
            of_stage = self.box_losses(stage, regions, logits, deltas)
            if masks is not None:
                of_stage["loss_mask"] = self.mask_loss(stage, levels, regions, masks)
            for name, loss in of_stage.items():
                name = name if len(self.box_heads) == 1 else f"{name}_{stage}"
                losses[name] = config.stage_weights[stage] * loss
            # the next stage looks at the box of the object's class, or of the class that this one thinks is best
            best = torch.where(regions.assigned >= 0, regions.classes, logits[:, :-1].argmax(dim=1))
            moves = deltas.detach()[torch.arange(len(best), device=best.device), best]
            boxes = clip_boxes(decode_deltas(regions.boxes, moves, config.box_stds[stage]), sizes[regions.images])
            proposals = [boxes[(regions.images == i) & ~regions.is_object] for i in range(len(sizes))]
        return losses

    def box_losses(
        self, stage: int, regions: Regions, logits: torch.Tensor, deltas: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the box head of a stage is learned by, from what it returns for the regions."""
        config, stds = self.config, self.config.box_stds[stage]
        (finding,) = (regions.assigned >= 0).nonzero(as_tuple=True)
        boxes, targets = regions.boxes[finding], regions.targets[finding]
        moves = deltas[finding, regions.classes[finding]]
        if config.box_loss == "giou":
            errors = giou_loss(decode_deltas(boxes, moves, stds), targets)
        else:
            errors = (moves - encode_deltas(boxes, targets, stds)).abs()
        number = mean_over_processes(logits.new_tensor(len(logits)))
        return {
            "loss_cls": F.cross_entropy(logits, regions.classes, reduction="sum") / number,
            "loss_bbox": config.box_loss_weight * errors.sum() / number,
        }

    def mask_loss(
        self, stage: int, levels: tuple[torch.Tensor, ...], regions: Regions, masks: list[torch.Tensor]
    ) -> torch.Tensor:
        """What the mask head of a stage is learned by: regions that are to find an object, and the masks of these."""
        (finding,) = (regions.assigned >= 0).nonzero(as_tuple=True)
        boxes, images, assigned = (tensor[finding] for tensor in (regions.boxes, regions.images, regions.assigned))
        logits = self.mask_heads[stage](self.pool(levels, boxes, MASK_BINS, images)).to(boxes)
        side = logits.shape[-1]
        targets = torch.cat(
            [
                mask_targets(of_image, assigned[images == i], boxes[images == i], side)
                for i, of_image in enumerate(masks)
            ]
        )
        # (P, num_labels, side, side) -> (P, side, side), of the classes of the objects
        logits = logits[torch.arange(len(finding), device=finding.device), regions.classes[finding]]
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return errors / (side**2 * mean_over_processes(logits.new_tensor(len(finding))))

    def detect(
        self, levels: list[torch.Tensor], proposals: torch.Tensor, size: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The detections of one image, the best first.

        Images are treated one by one from here on, which bounds the memory for their regions.

        Args:
            levels: Of the feature pyramid, (1, channels, height, width) each, without the last, which only the region
                proposals use.
            proposals: (N, 4).
            size: (2,), width and height of the image.

        Returns:
            For up to `max_detections`: scores (K,), labels (K,), boxes (K, 4) as fractions of the size, and, if the
            model draws masks, their probabilities (K, 28, 28).
        """
        scores, boxes = self.classified(levels, proposals, size)
        region, labels = (scores > self.config.score_threshold).nonzero(as_tuple=True)
        scores, boxes = scores[region, labels], boxes[region, labels]
        kept = batched_nms(boxes, scores, labels, self.config.nms_threshold)[: self.config.max_detections]
        scores, boxes, labels = scores[kept], boxes[kept], labels[kept]
        masks = self.masks(levels, boxes, labels) if self.mask_heads else None
        return scores, labels, boxes / size.repeat(2), masks

    def classified(
        self, levels: list[torch.Tensor], regions: torch.Tensor, size: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all stages on regions (N, 4).

        Returns:
            Scores (N, num_labels) of the regions, and the last stage's boxes (N, num_labels, 4) for each class.
        """
        logits = 0
        for head, stds in zip(self.box_heads, self.config.box_stds, strict=True):
            stage_logits, deltas = (tensor.to(size) for tensor in head(self.pool(levels, regions, BOX_BINS)))
            boxes = clip_boxes(decode_deltas(regions[:, None], deltas, stds), size)
            logits = logits + stage_logits
            # the next stage looks at the box of the class that this one thinks is best, the background aside
            best = stage_logits[:, :-1].argmax(dim=1)
            regions = boxes[torch.arange(len(best), device=best.device), best]
        return (logits / len(self.box_heads)).softmax(dim=1)[:, :-1], boxes

    def masks(self, levels: list[torch.Tensor], boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Probabilities (K, 28, 28) of the masks in boxes (K, 4) with labels (K,): the mean over all mask heads."""
        pooled = self.pool(levels, boxes, MASK_BINS)
        detections = torch.arange(len(labels), device=labels.device)
        probabilities = [head(pooled).to(boxes)[detections, labels].sigmoid() for head in self.mask_heads]
        return sum(probabilities) / len(probabilities)

    def pool(
        self, levels: list[torch.Tensor], boxes: torch.Tensor, bins: int, images: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features (N, channels, bins, bins) in boxes (N, 4), each from the level that fits its size.

        `images` (N,) are the indices of their images, by default of the only one.
        """
        images = boxes.new_zeros(len(boxes)) if images is None else images.to(boxes)
        regions = torch.cat((images[:, None], boxes), dim=1)
        fitting = level_of(boxes, self.config.roi_finest_scale, len(levels))
        # (N, bins, bins, C) -> (N, C, bins, bins), channels-last as convolutions and RoIAlign have it
        pooled = levels[0].new_zeros(len(boxes), bins, bins, levels[0].shape[1]).permute(0, 3, 1, 2)
        for i, (level, stride) in enumerate(zip(levels, self.config.level_strides, strict=False)):
            pooled[fitting == i] = roi_align(level, regions[fitting == i], bins, 1 / stride)
        return pooled


def grid_anchors(height: int, width: int, stride: int, scale: float) -> torch.Tensor:
    """Anchors (height * width * 3, 4) of a level: at each position in turn, a wide, a square and a tall one.

    Their centres lie at the top left corners of the cells of the grid.
    """
    root = torch.tensor(ANCHOR_RATIOS).sqrt()
    half = scale * stride * torch.stack((1 / root, root), dim=1) / 2  # (3, 2), half of width and height
    rows, columns = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
    centres = torch.stack((columns, rows), dim=2).flatten(0, 1)[:, None]  # (H * W, 1, 2)
    return torch.cat((centres - half, centres + half), dim=2).flatten(0, 1)


def usable_anchors(anchors: torch.Tensor, size: torch.Tensor, inside: bool) -> torch.Tensor:
    """Whether anchors (N, 4) are learned from in an image of a size (2,): (N,).

    Either those that lie inside of it, or those whose centre does, or lies in the padding that it has by itself.
    """
    if inside:
        return (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] < size).all(dim=1)
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).round()
    return (centres < (size / PADDED_TO).ceil() * PADDED_TO).all(dim=1)


def per_anchor(level: torch.Tensor, numbers: int) -> torch.Tensor:
    """(batch_size, 3 * numbers, height, width) -> (batch_size, height * width * 3, numbers)."""
    return level.permute(0, 2, 3, 1).unflatten(3, (-1, numbers)).flatten(1, 3)


def level_of(boxes: torch.Tensor, finest_scale: float, levels: int) -> torch.Tensor:
    """The level (N,) that features of boxes (N, 4) come from: one more for each doubling of their size."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    level = ((width * height).sqrt() / finest_scale + 1e-6).log2().floor()
    return level.clamp(0, levels - 1).long()


__all__ = ["BackboneRCNNForObjectDetection"]
