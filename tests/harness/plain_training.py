"""The trainings of Mask R-CNN, its cascades and FCOS as the papers and MMDetection describe them, number by number."""

import math

import torch
import torch.nn.functional as F

from .plain_rcnn import PlainRCNN, plain_decode, plain_iou, plain_roi_align

UNLIMITED = (math.inf, math.inf)


def plain_encode(box, target, stds):
    """(dx, dy, dw, dh) that move a box to a target."""
    (x, y, width, height), (to_x, to_y, to_width, to_height) = (
        ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        for left, top, right, bottom in (box, target)
    )
    delta = ((to_x - x) / width, (to_y - y) / height, math.log(to_width / width), math.log(to_height / height))
    return [value / std for value, std in zip(delta, stds, strict=True)]


def plain_giou(box, other):
    """Generalised intersection over union of two boxes."""
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    iou = plain_iou(box, other)
    union = sum(areas) / (1 + iou)
    return iou - (hull - union) / hull


def plain_focal(logit, target):
    """Of one logit; alpha is 0.25 and gamma 2."""
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if target else -0.75 * p**2 * math.log(1 - p)


def plain_assign(boxes, objects, found, missed, best_from=None):
    """For each box the index of an object, -1 for the background or -2 for neither."""
    overlaps = [[plain_iou(box, one) for one in objects] for box in boxes]
    assigned = []
    for row in overlaps:
        most = max(row, default=0)
        assigned.append(row.index(most) if row and most >= found else -1 if most < missed else -2)
    for index in range(len(objects) if best_from is not None else 0):
        column = [row[index] for row in overlaps]
        for i, overlap in enumerate(column):
            if overlap == max(column) >= best_from:
                assigned[i] = index
    return assigned


def plain_assign_point(stride, x, y, objects, radius, finest, coarsest):
    """The index of the object that a point of FCOS is to find, or -1."""
    found, smallest = -1, math.inf
    for index, (left, top, right, bottom) in enumerate(objects):
        edges = [x - left, y - top, right - x, bottom - y]
        if min(edges) <= 0:
            continue
        if radius is not None and not (
            abs(x - (left + right) / 2) < radius * stride and abs(y - (top + bottom) / 2) < radius * stride
        ):
            continue
        if (stride > finest and max(edges) < 4 * stride) or (stride < coarsest and max(edges) > 8 * stride):
            continue
        area = (right - left) * (bottom - top)
        if area < smallest:
            found, smallest = index, area
    return found


def plain_smooth_l1(error, beta):
    error = abs(error)
    return 0.5 * error**2 / beta if error < beta else error - 0.5 * beta


