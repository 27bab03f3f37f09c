"""Images with other channels than three: the stem is kept, and images are prepared and classified."""

from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoBackbone,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    UperNetForSemanticSegmentation,
    pipeline,
)
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.evaluate.checkpoint import load
from hf_models.evaluate.classifier import ClassifierEvaluation
from hf_models.evaluate.data.images import Sample
from hf_models.image_processing_imagenet import ImageNetImageProcessor, upright_image
from hf_models.inference import classify_images, read_image
from hf_models.input_channels import adapt_to_channels

from ..harness.hub_tester import TINY, tiny_folder

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module", params=TINY)
def folder(request, tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("rgb") / request.param, request.param)


def outputs(model, pixel_values):
    with torch.inference_mode():
        return model.eval()(pixel_values)[0]


def stem(model):
    """The weight of the first convolution."""
    return next(parameter for parameter in model.parameters() if parameter.ndim == 4)


def four_channels(path):
    """Random colours with random transparency, stored at `path`; the array."""
    pixels = np.random.default_rng(0).integers(0, 255, (72, 80, 4), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_the_weight_is_that_of_timm():
    """`adapt_input_conv` of timm 1.0: the sum for one channel, else repeated and scaled by 3 / channels."""
    weight = torch.arange(1.0, 4).view(1, 3, 1, 1)
    expected = {1: [6], 2: [1.5, 3], 4: [0.75, 1.5, 2.25, 0.75], 6: [0.5, 1, 1.5] * 2}
    for channels, values in expected.items():
        assert adapt_to_channels(weight, channels).flatten().tolist() == values
    assert adapt_to_channels(torch.ones(1, 1, 1, 1), 4).flatten().tolist() == [0.25] * 4


@pytest.mark.parametrize("channels", [1, 4])
def test_every_class_keeps_its_stem(folder, channels):
    rgb = AutoModelForImageClassification.from_pretrained(folder)
    backbone_class = type(AutoBackbone.from_config(rgb.config))
    expected = adapt_to_channels(stem(rgb), channels)
    for model_class in (AutoModelForImageClassification, AutoModel, backbone_class):
        model, info = model_class.from_pretrained(folder, num_channels=channels, output_loading_info=True)
        assert model.config.num_channels == channels and not info["mismatched_keys"]
        # ConvNext's backbones have norms that its classifiers lack
        assert all(name.startswith("hidden_states_norms.") for name in info["missing_keys"])
        assert torch.equal(stem(model), expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_saved_model_stays_as_it_is(folder, channels, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(folder, num_channels=channels)
    model.save_pretrained(tmp_path)
    for kwargs in ({}, {"num_channels": channels}):
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path, **kwargs)
        assert loaded.config.num_channels == channels
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    rgb = AutoModelForImageClassification.from_pretrained(tmp_path, num_channels=3)
    assert torch.equal(stem(rgb), adapt_to_channels(stem(model), 3))


def test_with_new_classes_and_another_dtype(folder):
    model = AutoModelForImageClassification.from_pretrained(
        folder, num_channels=4, num_labels=7, dtype=torch.bfloat16, ignore_mismatched_sizes=True
    )
    assert stem(model).dtype == torch.bfloat16 and model.classifier.out_features == 7
    original = stem(AutoModel.from_pretrained(folder, dtype=torch.bfloat16))
    assert torch.equal(stem(model), adapt_to_channels(original, 4))


def test_under_a_segmentation_head(tmp_path):
    """In a stock model of transformers, whose loading this package does not touch."""
    folder = tiny_folder(tmp_path, "upernet")
    rgb = UperNetForSemanticSegmentation.from_pretrained(folder)
    config = deepcopy(rgb.config)
    config.backbone_config.num_channels = 1
    grey = UperNetForSemanticSegmentation.from_pretrained(folder, config=config)
    pixel_values = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = outputs(rgb, pixel_values.expand(-1, 3, -1, -1))
    torch.testing.assert_close(outputs(grey, pixel_values), expected, rtol=1e-4, atol=1e-4)


def test_classify_grey_images(folder, tmp_path):
    """With a processor that was saved for RGB, as with one that was fitted; in pipelines with the latter."""
    model = AutoModelForImageClassification.from_pretrained(folder, num_channels=1)
    model.save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path)
    photo = Image.effect_noise((80, 72), 64)
    files = [tmp_path / name for name in ("grey.png", "rgb.png", "transparent.png")]
    transparent = photo.convert("RGBA")
    transparent.putalpha(128)
    for file, image in zip(files, (photo, photo.convert("RGB"), transparent), strict=True):
        image.save(file)
    first, *others = classify_images(files, tmp_path, top_k=10)
    assert others == [first, first]
    assert CliRunner().invoke(app, ["classify", str(files[0]), "--model", str(tmp_path)]).exit_code == 0
    processor.fit_channels(1)
    processor.save_pretrained(tmp_path)
    assert classify_images(files[:1], tmp_path, top_k=10) == [first]
    found = pipeline("image-classification", model=str(tmp_path))(str(files[0]), top_k=10)
    for theirs, ours in zip(found, first, strict=True):
        assert theirs["label"] == ours["label"] and theirs["score"] == pytest.approx(ours["score"], abs=1e-4)


def test_classify_images_of_four_channels(folder, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(folder, num_channels=4)
    model.save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path)
    pixels = four_channels(tmp_path / "four.png")
    opaque = np.dstack([pixels[..., :3], np.full((72, 80), 255, np.uint8)])
    Image.fromarray(pixels[..., :3]).save(tmp_path / "three.png")
    found = classify_images([tmp_path / "four.png", tmp_path / "three.png"], tmp_path, top_k=10)
    processor.fit_channels(4)
    for labels, array in zip(found, (pixels, opaque), strict=True):
        scores = outputs(model, processor(array, return_tensors="pt").pixel_values)[0].softmax(-1)
        assert labels[0]["label"] == f"LABEL_{scores.argmax()}"
        assert labels[0]["score"] == pytest.approx(scores.max().item(), abs=1e-5)


def test_more_channels_than_images_have(folder, tmp_path):
    AutoModelForImageClassification.from_pretrained(folder, num_channels=6).save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    four_channels(tmp_path / "four.png")
    with pytest.raises(InputError, match="takes 6 channels, and images have 1, 3 or 4"):
        classify_images([tmp_path / "four.png"], tmp_path)


def test_rgb_models_drop_transparency_as_before(folder, tmp_path):
    pixels = four_channels(tmp_path / "four.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "three.png")
    first, second = classify_images([tmp_path / "four.png", tmp_path / "three.png"], folder)
    assert first == second


def test_evaluation_prepares_as_many_channels(tmp_path):
    folder = tiny_folder(tmp_path, "smt")
    AutoModelForImageClassification.from_pretrained(folder, num_channels=4).save_pretrained(folder)
    pixels = four_channels(tmp_path / "four.png")
    evaluation = SimpleNamespace(loaded=load(str(folder), AutoModelForImageClassification), upright=True)
    evaluation.read = partial(ClassifierEvaluation.read, evaluation)
    prepared = ClassifierEvaluation.prepare_image(evaluation, Sample(0, "four.png", tmp_path / "four.png", 0))
    expected = evaluation.loaded.processor(pixels, return_tensors="pt").pixel_values[0]
    assert prepared.shape[0] == 4 and torch.equal(prepared, expected)


# --- images


def test_mean_and_deviation_go_with_the_stem():
    expected = {1: [sum(MEAN) / 3], 3: MEAN, 4: [*MEAN, MEAN[0]], 6: MEAN * 2}
    for channels, mean in expected.items():
        processor = ImageNetImageProcessor(image_mean=MEAN, image_std=STD)
        processor.fit_channels(channels)
        assert processor.channels == channels == len(processor.image_std) and list(processor.image_mean) == mean


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_channel_is_resized_and_normalised_for_itself(channels):
    processor = ImageNetImageProcessor(size={"shortest_edge": 40}, crop_size=32, image_mean=MEAN, image_std=STD)
    processor.fit_channels(channels)
    assert processor.channels == channels and "channels" not in processor.to_dict()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, channels), np.uint8)
    image = Image.fromarray(pixels.squeeze())
    got = processor(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(processor(pixels, return_tensors="pt").pixel_values, got)
    single = ImageNetImageProcessor(size={"shortest_edge": 40}, crop_size=32, do_normalize=False, image_mean=[0])
    for channel in range(channels):
        levels = single(Image.fromarray(pixels[..., channel]), return_tensors="pt").pixel_values[0, 0]
        mean, std = processor.image_mean[channel], processor.image_std[channel]
        torch.testing.assert_close(got[0, channel], (levels - mean) / std)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_gives_the_channels_that_are_wanted(mode, channels):
    image = Image.new(mode, (6, 4))
    assert np.asarray(upright_image(image, channels)).reshape(4, 6, -1).shape[-1] == channels


def test_transparency_of_a_file_is_kept_upright_or_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pixels = np.random.default_rng(0).integers(0, 255, (8, 6, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned, stored = (read_image(tmp_path / "turned.png", upright=upright, channels=4) for upright in (True, False))
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    np.testing.assert_array_equal(stored, pixels)
