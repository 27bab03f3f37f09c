"""What detectors learn by: assignment, samples and losses against plain loops in float64."""

import math

import pytest
import torch
import torch.distributed as dist
from torch.autograd import gradcheck

from hf_models.box_assignment import (
    BACKGROUND,
    UNDECIDED,
    assign_boxes,
    assign_points,
    draw_regions,
    mask_targets,
    sample,
)
from hf_models.boxes import corner_boxes, decode_deltas, encode_deltas
from hf_models.detection_losses import focal_loss, giou_loss, iou_loss, mean_over_processes

from ..harness.plain_rcnn import plain_iou, plain_roi_align
from ..harness.plain_training import plain_assign, plain_assign_point, plain_encode, plain_focal, plain_giou
from .test_boxes import random_boxes

DOUBLE = torch.float64


def boxes_near(boxes, seed=0, by=0.1):
    """Boxes that overlap others by various parts."""
    generator = torch.Generator().manual_seed(seed)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + sides * by * torch.randn(boxes.shape, generator=generator, dtype=boxes.dtype).clamp(-2, 2)


# --- boxes


def test_encoding_undoes_decoding():
    boxes = random_boxes(20, dtype=DOUBLE)
    targets, stds = boxes_near(boxes), (0.1, 0.1, 0.2, 0.2)
    deltas = encode_deltas(boxes, targets, stds)
    torch.testing.assert_close(decode_deltas(boxes, deltas, stds), targets)
    expected = [plain_encode(*pair, stds) for pair in zip(boxes.tolist(), targets.tolist(), strict=True)]
    torch.testing.assert_close(deltas, torch.tensor(expected, dtype=DOUBLE))


def test_boxes_of_labels_in_pixels():
    boxes = corner_boxes(torch.tensor([[0.5, 0.25, 0.2, 0.5]]), torch.tensor([100.0, 40.0]))
    torch.testing.assert_close(boxes, torch.tensor([[40.0, 0.0, 60.0, 20.0]]))


# --- assignment


