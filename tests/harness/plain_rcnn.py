"""Mask R-CNN and Cascade Mask R-CNN as the papers and MMDetection describe them, number by number, in float64.

Slow, and of nothing but PyTorch's convolutions and Python's floats: what the models here must compute.
"""

import math

import torch
import torch.nn.functional as F


def plain_iou(box, other):
    """Of two boxes; NaN where neither has area."""
    width = max(min(box[2], other[2]) - max(box[0], other[0]), 0)
    height = max(min(box[3], other[3]) - max(box[1], other[1]), 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    union = sum(areas) - width * height
    return width * height / union if union else math.nan


def plain_nms(boxes, scores, threshold, groups=None):
    """Indices of the boxes that stay, the best first; of equal scores, the first box is better."""
    groups = groups or [0] * len(boxes)
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        rivals = [j for j in kept if groups[j] == groups[i]]
        if not any(plain_iou(boxes[i], boxes[j]) > threshold for j in rivals):
            kept.append(i)
    return kept


def plain_roi_align(features, rois, size, scale):
    """Sample by sample. Features (B, C, H, W), rois (N, 5); returns (N, C, size, size)."""
    _, channels, height, width = features.shape
    out = features.new_zeros(len(rois), channels, size, size)
    for n, (image, *edges) in enumerate(rois.tolist()):
        left, top, right, bottom = (edge * scale - 0.5 for edge in edges)
        bin_height, bin_width = (bottom - top) / size, (right - left) / size
        rows, columns = math.ceil(bin_height), math.ceil(bin_width)
        for i in range(size):
            for j in range(size):
                for row in range(rows):
                    for column in range(columns):
                        y = top + (i + (row + 0.5) / rows) * bin_height
                        x = left + (j + (column + 0.5) / columns) * bin_width
                        if -1 <= y <= height and -1 <= x <= width:
                            out[n, :, i, j] += plain_sample(features[int(image)], y, x) / (rows * columns)
    return out


def plain_sample(features, y, x):
    """The bilinear sample (C,) of features (C, H, W) at a point."""
    height, width = features.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * features[:, top, left] + dx * features[:, top, right]
    below = (1 - dx) * features[:, bottom, left] + dx * features[:, bottom, right]
    return (1 - dy) * above + dy * below


def plain_decode(box, delta, stds, size):
    """A box moved by (dx, dy, dw, dh), clipped to an image of a size (width, height)."""
    left, top, right, bottom = box
    dx, dy, dw, dh = (value * std for value, std in zip(delta, stds, strict=True))
    limit = abs(math.log(16 / 1000))
    x, y = (left + right) / 2 + (right - left) * dx, (top + bottom) / 2 + (bottom - top) * dy
    width = (right - left) * math.exp(min(max(dw, -limit), limit))
    height = (bottom - top) * math.exp(min(max(dh, -limit), limit))
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return [min(max(edge, 0), limit) for edge, limit in zip(edges, (*size, *size), strict=True)]


class PlainRCNN:
    """The detector of a config with the weights of a model, on the feature maps of one image."""

    def __init__(self, model):
        self.config = model.config
        self.weights = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def detections(self, feature_maps, size):
        """Scores, labels, boxes in pixels and masks of an image of a size (width, height), the best first."""
        levels = self.pyramid([feature_map.double() for feature_map in feature_maps])
        regions = self.proposals(levels, size)
        logits = []
        for stage, stds in enumerate(self.config.box_stds):
            stage_logits, deltas = self.box_head(stage, self.pool(levels, regions, 7))
            logits.append(stage_logits)
            proposals = regions
            if stage < len(self.config.box_stds) - 1:
                regions = []
                for region, scores, delta in zip(proposals, stage_logits, deltas, strict=True):
                    best = int(scores[: self.config.num_labels].argmax())
                    regions.append(plain_decode(region, delta[4 * best : 4 * best + 4].tolist(), stds, size))
        candidates = []
        for n, region in enumerate(proposals):
            probabilities = (sum(stage[n] for stage in logits) / len(logits)).softmax(0)
            for label in range(self.config.num_labels):
                if (score := probabilities[label].item()) > self.config.score_threshold:
                    box = plain_decode(region, deltas[n, 4 * label : 4 * label + 4].tolist(), stds, size)
                    candidates.append((score, label, box))
        scores, labels, boxes = map(list, zip(*candidates, strict=True)) if candidates else ([], [], [])
        kept = plain_nms(boxes, scores, self.config.nms_threshold, labels)[: self.config.max_detections]
        scores, labels, boxes = ([values[i] for i in kept] for values in (scores, labels, boxes))
        return scores, labels, boxes, self.masks(levels, boxes, labels) if self.config.with_masks else None

    def pyramid(self, feature_maps):
        laterals = [self.conv_norm(f"neck.lateral_{{}}.{i}", x, 0) for i, x in enumerate(feature_maps)]
        for i in range(len(laterals) - 1, 0, -1):
            height, width = laterals[i - 1].shape[2:]
            rows = [row * laterals[i].shape[2] // height for row in range(height)]
            columns = [column * laterals[i].shape[3] // width for column in range(width)]
            laterals[i - 1] = laterals[i - 1] + laterals[i][:, :, rows][:, :, :, columns]
        levels = [self.conv_norm(f"neck.output_{{}}.{i}", x, 1) for i, x in enumerate(laterals)]
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]

    def conv_norm(self, name, x, padding):
        x = self.conv(name.format("convs"), x, padding)
        if self.config.fpn_norm is None:
            return x
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
        weight, bias = (self.weights[f"{name.format('norms')}.{leaf}"][:, None, None] for leaf in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def conv(self, name, x, padding):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), padding=padding)

    def proposals(self, levels, size):
        boxes, scores, of_level = [], [], []
        for level, x in enumerate(levels):
            stride = 4 * 2**level
            hidden = self.conv("rpn.conv", x, 1).relu()
            objectness, deltas = self.conv("rpn.objectness", hidden, 0)[0], self.conv("rpn.deltas", hidden, 0)[0]
            candidates = []
            for y in range(x.shape[2]):
                for column in range(x.shape[3]):
                    for anchor, ratio in enumerate((0.5, 1.0, 2.0)):
                        height = self.config.anchor_scale * stride * math.sqrt(ratio)
                        width = self.config.anchor_scale * stride / math.sqrt(ratio)
                        cx, cy = column * stride, y * stride
                        box = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
                        score = objectness[anchor, y, column].sigmoid().item()
                        delta = deltas[4 * anchor : 4 * anchor + 4, y, column].tolist()
                        candidates.append((score, plain_decode(box, delta, (1, 1, 1, 1), size)))
            candidates.sort(key=lambda candidate: -candidate[0])
            for score, box in candidates[: self.config.rpn_pre_nms]:
                if box[2] > box[0] and box[3] > box[1]:
                    boxes.append(box)
                    scores.append(score)
                    of_level.append(level)
        kept = plain_nms(boxes, scores, self.config.rpn_nms_threshold, of_level)
        return [boxes[i] for i in kept[: self.config.rpn_post_nms]]

    def pool(self, levels, boxes, size):
        pooled = levels[0].new_zeros(len(boxes), levels[0].shape[1], size, size)
        for n, (left, top, right, bottom) in enumerate(boxes):
            scale = math.sqrt((right - left) * (bottom - top)) / self.config.roi_finest_scale
            level = min(max(math.floor(math.log2(scale + 1e-6)), 0), 3)
            roi = torch.tensor([[0, left, top, right, bottom]], dtype=torch.float64)
            pooled[n] = plain_roi_align(levels[level], roi, size, 1 / (4 * 2**level))[0]
        return pooled

    def box_head(self, stage, x):
        name = f"box_heads.{stage}"
        for i in range(self.config.box_convs):
            x = self.conv(f"{name}.convs.{i}", x, 1)
            weight, bias, mean, variance = (
                self.weights[f"{name}.norms.{i}.{leaf}"][:, None, None]
                for leaf in ("weight", "bias", "running_mean", "running_var")
            )
            x = ((x - mean) / (variance + 1e-5).sqrt() * weight + bias).relu()
        x = x.flatten(1)
        for i in range(self.config.box_fcs):
            x = self.linear(f"{name}.fcs.{i}", x).relu()
        return self.linear(f"{name}.classifier", x), self.linear(f"{name}.deltas", x)

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def masks(self, levels, boxes, labels):
        x = self.pool(levels, boxes, 14)
        masks = []
        for stage in range(len(self.config.box_stds)):
            name, hidden = f"mask_heads.{stage}", x
            for i in range(self.config.mask_convs):
                hidden = self.conv(f"{name}.convs.{i}", hidden, 1).relu()
            weight, bias = self.weights[f"{name}.upsample.weight"], self.weights[f"{name}.upsample.bias"]
            hidden = F.conv_transpose2d(hidden, weight, bias, stride=2).relu()
            logits = self.conv(f"{name}.classifier", hidden, 0)
            masks.append([logits[n, label].sigmoid() for n, label in enumerate(labels)])
        return [sum(of_detection) / len(masks) for of_detection in zip(*masks, strict=True)]