class PlainRCNNTraining(PlainRCNN):
    """The losses of a batch, if every region and every anchor is drawn."""

    def losses(self, images):
        """Of images, each of which is (feature maps, size (width, height), classes, boxes, masks)."""
        self.sums, self.counts = {}, {}
        for feature_maps, size, classes, boxes, masks in images:
            levels = self.pyramid([feature_map.double() for feature_map in feature_maps])
            self.rpn(levels, size, boxes)
            self.stages(levels, size, classes, boxes, masks)
        return {name: total / max(self.counts[name], 1) for name, total in self.sums.items()}

    def add(self, name, total, count):
        self.sums[name] = self.sums.get(name, 0.0) + float(total)
        self.counts[name] = self.counts.get(name, 0) + count

    def rpn(self, levels, size, objects):
        anchors, logits, deltas = [], [], []
        for level, x in enumerate(levels):
            stride, hidden = 4 * 2**level, self.conv("rpn.conv", x, 1).relu()
            objectness, moves = self.conv("rpn.objectness", hidden, 0)[0], self.conv("rpn.deltas", hidden, 0)[0]
            for y in range(x.shape[2]):
                for column in range(x.shape[3]):
                    for anchor, ratio in enumerate((0.5, 1.0, 2.0)):
                        width, height = (self.config.anchor_scale * stride * ratio**power for power in (-0.5, 0.5))
                        cx, cy = column * stride, y * stride
                        box = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
                        if self.config.rpn_inside_anchors:
                            usable = min(box) >= 0 and box[2] < size[0] and box[3] < size[1]
                        else:
                            usable = cx < 32 * math.ceil(size[0] / 32) and cy < 32 * math.ceil(size[1] / 32)
                        if usable:
                            anchors.append(box)
                            logits.append(objectness[anchor, y, column].item())
                            deltas.append(moves[4 * anchor : 4 * anchor + 4, y, column].tolist())
        assigned = plain_assign(anchors, objects, 0.7, 0.3, 0.3)
        drawn = max(sum(index >= 0 for index in assigned), 1) + max(assigned.count(-1), 1)
        beta = self.config.rpn_loss_beta
        for index, anchor, logit, delta in zip(assigned, anchors, logits, deltas, strict=True):
            if index >= -1:
                self.add("loss_rpn_cls", math.log1p(math.exp(-logit if index >= 0 else logit)), 0)
            if index >= 0:
                errors = zip(delta, plain_encode(anchor, objects[index], (1, 1, 1, 1)), strict=True)
                self.add("loss_rpn_bbox", sum(plain_smooth_l1(a - b, beta) for a, b in errors), 0)
        self.add("loss_rpn_cls", 0, drawn)
        self.add("loss_rpn_bbox", 0, drawn)

    def stages(self, levels, size, classes, objects, masks):
        config, proposals = self.config, self.proposals(levels, size)
        for stage, stds in enumerate(config.box_stds):
            end, weight = ("" if len(config.box_stds) == 1 else f"_{stage}"), 0.5**stage
            iou = (0.5, 0.6, 0.7)[stage]
            assigned = list(range(len(objects)))
            assigned += plain_assign(proposals, objects, iou, iou, iou if config.box_best_matches else None)
            regions = objects + proposals
            logits, deltas = self.box_head(stage, self.pool(levels, regions, 7))
            background, refined = config.num_labels, []
            for n, (region, index) in enumerate(zip(regions, assigned, strict=True)):
                label = classes[index] if index >= 0 else background
                self.add(f"loss_cls{end}", -weight * logits[n].log_softmax(0)[label], 1)
                moves = deltas[n].view(-1, 4)
                if index >= 0 and config.box_loss == "l1":
                    target = plain_encode(region, objects[index], stds)
                    error = sum(abs(a - b) for a, b in zip(moves[label].tolist(), target, strict=True))
                elif index >= 0:
                    error = 10 * (1 - plain_giou(self.moved(region, moves[label], stds), objects[index]))
                else:
                    label, error = int(logits[n, :background].argmax()), 0.0
                self.add(f"loss_bbox{end}", weight * error, 1)
                if n >= len(objects):
                    refined.append(plain_decode(region, moves[label].tolist(), stds, size))
            if config.with_masks:
                self.mask(stage, end, weight, levels, regions, assigned, classes, masks)
            proposals = refined

    def moved(self, box, delta, stds):
        """Not clipped, as boxes are learned."""
        left, top, right, bottom = box
        far = 1e4
        moved = plain_decode((left + far, top + far, right + far, bottom + far), delta.tolist(), stds, UNLIMITED)
        return [edge - far for edge in moved]

    def mask(self, stage, end, weight, levels, regions, assigned, classes, masks):
        finding = [n for n, index in enumerate(assigned) if index >= 0]
        regions, assigned = [regions[n] for n in finding], [assigned[n] for n in finding]
        if not finding:
            return self.add(f"loss_mask{end}", 0, 0)
        name, hidden = f"mask_heads.{stage}", self.pool(levels, regions, 14)
        for i in range(self.config.mask_convs):
            hidden = self.conv(f"{name}.convs.{i}", hidden, 1).relu()
        weights, bias = self.weights[f"{name}.upsample.weight"], self.weights[f"{name}.upsample.bias"]
        logits = self.conv(f"{name}.classifier", F.conv_transpose2d(hidden, weights, bias, stride=2).relu(), 0)
        for n, index in enumerate(assigned):
            roi = torch.tensor([[index, *regions[n]]], dtype=torch.float64)
            target = (plain_roi_align(masks[:, None].double(), roi, 28, 1.0)[0, 0] >= 0.5).double()
            p = logits[n, classes[index]].sigmoid()
            error = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
            self.add(f"loss_mask{end}", weight * error, 1)
        return None
