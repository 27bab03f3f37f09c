"""Decoding of boxes, NMS and RoIAlign: against the original's results, and against plain loops in float64."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_models import nms as nms_module
from hf_models import roi_align as roi_align_module
from hf_models.boxes import clip_boxes, decode_deltas, pairwise_iou
from hf_models.nms import batched_nms, nms
from hf_models.roi_align import roi_align, roi_align_reference

from ..harness.plain_rcnn import plain_iou, plain_nms, plain_roi_align

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
GOLDEN = load_file(FIXTURES / "det_ops.safetensors")
CASES = json.loads((FIXTURES / "det_ops.json").read_text())["cases"]


@pytest.fixture(autouse=True)
def pytorch_alone(monkeypatch):
    """Everywhere, what is tested is PyTorch alone."""
    monkeypatch.setattr(nms_module, "torchvision_nms", None)
    monkeypatch.setattr(roi_align_module, "torchvision_roi_align", None)
    for module in (nms_module, roi_align_module):
        monkeypatch.setattr(module, "get_function", lambda *_: None)


def random_boxes(count, seed=0, side=100.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator, dtype=dtype) * side
    sizes = torch.rand(count, 2, generator=generator, dtype=dtype) * side / 2
    return torch.cat((centres - sizes / 2, centres + sizes / 2), dim=1)


# --- boxes


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("deltas_")])
def test_decoding_is_the_originals(name):
    height, width = CASES[name]["max_shape"]
    rois, deltas = GOLDEN["deltas.rois"], GOLDEN["deltas.deltas"].view(-1, 2, 4)
    boxes = decode_deltas(rois[:, None], deltas, CASES[name]["stds"])
    boxes = clip_boxes(boxes, torch.tensor([width, height]))
    torch.testing.assert_close(boxes.flatten(1), GOLDEN[f"{name}.output"], rtol=0, atol=1e-4)


def test_decoding_is_bounded():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    for step in (100.0, -100.0):
        left, top, right, bottom = decode_deltas(boxes, torch.tensor([[0, 0, step, step]]))[0].tolist()
        assert right - left == pytest.approx(10 * 62.5 ** math.copysign(1, step), rel=1e-5)
        assert (left + right, top + bottom) == pytest.approx((10, 10), rel=1e-5)


def test_overlap_is_a_plain_loop():
    boxes, others = random_boxes(20, dtype=torch.float64), random_boxes(30, seed=1, dtype=torch.float64)
    expected = [[plain_iou(box, other) for other in others.tolist()] for box in boxes.tolist()]
    torch.testing.assert_close(pairwise_iou(boxes, others), torch.tensor(expected, dtype=torch.float64))


# --- NMS


@pytest.mark.parametrize("name", ["nms_classes", "nms_levels"])
def test_nms_of_groups_is_the_originals(name):
    boxes, scores, groups = (GOLDEN[f"{name}.{part}"] for part in ("boxes", "scores", "groups"))
    threshold = CASES[name]["iou_threshold"]
    assert torch.equal(batched_nms(boxes, scores, groups, threshold), GOLDEN[f"{name}.keep"])
    assert len(nms(boxes, scores, threshold)) == CASES[name]["kept_without_groups"]


def test_equal_overlap_and_boxes_without_area_stay():
    boxes, scores = GOLDEN["nms_edge.boxes"], GOLDEN["nms_edge.scores"]
    assert torch.equal(nms(boxes, scores, 0.5), GOLDEN["nms_edge.keep"])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_nms_is_a_plain_loop(count, threshold):
    for seed in range(5):
        boxes = random_boxes(count, seed)
        scores = torch.randint(20, (count,), generator=torch.Generator().manual_seed(seed)) / 20  # with ties
        assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes.tolist(), scores.tolist(), threshold)


def test_nms_of_a_long_chain():
    """Each box overlaps its neighbours alone, and is better than the next: every second one stays."""
    left = torch.arange(2500.0) * 4
    boxes = torch.stack((left, torch.zeros(2500), left + 10, torch.full((2500,), 10.0)), dim=1)
    kept = nms(boxes, -left, iou_threshold=0.4)
    assert kept.tolist() == list(range(0, 2500, 2))


def test_nms_in_half_precision_compares_in_single():
    """bfloat16 would make them equal to the threshold or not by rounding."""
    boxes, scores = random_boxes(60).bfloat16(), torch.rand(60, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(nms(boxes, scores, 0.3), nms(boxes.float(), scores.float(), 0.3))


# --- RoIAlign


def roi_case(seed, dtype=torch.float64, regions=6):
    """Regions of every size and form, some of which reach over the edges or have no area."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 24, (2,), generator=generator).tolist()
    features = torch.randn(2, 3, height, width, generator=generator, dtype=dtype)
    boxes = random_boxes(regions, seed, side=30.0, dtype=dtype) * torch.rand(regions, 1, generator=generator) * 4
    boxes[0, 2] = boxes[0, 0]
    boxes[1] = torch.tensor([-200.0, -200, -150, -150])
    image = torch.randint(2, (regions, 1), generator=generator)
    return features, torch.cat((image, boxes), dim=1)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("roi_align")])
