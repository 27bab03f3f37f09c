"""Tests of the kernel on its own; see ../../conftest.py for what they run on."""

import math

import pytest
import torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PATHS = ["avx512", "avx2", "portable", "cuda"]
SHAPES = [(4, 5), (1, 2)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention_inputs(device, dtype=torch.float64, channels=4):
    """Locations are whole 1024ths, so that no rounding moves a sample across a pixel."""
    locations = (0.5 + 0.4 * normal(2, 3, 2, 2, 3, 2)).mul(1024).round() / 1024
    inputs = normal(2, 22, 2, channels), locations, normal(2, 3, 2, 2, 3, seed=1)
    return [tensor.to(device, dtype) for tensor in inputs]


def roi_inputs(device, dtype=torch.float64):
    """Regions of both images; some reach over the edges, the last one has no area."""
    edges = [[0, 3.3, 2.1, 30.7, 22.9], [1, -9.5, -3.2, 17.1, 11.7], [1, 9.1, 8.2, 70.3, 90.6], [0, 5, 5, 5, 9]]
    rois = torch.tensor(edges, dtype=torch.promote_types(dtype, torch.float32), device=device)
    return normal(2, 5, 6, 8).to(device, dtype), rois


def interpolate(image, x, y):
    """(H, W, C) at one place: zeros outside, number by number."""
    height, width, channels = image.shape
    total = image.new_zeros(channels)
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < width and 0 <= row < height:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return total


def one_sample_at_a_time(value, locations, weights):
    out = value.new_zeros(*locations.shape[:3], value.shape[3])
    for n, query, head, level, k in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        (height, width), start = SHAPES[level], 20 * level
        image = value[n, start : start + height * width, head].view(height, width, -1)
        x, y = locations[n, query, head, level, k].tolist()
        sample = interpolate(image, x * width - 0.5, y * height - 0.5)
        out[n, query, head] += weights[n, query, head, level, k] * sample
    return out.flatten(2)


def one_bin_at_a_time(features, rois, bins, scale):
    _, channels, height, width = features.shape
    out = features.new_zeros(len(rois), channels, bins, bins)
    for n, (image, *edges) in enumerate(rois.tolist()):
        left, top, right, bottom = (edge * scale - 0.5 for edge in edges)
        columns, rows = math.ceil((right - left) / bins), math.ceil((bottom - top) / bins)
        for row, column, i, j in torch.cartesian_prod(*map(torch.arange, (bins, bins, rows, columns))).tolist():
            x = left + (column + (j + 0.5) / columns) * (right - left) / bins
            y = top + (row + (i + 0.5) / rows) * (bottom - top) / bins
            if -1 <= x <= width and -1 <= y <= height:
                place = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
                sample = interpolate(features[int(image)].permute(1, 2, 0), *place)
                out[n, :, row, column] += sample / (rows * columns)
    return out


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [32, 64, 5, 20])
def test_attention(kernel, device, path, dtype, channels):
    inputs = attention_inputs(device, dtype, channels)
    out = kernel.multi_scale_deformable_attention(*inputs, spatial_shapes=SHAPES)
    tolerance = torch.finfo(dtype).eps
    expected = one_sample_at_a_time(*(tensor.double().cpu() for tensor in inputs))
    torch.testing.assert_close(out.double().cpu(), expected, rtol=tolerance, atol=50 * tolerance)


@pytest.mark.parametrize("path", PATHS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_roi_align(kernel, device, path, dtype, layout):
    features, rois = roi_inputs(device, dtype)
    out = kernel.roi_align(features.contiguous(memory_format=layout), rois, 3, 0.25)
    tolerance = torch.finfo(dtype).eps
    expected = one_bin_at_a_time(features.double().cpu(), rois.double().cpu(), 3, 0.25)
    torch.testing.assert_close(out.double().cpu(), expected, rtol=tolerance, atol=50 * tolerance)


@pytest.mark.parametrize("path", PATHS, indirect=True)
def test_nms(kernel, device, path):
    """Of three boxes on one another the best stays, unless they are of different groups; so do boxes without area."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [1, 0, 11, 10], [50, 50, 50, 50], [50, 50, 50, 50]])
    boxes, scores = boxes.to(device), torch.tensor([0.5, 0.7, 0.6, 0.1, 0.1], device=device)
    assert kernel.nms(boxes, scores, 0.5).tolist() == [1, 3, 4]
    groups = torch.tensor([1, 1, 0, 1, 1], device=device)
    assert kernel.batched_nms(boxes, scores, groups, 0.5).tolist() == [1, 2, 3, 4]
    assert kernel.nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_gradients_are_those_of_finite_differences(kernel, device):
    inputs = [tensor.requires_grad_() for tensor in attention_inputs(device, channels=2)]
    features, rois = roi_inputs(device)

    def attention(*inputs):
        return kernel.multi_scale_deformable_attention(*inputs, spatial_shapes=SHAPES)

    def roi_align(features):
        return kernel.roi_align(features, rois, 2, 0.25)

    # atomics add in any order
    assert torch.autograd.gradcheck(attention, inputs, nondet_tol=1e-12)
    assert torch.autograd.gradcheck(roi_align, features.requires_grad_(), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(roi_align, features, nondet_tol=1e-12)


def test_opcheck(operators, device):
    inputs, sizes = attention_inputs(device, torch.float32), [4, 5, 1, 2]
    features, rois = roi_inputs(device, torch.float32)
    boxes, groups = rois[:, 1:].contiguous(), torch.zeros(4, dtype=torch.long, device=device)
    differentiable = [tensor.clone().requires_grad_() for tensor in inputs]
    torch.library.opcheck(operators.deformable_attention_forward.default, (*differentiable, sizes))
    gradient = torch.ones(2, 3, 8, device=device)
    torch.library.opcheck(operators.deformable_attention_backward.default, (gradient, *inputs, sizes))
    torch.library.opcheck(operators.roi_align_forward.default, (features.requires_grad_(), rois, 3, 0.25))
    gradient = torch.ones(4, 5, 3, 3, device=device, requires_grad=True)
    torch.library.opcheck(operators.roi_align_backward.default, (gradient, rois, [2, 5, 6, 8], 0.25))
    torch.library.opcheck(operators.suppress.default, (boxes, groups, 0.5))


def test_compile(kernel, device):
    inputs = attention_inputs(device, torch.float32)
    compiled = torch.compile(kernel.multi_scale_deformable_attention, fullgraph=True)
    expected = kernel.multi_scale_deformable_attention(*inputs, spatial_shapes=SHAPES)
    torch.testing.assert_close(compiled(*inputs, spatial_shapes=SHAPES), expected)


def test_a_tensor_elsewhere_is_named(kernel, device):
    if device == "cpu":
        pytest.skip("the operators of a GPU are asked where one tensor is there")
    value, locations, weights = attention_inputs(device, torch.float32)
    with pytest.raises(RuntimeError, match="attention_weights: expected to be on cuda:0 like value, got cpu"):
        kernel.multi_scale_deformable_attention(value, locations, weights.cpu(), spatial_shapes=SHAPES)
