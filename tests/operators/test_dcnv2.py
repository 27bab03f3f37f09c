"""DCNv2 (https://arxiv.org/abs/1811.11168) is the deformable operator behind a 1x1 convolution: docs/adoption.md."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

PAGE = Path(__file__).parents[2] / "docs" / "adoption.md"
(SOURCE,) = re.findall(r"^```python\n((?:(?!```).)*?def dcn_v2\(.*?)^```", PAGE.read_text("utf-8"), flags=re.S | re.M)


def grid_sample_dcn_v2(x, offset, mask, weight, bias):
    """By its definition: the products of a 3x3 convolution, each with a sample beside its place and a factor."""
    height, width = x.shape[2:]
    out = 0
    for point in range(9):
        dy, dx = offset[:, 2 * point], offset[:, 2 * point + 1]
        row = torch.arange(height, dtype=x.dtype)[:, None] + point // 3 - 1 + dy
        column = torch.arange(width, dtype=x.dtype) + point % 3 - 1 + dx
        grid = torch.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), dim=-1)
        sample = F.grid_sample(x, grid, align_corners=False) * mask[:, point, None]
        out = out + torch.einsum("nchw,oc->nohw", sample, weight[:, :, point // 3, point % 3])
    return out + bias[:, None, None]


@pytest.fixture
def dcn_v2():
    names = {}
    exec(SOURCE, names)
    return names["dcn_v2"]


def arguments(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 6, 7, 9), "offset": (2, 18, 7, 9), "mask": (2, 9, 7, 9), "weight": (4, 6, 3, 3), "bias": (4,)}
    found = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
    return found | {"offset": 2 * found["offset"], "mask": found["mask"].sigmoid()}


def test_it_is_dcn_v2(dcn_v2):
    given = arguments(torch.float64)
    torch.testing.assert_close(dcn_v2(**given), grid_sample_dcn_v2(**given))


def test_without_offsets_it_is_a_convolution(dcn_v2):
    given = arguments(torch.float64)
    given |= {"offset": torch.zeros_like(given["offset"]), "mask": torch.ones_like(given["mask"])}
    torch.testing.assert_close(dcn_v2(**given), F.conv2d(given["x"], given["weight"], given["bias"], padding=1))


def test_it_is_that_of_torchvision(dcn_v2):
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError) as error:  # of one that was built for another torch
        pytest.skip(f"torchvision does not load: {error}")
    given = arguments(torch.float32)
    expected = deform_conv2d(
        given["x"], given["offset"], given["weight"], given["bias"], padding=1, mask=given["mask"]
    )
    torch.testing.assert_close(dcn_v2(**given), expected, rtol=1e-4, atol=1e-5)
