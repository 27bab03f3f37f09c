"""Receptive fields, modulators and feature colours are what they are said to be; the commands write pictures."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference.classify import load_classifier
from hf_models.visualize.image_view import prepare_image

from ..harness.visualize_tester import deformable_model, photo, save_model, smt_model

run = CliRunner().invoke
GALLERY = Path(__file__).resolve().parents[2] / "examples" / "gallery"


@pytest.fixture
def drawing():
    """Skips a test where matplotlib is not installed."""
    return pytest.importorskip("hf_models.visualize.figures", exc_type=InputError)


@pytest.fixture
def image(tmp_path):
    photo().save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_areas_are_the_smallest_squares(drawing):
    from hf_models.visualize.erf import covered_areas

    scores = np.random.default_rng(0).random((64, 64)) ** 4
    for area in covered_areas(scores):
        half = area.side // 2
        held = scores[32 - half : 33 + half, 32 - half : 33 + half].sum() / scores.sum()
        smaller = scores[33 - half : 32 + half, 33 - half : 32 + half].sum() / scores.sum()
        assert smaller <= area.threshold < held
        assert area.ratio == (area.side / 64) ** 2
    centre = np.zeros((64, 64))
    centre[32, 32] = 1
    assert {(area.side, area.ratio) for area in covered_areas(centre)} == {(1, 1 / 4096)}
    border = np.zeros((64, 64))
    border[0] = 1  # the side away from the centre: no odd square reaches it
    assert {(area.side, area.ratio) for area in covered_areas(border)} == {(64, 1.0)}


class Pooling(torch.nn.Module):
    """A model whose central position is made of one known block of pixels."""

    device = torch.device("cpu")

    def forward(self, pixel_values, output_hidden_states):
        weight = torch.tensor([1.0, 3.0, -2.0]).view(1, 3, 1, 1)
        pooled = F.avg_pool2d(pixel_values * weight, 16, divisor_override=1) + 1e6
        dead = -pooled  # a channel that is not positive adds nothing
        return SimpleNamespace(hidden_states=(None, torch.cat((pooled, dead), dim=1)))


def test_scores_are_the_positive_gradients_of_the_central_position(drawing):
    from hf_models.visualize.erf import contribution_scores

    processor = ImageNetImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    scores = contribution_scores(Pooling(), processor, [photo(), photo(90, 90)], 64)
    expected = np.zeros((64, 64))
    expected[32:48, 32:48] = 1  # log10(1 + 1 + 3), scaled
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_scores_are_averaged_before_the_logarithm(drawing):
    from hf_models.visualize.erf import contribution_scores

    processor, classifier = load_classifier()
    images = [photo(), photo(90, 90).rotate(90)]
    raw = []
    for picture in images:
        square = {"height": 64, "width": 64}
        inputs = processor(picture, size=square, do_center_crop=False, resample=3, return_tensors="pt").pixel_values
        gradient = torch.autograd.functional.jacobian(
            lambda x: classifier(x, output_hidden_states=True).hidden_states[-1][0, :, 2, 2].clamp(min=0).sum(), inputs
        )
        raw.append(gradient[0].clamp(min=0).sum(dim=0))
    expected = (1 + sum(raw) / 2).log10()
    scores = contribution_scores(classifier, processor, images, 64)
    np.testing.assert_allclose(scores, expected / expected.max(), atol=1e-5)


def test_modulators_are_what_the_value_is_multiplied_by(drawing):
    from hf_models.visualize.modulation import last_modulations, modulator_strengths

    classifier, processor = smt_model()
    pixel_values, _ = prepare_image(photo(), processor)
    modulations = last_modulations(classifier)
    assert list(modulations) == ["stage 1, layer 1 of 1", "stage 2, layer 2 of 2", "stage 3, layer 3 of 4"]
    tensors = {}
    for name, module in modulations.items():
        module.value.register_forward_hook(lambda m, args, output, name=name: tensors.update({name: [output]}))
        module.projection.register_forward_pre_hook(lambda m, args, name=name: tensors[name].append(args[0]))
    strengths = modulator_strengths(classifier, pixel_values)
    for name, (value, modulated) in tensors.items():
        quotient = (modulated / value)[0].abs()  # (H, W, C)
        usable = (value[0].abs() > 1e-2).all(dim=-1).numpy()
        assert usable.any()
        np.testing.assert_allclose(strengths[name][usable], quotient.mean(dim=-1).numpy()[usable], rtol=1e-3)


def test_colours_show_the_main_component_as_lightness(drawing):
    from hf_models.visualize.features import component_colours

    ramp = torch.linspace(-1, 1, 12).repeat(9, 1)  # (H, W)
    other = torch.linspace(-0.1, 0.1, 9)[:, None].expand(9, 12)
    feature_map = torch.stack((5 * ramp, 3 + 0 * ramp, other))
    colours = component_colours(feature_map)
    assert colours.shape == (9, 12, 3) and colours.min() >= 0 and colours.max() <= 1
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[4]) > 0).all()
    assert np.ptp(luminance[:, 6]) < np.ptp(luminance[4]) / 4 and (colours[0, 6] != colours[8, 6]).any()
    shuffled = component_colours(feature_map.flip(dims=[2]))
    np.testing.assert_allclose(shuffled, colours[:, ::-1], atol=1e-6, err_msg="a colour belongs to the features")


@pytest.mark.parametrize("shape", [(2, 2), (1, 1)])
def test_colours_of_few_positions(drawing, shape):
    from hf_models.visualize.features import component_colours

    assert np.isfinite(component_colours(torch.randn(8, *shape))).all()


@pytest.mark.parametrize(
    ("command", "family"),
    [
        ("features", None),
        ("features --size 96", "smt"),
        ("modulation", "smt"),
        ("erf --size 64", None),
        ("sampling --at 120,90.5", "flash_internimage"),
    ],
)
def test_commands_write_pictures(drawing, command, family, image, tmp_path):
    out = tmp_path / "picture.png"
    arguments = ["visualize", *command.split(), image, "--out", str(out)]
    if family:
        arguments += ["--model", str(save_model(family, tmp_path / family))]
    result = run(app, arguments)
    assert result.exit_code == 0 and str(out) in result.stdout, result.stderr
    with Image.open(out) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left beside it"


def test_erf_command_prints_area_ratios(drawing, image, tmp_path):
    arguments = ["visualize", "erf", image, image, "--size", "64", "--out", str(tmp_path / "erf.svg")]
    areas = json.loads(run(app, [*arguments, "--json"]).stdout)
    assert [area["threshold"] for area in areas] == [0.2, 0.3, 0.5, 0.99]
    lines = run(app, arguments).stdout.splitlines()
    assert lines[0] == f"20% in {areas[0]['side']} x {areas[0]['side']} pixels, area ratio {areas[0]['ratio']:.1%}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampling", "--at", "12"], "--at: expected a pixel such as 120,80, got 12"),
        (["features", "--size", "100"], "--size must be a positive multiple of 16, got 100"),
        (["features", "--size", "48", "--model", "DEFORMABLE"], "--size must be a positive multiple of 32, got 48"),
        (["erf", "--size", "0"], "--size must be a positive multiple of 16, got 0"),
        (["features", "--out", "picture.xyz"], "picture.xyz: not a name of a picture"),
        (["features", "--out", "missing/picture.png"], "there is no folder missing"),
        (["modulation", "--model", "DEFORMABLE"], "no scale-aware modulation. `visualize modulation` fits smt"),
        (["features", "--model", "RESNET"], "of the family resnet. Give internimage, flash_internimage, smt or"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(drawing, arguments, message, image, tmp_path):
    if "DEFORMABLE" in arguments:
        save_model("internimage", tmp_path / "DEFORMABLE")
    if "RESNET" in arguments:
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
        ResNetForImageClassification(config).save_pretrained(tmp_path / "RESNET")
        deformable_model("internimage")[1].save_pretrained(tmp_path / "RESNET")
    arguments = [str(tmp_path / word) if word.isupper() else word for word in arguments]
    result = run(app, ["visualize", arguments[0], image, *arguments[1:]])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_sampling_names_the_families_that_fit(drawing, image, tmp_path):
    result = run(app, ["visualize", "sampling", image, "--model", str(save_model("smt", tmp_path / "smt"))])
    assert result.exit_code == 2 and "smt: no deformable layers" in result.stderr
    assert "fits internimage and flash_internimage" in result.stderr


def test_gallery_is_complete_and_small():
    text = (GALLERY / "README.md").read_text(encoding="utf-8")
    pictures = {path.name: path.stat().st_size for path in GALLERY.glob("*.png")}
    assert set(re.findall(r"\]\((.*?)\)", text)) == set(pictures) and sum(pictures.values()) < 500_000
    commands = re.findall(r"^    hf-models (.*)", text, flags=re.M)
    assert len(commands) == len(pictures)
    for command in commands:
        photos = re.findall(r"\S+\.jpg", command)
        assert photos and all((GALLERY.parents[1] / photo).is_file() for photo in photos)


def test_without_matplotlib_is_one_line(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("hf_models.visualize.figures", "hf_models.visualize.features"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    result = run(app, ["visualize", "features", image])
    assert result.exit_code == 2 and "matplotlib: not installed" in result.stderr and result.stderr.count("\n") == 1