@pytest.mark.parametrize("limits", [(0.7, 0.3, 0.3), (0.5, 0.5, 0.5), (0.6, 0.6, None), (0.9, 0.1, 0.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_are_assigned_as_in_a_plain_loop(limits, seed):
    objects = random_boxes(6, seed, dtype=DOUBLE)
    objects = torch.cat((objects, boxes_near(objects[:3], seed, by=0.02)))  # so that some are rivals
    boxes = torch.cat([boxes_near(objects, i, by=0.05 * i) for i in range(8)] + [random_boxes(40, 9, dtype=DOUBLE)])
    found = assign_boxes(boxes, objects, *limits)
    assert found.tolist() == plain_assign(boxes.tolist(), objects.tolist(), *limits)
    assert len(found.unique()) > 5 and (BACKGROUND in found) and (UNDECIDED in found or limits[0] == limits[1])


def test_the_best_box_of_an_object_finds_it_even_if_another_one_fits_better():
    """The last of them, too, where two objects want the same box."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    objects = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 53, 60], [80, 80, 90, 90]])
    assert assign_boxes(boxes, objects, 0.7, 0.3, 0.3).tolist() == [1, 2]
    assert assign_boxes(boxes, objects, 0.7, 0.3).tolist() == [0, UNDECIDED]
    assert assign_boxes(boxes, objects[:0], 0.7, 0.3, 0.3).tolist() == [BACKGROUND] * 2
    assert assign_boxes(boxes[:0], objects, 0.7, 0.3, 0.3).shape == (0,)


@pytest.mark.parametrize("radius", [None, 0.6, 1.5])
def test_points_are_assigned_as_in_a_plain_loop(radius):
    levels = [(stride, [(x + 0.5) * stride for x in range(128 // stride)]) for stride in (8, 16, 32)]
    points = [(stride, x, y) for stride, places in levels for y in places for x in places]
    objects = random_boxes(12, 3, side=128.0, dtype=DOUBLE)
    strides, *places = torch.tensor(points, dtype=DOUBLE).unbind(dim=1)
    places = torch.stack(places, dim=1)
    assigned, distances = assign_points(places, strides, objects, radius)
    expected = [plain_assign_point(*point, objects.tolist(), radius, finest=8, coarsest=32) for point in points]
    assert assigned.tolist() == expected and {BACKGROUND} < set(expected)
    for (_, x, y), index, found in zip(points, expected, distances.tolist(), strict=True):
        if index >= 0:
            left, top, right, bottom = objects[index].tolist()
            assert found == pytest.approx([x - left, y - top, right - x, bottom - y])
    assigned, distances = assign_points(places[:9], strides[:9], objects[:0], radius)
    assert (assigned == BACKGROUND).all() and distances.shape == (9, 4)


# --- samples


def test_samples_are_as_many_as_there_may_be():
    assigned = torch.tensor([0] * 30 + [BACKGROUND] * 100 + [UNDECIDED] * 20)
    for number, share, expected in ((40, 0.5, (20, 20)), (40, 1.0, (30, 10)), (200, 0.5, (30, 100)), (1, 0.5, (0, 1))):
        finding, background = sample(assigned, number, share)
        assert (len(finding), len(background)) == expected
        assert (assigned[finding] == 0).all() and (assigned[background] == BACKGROUND).all()
        assert (finding.diff() > 0).all() and (background.diff() > 0).all(), "none is drawn twice"


def test_samples_are_fair_and_seeded():
    assigned = torch.tensor([0, BACKGROUND] * 50)
    torch.manual_seed(0)
    draws = [torch.cat(sample(assigned, 20, 0.5)) for _ in range(500)]
    torch.manual_seed(0)
    assert torch.equal(torch.cat(sample(assigned, 20, 0.5)), draws[0])
    counts = torch.cat(draws).bincount(minlength=100)
    assert counts.sum() == 500 * 20 and counts.min() > 60 and counts.max() < 145, "100 of each are expected"


def test_regions_of_a_batch():
    """The boxes of objects are among them, the background has the last class, an image may have neither."""
    objects = [
        (torch.tensor([3, 1]), torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])),
        (torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)),
    ]
    proposals = [
        torch.tensor([[0.0, 0, 10, 8], [21, 20, 40, 40], [60, 60, 70, 70]]),
        torch.tensor([[5.0, 5, 9, 9]]),
    ]
    regions = draw_regions(proposals, objects, num_labels=4, number=512, found=0.5, best_matches=True)
    assert regions.images.tolist() == [0] * 5 + [1]
    assert regions.classes.tolist() == [3, 1, 3, 1, 4, 4]
    assert regions.assigned.tolist() == [0, 1, 0, 1, BACKGROUND, BACKGROUND]
    assert regions.is_object.tolist() == [True, True, False, False, False, False]
    assert torch.equal(regions.boxes, torch.cat((objects[0][1], *proposals)))
    assert torch.equal(regions.targets[:4], objects[0][1].repeat(2, 1))
    few = draw_regions(proposals, objects, num_labels=4, number=4, found=0.5, best_matches=True)
    assert (few.images == 0).sum() == 2 and (few.assigned >= 0).sum() == 1, "a quarter of four finds an object"


def test_targets_of_masks_are_samples_of_these():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 6, 8, generator=generator) < 0.5).repeat_interleave(8, 1).repeat_interleave(8, 2)
    regions = random_boxes(9, 2, side=50.0, dtype=DOUBLE)
    assigned = torch.arange(9) % 3
    found = mask_targets(masks, assigned, regions, 14)
    rois = torch.cat((assigned[:, None].double(), regions), dim=1)
    shares = plain_roi_align(masks[:, None].double(), rois, 14, 1.0)[:, 0]
    sure = (shares - 0.5).abs() > 1e-9
    assert torch.equal(found[sure], (shares >= 0.5).double()[sure]) and 0.2 < found.mean() < 0.8
    for no_objects in (masks, masks[:0]):
        assert mask_targets(no_objects, assigned[:0], regions[:0], 14).shape == (0, 14, 14)


# --- losses


def test_overlap_losses_are_plain_arithmetic():
    targets = random_boxes(30, 1, dtype=DOUBLE)
    boxes = torch.cat((boxes_near(targets[:25], 2, by=0.3), targets[25:] + 500))
    pairs = list(zip(boxes.tolist(), targets.tolist(), strict=True))
    expected = [1 - plain_giou(*pair) for pair in pairs]
    torch.testing.assert_close(giou_loss(boxes, targets), torch.tensor(expected, dtype=DOUBLE))
    assert max(expected) > 1 > min(expected)
    expected = [-math.log(max(plain_iou(*pair), 1e-6)) for pair in pairs]
    torch.testing.assert_close(iou_loss(boxes, targets), torch.tensor(expected, dtype=DOUBLE))
    boxes = boxes[:25].requires_grad_()
    assert gradcheck(giou_loss, (boxes, targets[:25])) and gradcheck(iou_loss, (boxes, targets[:25]))


def test_focal_loss_is_plain_arithmetic():
    logits = torch.linspace(-8, 8, 33, dtype=DOUBLE).repeat(2, 1).requires_grad_()
    targets = torch.tensor([[0.0], [1.0]], dtype=DOUBLE).expand(2, 33)
    expected = [[plain_focal(x, target) for x in row] for row, target in zip(logits.tolist(), (0, 1), strict=True)]
    torch.testing.assert_close(focal_loss(logits, targets), torch.tensor(expected, dtype=DOUBLE))
    assert gradcheck(focal_loss, (logits, targets))


def test_processes_divide_by_their_mean(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(10))  # what the other process has
    count = torch.tensor(4.0)
    assert mean_over_processes(count) == 7 and count == 4
    with torch.no_grad():
        assert mean_over_processes(count) == 4, "who evaluates alone waits for nobody"
    monkeypatch.undo()
    assert mean_over_processes(count) == 4 and mean_over_processes(torch.tensor(0.0)) == 1
    assert mean_over_processes(torch.tensor(0.2), least=1e-6) == pytest.approx(0.2)
