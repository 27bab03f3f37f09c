"""Images are prepared as in the originals' evaluations, which use torchvision on Pillow images."""

import base64
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BitImageProcessorPil,
    pipeline,
)
from transformers.image_utils import load_image
from transformers.models.auto import image_processing_auto

import hf_models
from hf_models.errors import InputError
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.inference import read_image
from hf_models.zoo import find_checkpoint

# (short side after resizing, or None where the image is warped; side of the crop)
RECIPES = {
    "internimage_t_1k_224": (224, 224),
    "internimage_h_22kto1k_640": (640, 640),
    "flash_internimage_l_22kto1k_384": (384, 384),
    "smt_tiny": (256, 224),
    "smt_large_22k_384_ft": (None, 384),
    "RepLKNet-31B_ImageNet-22K-to-1K_224": (256, 224),
    "RepLKNet-31L_ImageNet-22K-to-1K_384": (None, 384),
    "RepLKNet-XL_MegData73M_ImageNet1K": (365, 320),
}


def torchvision_recipe(image: Image.Image, resize: int | None, crop: int) -> np.ndarray:
    """torchvision's Resize(resize, BICUBIC) and CenterCrop(crop), or Resize((crop, crop)): (3, crop, crop), uint8."""
    width, height = image.size
    if resize is None:
        image = image.resize((crop, crop), Image.Resampling.BICUBIC)
    elif min(width, height) != resize:
        long = int(resize * max(width, height) / min(width, height))
        image = image.resize((resize, long) if width <= height else (long, resize), Image.Resampling.BICUBIC)
    left, top = round((image.width - crop) / 2.0), round((image.height - crop) / 2.0)
    return np.asarray(image)[top : top + crop, left : left + crop].transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def grey_levels(pixel_values: np.ndarray, name: str) -> np.ndarray:
    """Undoes the normalisation that the originals' configs state."""
    mean, std = ([0.5], [0.5]) if "-XL_" in name else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return (pixel_values * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))) * 255


@pytest.mark.parametrize("name", RECIPES)
def test_equal_to_the_original_recipe_on_50_sizes(name):
    processor = find_checkpoint(name).image_processor()
    sizes = np.random.default_rng(0).integers(60, 520, (50, 2)).tolist()
    for seed, (width, height) in enumerate(sizes):
        image = noise(width, height, seed)
        actual = grey_levels(processor(image, return_tensors="np").pixel_values[0], name)
        np.testing.assert_allclose(actual, torchvision_recipe(image, *RECIPES[name]), atol=0.01, err_msg=image.size)


def test_the_crop_differs_from_the_stock_processors_where_torchvision_does():
    stock = BitImageProcessorPil(**find_checkpoint("smt_tiny").image_processor().to_dict())
    differ = []
    for width in range(256, 272):  # 32, 33, ... pixels longer than the crop
        image = noise(width, 256)
        levels = grey_levels(stock(image, return_tensors="np").pixel_values[0], "smt_tiny")
        if np.abs(levels - torchvision_recipe(image, 256, 224)).max() > 1:
            differ.append((width - 224) % 4)
    assert differ == [3] * 4


def test_an_image_smaller_than_the_crop_is_padded():
    kwargs = {"do_resize": False, "crop_size": {"height": 8, "width": 8}, "return_tensors": "np"}
    for size in ((5, 6), (5, 12), (12, 5)):
        expected = BitImageProcessorPil()(noise(*size), **kwargs).pixel_values
        np.testing.assert_array_equal(ImageNetImageProcessor()(noise(*size), **kwargs).pixel_values, expected)


@pytest.mark.parametrize("torchvision", [False, True])
@pytest.mark.parametrize("backend", [None, "pil", "torchvision"])
def test_the_one_class_is_loaded_with_and_without_torchvision(monkeypatch, caplog, torchvision, backend):
    monkeypatch.setattr(image_processing_auto, "is_torchvision_available", lambda: torchvision)
    processor = AutoImageProcessor.from_pretrained(hf_models.default_checkpoint(), backend=backend)
    assert type(processor) is ImageNetImageProcessor
    assert "not available" not in caplog.text


@pytest.mark.parametrize("family", ["internimage", "flash_internimage", "smt", "replknet"])
def test_pipeline_finds_it_by_its_name_and_by_the_family(family, tmp_path):
    kernels = {"kernel_sizes": [5, 5, 5, 5]} if family == "replknet" else {}
    kwargs = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "num_labels": 3}
    config = AutoConfig.for_model(family, **kwargs, **kernels)
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    ImageNetImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    saved = json.loads(path.read_text())
    assert saved["image_processor_type"] == "ImageNetImageProcessor"
    for content in (saved, {key: value for key, value in saved.items() if key != "image_processor_type"}):
        path.write_text(json.dumps(content))
        classify = pipeline("image-classification", model=str(tmp_path))
        assert type(classify.image_processor) is ImageNetImageProcessor
        assert len(classify(noise(90, 70), top_k=2)) == 2


