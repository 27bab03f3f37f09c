"""The sampling points that are drawn are those that the operator reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil

from hf_models import deformable_conv
from hf_models.deformable_aggregate import deformable_aggregate
from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference.classify import load_classifier
from hf_models.visualize.image_view import check_size, prepare_image
from hf_models.visualize.sampling_points import sampling_points

from ..harness.visualize_tester import deformable_model, photo, smt_model

FAMILIES = ("internimage", "flash_internimage")


def recorded_calls(model, pixel_values, monkeypatch):
    """What each layer of the model hands to the operator, in order."""
    calls = []

    def record(value, offset, weight, **options):
        calls.append((value, offset, weight, options))
        return deformable_aggregate(value, offset, weight, **options)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(deformable_conv, "deformable_aggregate", record)
        model(pixel_values)
    return calls


def positions_from_the_operator(value, offset, weight, options):
    """x, y (N, H, W, G, K) that the operator reads, and whether all four neighbours of a point exist.

    Its output for an image of ramps, with weight 1 for one point and 0 for all others, is that point's position.
    """
    height, width, groups, points = *value.shape[1:4], offset.shape[-2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramps = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1).double()  # (H, W, 3)
    ramps = ramps[None, :, :, None].expand(1, -1, -1, groups, -1).contiguous()
    read = []
    for point in range(points):
        one_hot = torch.zeros(offset.shape[:-1], dtype=torch.float64)
        one_hot[..., point] = 1
        output = deformable_aggregate(ramps, offset.double(), one_hot, **(options | {"softmax": False}))
        read.append(output.unflatten(-1, (groups, 3)))
    x, y, inside = torch.stack(read, dim=-2).unbind(dim=-1)
    return x, y, inside > 1 - 1e-9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("stage", "layer", "call"), [(1, 1, 0), (3, 1, 2), (3, 2, 3), (4, 1, 4)])
def test_drawn_points_are_those_of_the_operator(family, stage, layer, call, monkeypatch):
    visualize_sampling = pytest.importorskip("hf_models.visualize.sampling", exc_type=InputError)
    model, processor = deformable_model(family)
    image = photo()
    pixel_values, view = prepare_image(image, processor)
    value, offset, weight, options = recorded_calls(model, pixel_values, monkeypatch)[call]
    x, y, inside = positions_from_the_operator(value, offset, weight, options)

    # 300 x 200 becomes 270 x 180, of which 160 x 160 are seen; stage s has a position every 2 ** (s + 1) pixels
    column, row, stride = 2, 2, 2 ** (stage + 1)
    corner = np.array([55, 10])
    at = ((np.array([column, row]) * stride + corner + 0.5) / 0.9) - 0.5
    points = sampling_points(model, pixel_values, view, at=tuple(at), stage=stage, layer=layer)
    figure = visualize_sampling.draw_sampling(image, view, points)
    np.testing.assert_allclose(points.at, at)
    shares = (weight.softmax(dim=-1) if family == "internimage" else weight)[0, row, column]
    np.testing.assert_allclose(points.weight, shares, atol=1e-6)

    overview, *panels = figure.axes
    compared = 0
    for group, panel in enumerate(panels):
        expected = torch.stack((x, y), dim=-1)[0, row, column, group].numpy()  # (points, 2) in pixels of the map
        expected = (expected * stride + corner + 0.5) / 0.9 - 0.5
        kept = inside[0, row, column, group].numpy()
        compared += kept.sum()
        for axes in (overview, panel):
            (drawn,) = (artist for artist in axes.collections if artist.get_label() == f"group {group}")
            np.testing.assert_allclose(drawn.get_offsets()[kept], expected[kept], atol=1e-3)
            opacity = drawn.get_facecolors()[:, 3]
            np.testing.assert_array_equal(opacity == 1, points.read[group])
            assert points.read[group][kept].all()
            strongest = np.abs(shares[group].numpy()).argsort()
            assert (np.diff(drawn.get_sizes()[strongest]) >= 0).all(), "a larger weight is drawn larger"
    assert len(panels) == value.shape[3] and compared >= points.x.size / 3


@pytest.mark.parametrize("family", FAMILIES)
def test_points_outside_read_nothing(family, monkeypatch):
    model, processor = deformable_model(family)
    pixel_values, view = prepare_image(photo(), processor)
    value, offset, weight, options = recorded_calls(model, pixel_values, monkeypatch)[4]
    points = sampling_points(model, pixel_values, view, at=(62, 12), stage=4)
    ones = torch.ones_like(value)
    for point in range(9):
        one_hot = torch.zeros_like(weight)
        one_hot[..., point] = 1
        output = deformable_aggregate(ones, offset, one_hot, **(options | {"softmax": False}))
        reads = output.unflatten(-1, (4, -1))[0, 0, 0, :, 0] > 0
        np.testing.assert_array_equal(points.read[:, point], reads)
    assert not points.read.all()


def test_a_new_layer_is_drawn_on_the_regular_grid(tmp_path):
    visualize_sampling = pytest.importorskip("hf_models.visualize.sampling", exc_type=InputError)
    model, processor = deformable_model("flash_internimage")
    new = type(model)(model.config).eval()  # DCNv4 begins with offsets and weights of 0
    image = photo()
    pixel_values, view = prepare_image(image, processor)
    points = sampling_points(new, pixel_values, view)
    assert not points.weight.any()
    for group in range(4):
        np.testing.assert_allclose((points.x[group], points.y[group]), points.grid)
    visualize_sampling.save_figure(visualize_sampling.draw_sampling(image, view, points), tmp_path / "new.png")


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_centred_at_multiples_of_the_stride(family):
    encoder = deformable_model(family)[0].base_model
    strided = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == 5
    assert {(conv.kernel_size, conv.padding) for conv in strided} == {((3, 3), (1, 1))}


def test_default_is_the_middle_of_the_last_layer_of_stage_3():
    model, processor = deformable_model("internimage")
    pixel_values, view = prepare_image(photo(), processor)
    points = sampling_points(model, pixel_values, view)
    assert "stage 3, layer 2 of 2" in points.name
    assert np.hypot(points.at[0] - 149.5, points.at[1] - 99.5) < 0.75 * 16 / 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": (10, 100)}, "pixel 10,100: the model does not see it. It sees x from 61 to 238 and y from 11 to 188"),
        ({"stage": 5}, "--stage must be from 1 to 4, got 5"),
        ({"stage": 3, "layer": 3}, "--layer must be from 1 to 2 in stage 3, got 3"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    model, processor = deformable_model("flash_internimage")
    with pytest.raises(InputError, match=message):
        sampling_points(model, *prepare_image(photo(), processor), **options)


def test_other_families_are_refused():
    model, processor = smt_model()
    with pytest.raises(InputError, match="fits internimage and flash_internimage"):
        sampling_points(model, *prepare_image(photo(), processor))


SQUARE = {"height": 64, "width": 64}
PROCESSORS = {
    "crop": (ImageNetImageProcessor(size={"shortest_edge": 73}, crop_size=SQUARE), None),
    "stock crop": (BitImageProcessorPil(size={"shortest_edge": 73}, crop_size=SQUARE), None),
    "padding": (BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=SQUARE), None),
    "warp": (ImageNetImageProcessor(size=SQUARE, do_center_crop=False), None),
    "larger": (ImageNetImageProcessor(size={"shortest_edge": 73}, crop_size=SQUARE), 96),
    "larger warp": (ImageNetImageProcessor(size=SQUARE, do_center_crop=False), 96),
}


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("image_size", [(311, 205), (205, 311)])
def test_view_finds_a_spot_again(kind, image_size):
    """A bright spot of the image lies where the view says, in what the processor makes of it."""
    processor, size = PROCESSORS[kind]
    x, y, radius = image_size[0] // 2 + 20, image_size[1] // 2 - 30, 12
    image = Image.new("RGB", image_size)
    image.paste((255, 255, 255), (x - radius, y - radius, x + radius + 1, y + radius + 1))
    pixel_values, view = prepare_image(image, processor, size)
    brightness = pixel_values[0, 0].double()
    brightness = (brightness - brightness.min()).numpy()
    rows, columns = np.indices(brightness.shape)
    found = (columns * brightness).sum() / brightness.sum(), (rows * brightness).sum() / brightness.sum()
    assert view.size == brightness.shape[::-1] == ((size or 64,) * 2)
    np.testing.assert_allclose(view.to_image(*found), (x, y), atol=0.75)
    np.testing.assert_allclose(view.to_input(x, y), found, atol=0.25)


@pytest.mark.parametrize("size", [-32, 0, 16, 100])
def test_size_is_a_multiple_of_the_output_stride(size):
    check_size(96, 32)
    with pytest.raises(InputError, match=f"positive multiple of 32, got {size}"):
        check_size(size, 32)


def test_stages_and_strides_are_those_of_the_model():
    """The embedded default has three stages: the third is the last, with a position every 16 pixels."""
    processor, model = load_classifier()
    pixel_values, view = prepare_image(photo(), processor)
    points = sampling_points(model, pixel_values, view)
    columns, rows = (side // 16 for side in view.size)
    assert points.name.endswith(f"stage 3, layer 2 of 2 ({columns} x {rows} positions)")
    with pytest.raises(InputError, match="--stage must be from 1 to 3, got 4"):
        sampling_points(model, pixel_values, view, stage=4)
    with pytest.raises(InputError, match="--stage must be from 1 to 3, got 0"):
        sampling_points(model, pixel_values, view, stage=0)