def test_roi_align_is_the_originals(name):
    about = CASES[name]
    pooled = roi_align(GOLDEN[f"{name}.input"], GOLDEN[f"{name}.rois"], about["output_size"], 1 / about["stride"])
    expected = GOLDEN[f"{name}.output"]
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("seed", range(8))
def test_roi_align_is_a_plain_loop(seed):
    features, rois = roi_case(seed)
    for size, scale in ((7, 0.25), (3, 1.0), (1, 0.5)):
        expected = plain_roi_align(features, rois, size, scale)
        torch.testing.assert_close(roi_align(features, rois, size, scale), expected, rtol=0, atol=1e-12)
        assert not expected[:2].any(), "without area, and far outside"


def test_roi_align_in_parts_is_the_whole(monkeypatch):
    features, rois = roi_case(0, torch.float32, regions=40)
    expected = roi_align(features, rois, 7, 0.5)
    for pixels in (1, 20_000):
        monkeypatch.setattr(roi_align_module, "PIXELS_AT_ONCE", pixels)
        torch.testing.assert_close(roi_align(features, rois, 7, 0.5), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roi_align_in_half_precision_computes_in_single(dtype):
    features, rois = roi_case(2, torch.float32)
    pooled = roi_align(features.to(dtype), rois, 7, 0.5)
    assert pooled.dtype == dtype
    assert torch.equal(pooled, roi_align(features.to(dtype).float(), rois, 7, 0.5).to(dtype))


def test_roi_align_differentiates_the_features():
    features, rois = roi_case(3)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda features: roi_align(features, rois.requires_grad_(), 2, 0.5), features)
    roi_align(features, rois, 2, 0.5).sum().backward()
    assert rois.grad is None


def test_roi_align_of_no_regions_and_of_numbers_that_are_none():
    features, rois = roi_case(4)
    assert roi_align(features, rois[:0], 7, 0.5).shape == (0, 3, 7, 7)
    rois[2:, 1:] = torch.tensor([math.nan, math.inf, -math.inf, math.nan])
    assert not roi_align(features, rois, 7, 0.5)[2:].any()


def test_roi_align_ignores_the_memory_layout():
    features, rois = roi_case(5, torch.float32)
    other = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(roi_align(other, rois, 7, 0.5), roi_align(features, rois, 7, 0.5))


# --- torchvision, where it imports


def test_torchvision_computes_where_it_is(monkeypatch):
    """It gets the arguments under which it is the original's operator."""
    calls = []

    def their_roi_align(features, rois, output_size, spatial_scale, sampling_ratio, aligned):
        calls.append((features.dtype, output_size, sampling_ratio, aligned))
        return roi_align_reference(features, rois, output_size[0], spatial_scale)

    monkeypatch.setattr(roi_align_module, "torchvision_roi_align", their_roi_align)
    monkeypatch.setattr(nms_module, "torchvision_nms", lambda *tensors: calls.append("nms"))
    features, rois = roi_case(6, torch.float32)
    assert roi_align(features.bfloat16(), rois, 7, 0.5).dtype == torch.bfloat16
    nms(random_boxes(3), torch.rand(3), 0.5)
    assert calls == [(torch.float32, (7, 7), -1, True), "nms"]


def test_torchvision_agrees():
    torchvision = pytest.importorskip("torchvision.ops", exc_type=(ImportError, RuntimeError))
    boxes, scores = random_boxes(500), torch.rand(500)
    assert torch.equal(nms(boxes, scores, 0.5), torchvision.nms(boxes, scores, 0.5))
    features, rois = roi_case(7, torch.float32)
    expected = torchvision.roi_align(features, rois, (7, 7), 0.5, -1, True)
    torch.testing.assert_close(roi_align(features, rois, 7, 0.5), expected)


# --- refusals


def test_wrong_shapes_are_refused_with_the_shape():
    features, rois = roi_case(0)
    with pytest.raises(ValueError, match=r"rois: expected \(N, 5\), .* got \(6, 4\)"):
        roi_align(features, rois[:, 1:], 7, 0.5)
    with pytest.raises(ValueError, match=r"features: expected .* got \(3, \d+, \d+\)"):
        roi_align(features[0], rois, 7, 0.5)
    with pytest.raises(ValueError, match=r"boxes: expected \(N, 4\) for scores \(N,\), got \(6, 5\), \(6,\)"):
        nms(rois, torch.rand(6), 0.5)