def turned(image: Image.Image, path) -> None:
    """Store a photo as phones do: lying on its side, with the note that it is to be turned clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(path, exif=exif)


def same_everywhere(path, processor) -> np.ndarray:
    """What a model sees of a file: by the processor, and behind a pipeline's reading."""
    seen = [
        processor(image, return_tensors="np").pixel_values[0] for image in (Image.open(path), load_image(str(path)))
    ]
    np.testing.assert_array_equal(*seen)
    return seen[0]


@pytest.mark.parametrize("suffix", ["avif", "jpg", "png", "tif", "webp"])
def test_a_photo_of_a_phone_is_upright(tmp_path, suffix):
    processor, path = find_checkpoint("smt_tiny").image_processor(), tmp_path / f"phone.{suffix}"
    turned(noise(90, 60), path)
    assert read_image(path).size == (90, 60)
    seen = same_everywhere(path, processor)
    np.testing.assert_array_equal(seen, processor(read_image(path), return_tensors="np").pixel_values[0])
    if suffix == "tif":  # Pillow turns these itself when it loads them
        return
    # an evaluation sees it as the authors' did
    as_stored = read_image(path, upright=False)
    assert as_stored.size == (60, 90)
    wanted = processor(Image.fromarray(np.asarray(as_stored)), return_tensors="np").pixel_values
    np.testing.assert_array_equal(processor(as_stored, return_tensors="np").pixel_values, wanted)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped(tmp_path, alpha):
    processor, path = find_checkpoint("smt_tiny").image_processor(), tmp_path / "logo.png"
    image = noise(60, 60)
    image.putalpha(alpha)
    image.save(path)
    seen = same_everywhere(path, processor)
    np.testing.assert_array_equal(seen, processor(read_image(path), return_tensors="np").pixel_values[0])
    np.testing.assert_array_equal(seen, processor(noise(60, 60), return_tensors="np").pixel_values[0])


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    processor = find_checkpoint("smt_tiny").image_processor()
    grey = np.asarray(noise(60, 60).convert("L"))
    wanted = processor(Image.fromarray(grey), return_tensors="np").pixel_values
    for name in ("scan.png", "scan.tif"):
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
        np.testing.assert_array_equal(processor(Image.open(tmp_path / name), return_tensors="np").pixel_values, wanted)
        with pytest.raises(InputError, match="more than 8 bits per channel"):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match="expected 8 bits per channel or floats, got uint16"):
        processor(np.zeros((3, 60, 60), np.uint16))
    with pytest.raises(ValueError, match="32 bits per channel"):
        processor(Image.fromarray(grey.astype(np.int32)))


# a red square, written by libavif with `--depth 10`
TEN_BITS = """
AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAA
DnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB8AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlw
cnAAAABLaXBjbwAAABRpc3BlAAAAAAAAABAAAAAQAAAAEHBpeGkAAAAAAwoKCgAAAAxhdjFDgSBAAAAAABNjb2xybmNseAABAA0ABoAAAAAXaXBtYQAA
AAAAAAABAAEEAQKDBAAAACdtZGF0EgAKCDgM//nAQ0GkMhEWQAAAQAAAeJ2B8PvkmIMR+A==
"""


def test_avif_of_ten_bits_is_refused_and_of_eight_is_read(tmp_path):
    path = tmp_path / "photo.avif"
    path.write_bytes(base64.b64decode(TEN_BITS))
    with pytest.raises(InputError, match=r"photo.avif: more than 8 bits per channel"):
        read_image(path)
    red = Image.new("RGB", (64, 48), (200, 30, 40))
    red.save(path)
    np.testing.assert_allclose(np.asarray(read_image(path)).astype(int), np.asarray(red), atol=4)


def test_photos_of_iphones(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "photo.jpg"  # some programs rename them so
    red = Image.new("RGB", (64, 48), (200, 30, 40))
    heif.from_pillow(red).save(path)
    np.testing.assert_allclose(np.asarray(read_image(path)).astype(int), np.asarray(red), atol=4)
    assert read_image(io.BytesIO(path.read_bytes())).size == (64, 48)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
        for file in (path, io.BytesIO(path.read_bytes())):
            with pytest.raises(InputError, match=r"photo.jpg: HEIC, .* Run `pip install pillow-heif`"):
                read_image(file, "photo.jpg")
    deep = np.full((48, 64, 3), 40_000, np.uint16)
    heif.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(path)
    with pytest.raises(InputError, match="more than 8 bits per channel"):
        read_image(path)
