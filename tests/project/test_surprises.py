"""What docs/surprises.md says of the libraries around these models, as far as the test environment has them.

Each test shows one behaviour that a good guess gets wrong, with the versions that it was seen with; with others it is
skipped. When a pin moves, run it with the new version first: a test that fails names a row that is out of date.
"""

import importlib.metadata
import io
import re
import struct
import time
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)
from transformers.image_utils import load_image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

SEEN = {
    "torch": ("2.13",),
    "transformers": ("5.23", "5.24"),
    "pillow": ("12.3", "13.0"),
    "datasets": ("5.2",),
    "onnxruntime": ("1.31", "1.32"),
}


def seen_with(*libraries: str):
    """Skip a test where a library is missing, or is of a version that the behaviour was not looked at with."""
    for library in libraries:
        try:
            installed = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            return pytest.mark.skip(reason=f"{library} is missing")
        if ".".join(installed.split(".")[:2]) not in SEEN[library]:
            return pytest.mark.skip(reason=f"seen with {library} {SEEN[library]}, installed is {installed}")
    return lambda test: test


@pytest.fixture(autouse=True)
def one_thread_and_a_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def png(samples: list[int], depth: int) -> io.BytesIO:
    """A greyscale PNG of one row with `depth` bits per sample, which Pillow itself does not write."""
    bits = "".join(f"{sample:0{depth}b}" for sample in samples)
    row = int(bits.ljust(-len(bits) // 8 * -8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", len(samples), 1, depth, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
              for kind, data in chunks]  # fmt: skip
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def plain(processor: type, **options):
    """An image processor that does nothing but what is asked for."""
    off = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
    return processor(**{**off, **options})


# --- preprocessing --------------------------------------------------------------------------------


@seen_with("transformers", "pillow")
def test_transparency_is_white_for_the_processor_and_dropped_by_load_image(tmp_path):
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "cut-out.png")
    processor = plain(BitImageProcessorPil)
    opened = processor(Image.open(tmp_path / "cut-out.png"), return_tensors="np")["pixel_values"]
    loaded = processor(load_image(str(tmp_path / "cut-out.png")), return_tensors="np")["pixel_values"]
    assert opened[0, :, 0, 0].tolist() == [255, 255, 255]
    assert loaded[0, :, 0, 0].tolist() == [200, 0, 0]


@seen_with("transformers", "pillow")
def test_sixteen_bit_grey_becomes_white():
    image = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    pixels = plain(BitImageProcessorPil, do_rescale=True)(image, return_tensors="np")["pixel_values"]
    assert pixels.min() == 1.0  # 40000 / 65535 would be 0.61


@seen_with("transformers", "pillow")
def test_exif_orientation_is_left_to_load_image(tmp_path):
    tags = Image.Exif()
    tags[0x112] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "phone.jpg", exif=tags)
    processor = plain(BitImageProcessorPil)
    opened = processor(Image.open(tmp_path / "phone.jpg"), return_tensors="np")["pixel_values"]
    loaded = processor(load_image(str(tmp_path / "phone.jpg")), return_tensors="np")["pixel_values"]
    assert (opened.shape[2:], loaded.shape[2:]) == ((32, 64), (64, 32))


@seen_with("transformers", "pillow")
def test_resizing_floats_loses_half_a_grey_level():
    image = np.full((3, 8, 8), 0.5, np.float32)
    processor = plain(BitImageProcessorPil, do_resize=True, size={"height": 4, "width": 4})
    pixels = processor(image, return_tensors="np", input_data_format="channels_first")["pixel_values"]
    assert pixels.max() == pytest.approx(127 / 255)


@seen_with("pillow")
def test_palettes_are_resized_by_nearest_whatever_is_asked_for():
    grey = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    palette = grey.convert("P")
    assert np.array_equal(palette.convert("L"), grey)
    cubic, nearest = (
        palette.resize((4, 4), method).convert("L") for method in (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
    )
    assert np.array_equal(cubic, nearest)
    assert not np.array_equal(cubic, grey.resize((4, 4), Image.Resampling.BICUBIC))


@seen_with("pillow")
def test_resizing_before_dropping_alpha_changes_the_colours():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2], pixels[:, 2:] = (200, 0, 0, 255), (0, 200, 0, 0)
    image = Image.fromarray(pixels)
    first_resized = image.resize((2, 2), Image.Resampling.BILINEAR).convert("RGB")
    first_dropped = image.convert("RGB").resize((2, 2), Image.Resampling.BILINEAR)
    assert np.asarray(first_resized)[0, 1].tolist() == [205, 0, 0]
    assert np.asarray(first_dropped)[0, 1].tolist() == [29, 171, 0]


@seen_with("torch", "pillow")
def test_nearest_of_pillow_and_of_torch_take_different_pixels():
    labels = torch.arange(12.0)
    by_torch = F.interpolate(labels[None, None, None], size=(1, 4), mode="nearest")[0, 0, 0].tolist()
    by_pillow = Image.fromarray(labels[None].byte().numpy()).resize((4, 1), Image.Resampling.NEAREST)
    assert by_torch == [0, 3, 6, 9]
    assert np.asarray(by_pillow)[0].tolist() == [1, 4, 7, 10]


@seen_with("torch")
def test_antialias_changes_enlarging_too():
    impulse = torch.zeros(1, 1, 1, 8)
    impulse[..., 3] = 1
    without, with_it = (
        F.interpolate(impulse, size=(1, 16), mode="bicubic", antialias=antialias)[0, 0, 0, 4:6].tolist()
        for antialias in (False, True)
    )
    assert without == pytest.approx([-0.1055, 0.2617], abs=1e-4)
    assert with_it == pytest.approx([-0.0703, 0.2266], abs=1e-4)


@seen_with("transformers")
def test_detr_resizes_shorter_than_its_authors():
    pixels = DetrImageProcessorPil()(np.zeros((375, 500, 3), np.uint8), return_tensors="np")["pixel_values"]
    assert pixels.shape[2:] == (800, 1066)  # 1066.67 is cut; mmdetection and detectron2 round it


@seen_with("datasets", "pillow")
def test_passing_an_image_through_map_encodes_it_anew():
    datasets = pytest.importorskip("datasets")
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(
        file, "JPEG", quality=95
    )
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [{"bytes": file.getvalue(), "path": None}]}, features=features)
    before = np.asarray(rows[0]["image"]).astype(int)
    passed = np.asarray(rows.map(lambda row: {"image": row["image"]})[0]["image"])
    converted = np.asarray(rows.map(lambda row: {"image": row["image"].convert("RGB")})[0]["image"])
    assert abs(passed - before).max() > 40  # JPEG at quality 75
    assert abs(converted - before).max() == 0  # PNG


# --- masks and segmentation -----------------------------------------------------------------------


@seen_with("pillow")
def test_grey_of_two_or_four_bits_is_scaled():
    assert np.asarray(Image.open(png([0, 1, 2, 3], depth=2)))[0].tolist() == [0, 85, 170, 255]
    assert np.asarray(Image.open(png([0, 1, 2, 3], depth=4)))[0].tolist() == [0, 17, 34, 51]


@seen_with("pillow")
def test_a_mask_stored_as_a_grey_palette_is_read_as_indices():
    classes = [0, 1, 2, 17, 150]
    image = Image.new("P", (5, 1))  # what lossless optimisers make of a grey mask with few classes
    image.putpalette([value for value in classes for _ in range(3)])
    image.putdata(range(5))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert np.asarray(Image.open(file))[0].tolist() == [0, 1, 2, 3, 4]
    assert np.asarray(Image.open(file).convert("L"))[0].tolist() == classes


@seen_with("transformers")
def test_reducing_labels_changes_the_mask_of_the_caller():
    mask = np.array([[1] * 8] * 4 + [[0] * 8] * 4, np.uint8)
    image = np.zeros((8, 8, 3), np.uint8)
    labels = SegformerImageProcessorPil(do_resize=False, do_reduce_labels=True)(image, mask)["labels"][0]
    assert np.unique(labels).tolist() == [0, 255]
    assert np.unique(mask).tolist() == [1, 255]  # it held 0 and 1


@seen_with("transformers")
def test_mask2former_pads_binary_masks_with_the_ignored_label():
    processor = Mask2FormerImageProcessorPil(do_resize=False, ignore_index=255)
    maps = [np.zeros((8, 8), np.uint8), np.zeros((8, 16), np.uint8)]
    maps[0][:4] = 1
    images = [np.zeros((*each.shape, 3), np.uint8) for each in maps]
    masks = processor(images, maps, return_tensors="pt")["mask_labels"][0]
    assert masks.unique().tolist() == [0, 1, 255]


@seen_with("transformers")
def test_mask2former_stretches_to_a_multiple_of_32():
    pixels = Mask2FormerImageProcessorPil()(np.zeros((480, 640, 3), np.uint8), return_tensors="np")
    assert pixels["pixel_values"].shape[2:] == (800, 1088)
    assert pixels["pixel_mask"].all()


def queries(classes: list[int], masks: torch.Tensor, num_labels: int = 3) -> SimpleNamespace:
    """The output of a Mask2Former that is certain of one class per query; masks are logits (queries, H, W)."""
    logits = torch.full((1, len(classes), num_labels + 1), -20.0)
    logits[0, torch.arange(len(classes)), torch.tensor(classes)] = 20
    return SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks[None])


def stripes(count: int, value: float = 6.0) -> torch.Tensor:
    """Mask logits of `count` vertical stripes that share 16 columns: (count, 16, 16)."""
    masks = torch.full((count, 16, 16), -6.0)
    for index in range(count):
        masks[index, :, index * 16 // count : (index + 1) * 16 // count] = value
    return masks


@seen_with("transformers")
def test_a_panoptic_segment_takes_all_pixels_that_no_other_claims():
    outputs = queries([0], stripes(4)[:1])
    result = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(outputs, target_sizes=[(16, 16)])
    assert (result[0]["segmentation"] == result[0]["segments_info"][0]["id"]).all()  # the mask has a quarter


@seen_with("transformers")
def test_panoptic_ids_are_given_twice_where_classes_are_fused():
    result = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(
        queries([0, 1, 0, 2], stripes(4)), target_sizes=[(16, 16)], label_ids_to_fuse={0}
    )
    assert result[0]["segmentation"][0, ::4].tolist() == [1, 2, 1, 2]  # the last is another class than the second


@seen_with("transformers")
def test_the_mask_threshold_of_instances_is_not_used():
    processor, outputs = Mask2FormerImageProcessorPil(), queries([0], stripes(4, value=1.0)[:1])  # probability 0.73
    for threshold in (0.5, 0.9):
        result = processor.post_process_instance_segmentation(
            outputs, mask_threshold=threshold, target_sizes=[(16, 16)]
        )
        assert int((result[0]["segmentation"] == 0).sum()) == 64


@seen_with("transformers")
def test_padding_is_not_cut_off_before_masks_are_resized():
    outputs = queries([0, 1], stripes(2).repeat_interleave(2, dim=2))  # the image, padded on the right by as much
    semantic = Mask2FormerImageProcessorPil().post_process_semantic_segmentation(outputs, target_sizes=[(16, 16)])
    assert (semantic[0] == 0).float().mean() == 0.5


@seen_with("torch")
def test_the_loss_of_an_image_without_labelled_pixels_is_nan():
    assert F.cross_entropy(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255), ignore_index=255).isnan()


# --- models and training --------------------------------------------------------------------------


def tiny_convnext(**options) -> ConvNextForImageClassification:
    config = ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, **options)
    return ConvNextForImageClassification(config).eval()


@seen_with("transformers")
def test_soft_labels_make_a_multi_label_classifier():
    model = tiny_convnext(num_labels=3)
    labels = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]])
    output = model(torch.randn(2, 3, 32, 32), labels=labels)
    assert output.loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(output.logits, labels).item())
    assert model.config.problem_type == "multi_label_classification"  # and is saved with the model


@seen_with("transformers")
def test_class_names_are_dropped_where_num_labels_differs():
    config = ConvNextConfig(num_labels=5, id2label={0: "cat", 1: "dog", 2: "fox"})
    assert config.id2label == {index: f"LABEL_{index}" for index in range(5)}


@seen_with("transformers")
def test_from_config_takes_the_dtype_and_the_constructor_does_not():
    config = ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, dtype=torch.bfloat16)
    assert AutoModelForImageClassification.from_config(config).dtype == torch.bfloat16
    assert ConvNextForImageClassification(config).dtype == torch.float32


@seen_with("transformers")
def test_shards_saved_over_one_file_are_not_loaded(tmp_path):
    model = tiny_convnext()
    for bias, options in ((1.0, {}), (2.0, {"max_shard_size": "5KB"})):
        nn.init.constant_(model.classifier.bias, bias)
        model.save_pretrained(tmp_path, **options)
    assert ConvNextForImageClassification.from_pretrained(tmp_path).classifier.bias.unique().tolist() == [1.0]


@seen_with("transformers")
def test_trainer_decays_batch_norms_and_layer_scales(tmp_path):
    def decayed(model: nn.Module) -> set[str]:
        trainer = Trainer(model, TrainingArguments(tmp_path, report_to=[], use_cpu=True))
        return {name.split(".", 1)[-1] for name in trainer.get_decay_parameter_names(model)}

    resnet = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1]))
    assert "embedder.embedder.normalization.weight" in decayed(resnet)
    assert any(name.endswith("layer_scale_parameter") for name in decayed(tiny_convnext()))


@seen_with("transformers", "torch")
def test_trainer_reports_the_smoothed_loss_of_an_evaluation(tmp_path):
    model = tiny_convnext(num_labels=3)
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.tensor(index % 3)} for index in range(4)]
    options = TrainingArguments(
        tmp_path,
        label_smoothing_factor=0.5,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        per_device_eval_batch_size=4,
    )
    reported = Trainer(model, options, eval_dataset=rows).evaluate()["eval_loss"]
    with torch.no_grad():
        logits = model(torch.stack([row["pixel_values"] for row in rows])).logits
    labels = torch.stack([row["labels"] for row in rows])
    assert reported == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.5).item(), rel=1e-4)
    assert reported != pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


@seen_with("transformers")
def test_frozen_batch_norm_of_detr_has_an_epsilon_of_its_own():
    from transformers.models.detr.modeling_detr import replace_batch_norm

    model = nn.Sequential(nn.BatchNorm2d(4, eps=1e-3)).eval()
    model[0].running_var.fill_(1e-3)
    images = torch.randn(1, 4, 8, 8)
    before = model(images)
    replace_batch_norm(model)
    assert (model(images) / before).mean().item() == pytest.approx((2e-3 / 1.01e-3) ** 0.5, rel=1e-3)  # 1.41
    assert not list(model.parameters())


# --- numbers in PyTorch ---------------------------------------------------------------------------


@seen_with("torch")
def test_topk_and_argmax_name_different_winners_of_a_tie():
    logits = torch.zeros(1, 202)
    logits[0, [67, 134]] = 1
    assert (logits.argmax(-1).item(), logits.topk(1).indices[0, 0], logits.topk(5).indices[0, 0]) == (67, 67, 134)


@seen_with("torch")
def test_autocast_on_a_cpu_has_a_list_of_its_own():
    images = torch.randn(1, 2, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        dtypes = {
            mode: F.pad(images, (1, 1, 1, 1), mode).dtype for mode in ("constant", "reflect", "replicate", "circular")
        }
        norm = F.layer_norm(images, (8,)).dtype
        sampled = F.grid_sample(images, torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16), align_corners=False).dtype
    assert {mode for mode, dtype in dtypes.items() if dtype == torch.float32} == {"reflect", "replicate"}
    assert (norm, sampled) == (torch.bfloat16, torch.float32)  # CUDA has the norm in float32


@seen_with("torch")
def test_grid_sample_at_nan_is_a_number_for_some_paddings():
    image, grid = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[[[float("nan"), 0.0]]]])
    options = {"mode": "bilinear", "align_corners": False}
    assert F.grid_sample(image, grid, padding_mode="zeros", **options).isnan().all()
    assert F.grid_sample(image, grid, padding_mode="border", **options).item() == 6  # -1, as documented, would give 3


@seen_with("torch")
def test_a_layer_built_in_inference_mode_trains_its_bias_only():
    with torch.inference_mode():
        layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [1, 1]


@seen_with("torch")
def test_group_norm_in_channels_last_fails_for_large_means():
    images = torch.randn(2, 64, 28, 28) + 3000
    exact = F.group_norm(images.double(), 8)
    errors = [
        ((F.group_norm(images.contiguous(memory_format=layout), 8) - exact).abs().max() / exact.abs().max()).item()
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    assert errors[0] < 1e-3
    assert errors[1] > 100


@seen_with("torch")
def test_layer_norm_in_bfloat16_loses_the_gradient_of_its_bias():
    rows, upstream = torch.randn(20000, 64).bfloat16(), torch.rand(20000, 64).bfloat16()
    weight, bias = torch.ones(64, requires_grad=True), torch.zeros(64, requires_grad=True)
    F.layer_norm(rows.float(), (64,), weight, bias).backward(upstream.float())
    exact, bias.grad = bias.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        F.layer_norm(rows, (64,), weight, bias).backward(upstream)
    assert exact[0].item() == pytest.approx(10000, rel=0.05)
    assert bias.grad[0].item() < 300  # one thread; the number of threads changes it


@seen_with("torch")
def test_index_add_in_bfloat16_stops_growing():
    values, places = torch.rand(100000).bfloat16(), torch.arange(100000) % 10
    empty = torch.zeros(10, dtype=torch.bfloat16)
    assert empty.index_add(0, places, values)[0] == 256
    assert empty.scatter_add(0, places, values)[0].item() == pytest.approx(5000, rel=0.02)


@seen_with("torch")
def test_attention_without_any_key_is_zero_or_nan():
    layer = nn.MultiheadAttention(4, 1, batch_first=True).eval()
    tokens, masked = torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    bias = layer.out_proj.bias
    with torch.no_grad():
        zero = layer(tokens, tokens, tokens, key_padding_mask=masked, need_weights=False)[0]
        nan = layer(tokens, tokens, tokens, key_padding_mask=masked, need_weights=True)[0]
    assert torch.equal(zero, bias.expand_as(zero))
    assert nan.isnan().all()


# --- quantisation and export ----------------------------------------------------------------------


@seen_with("torch")
def test_quantize_dynamic_passes_subclasses_over():
    class Fast(nn.Linear):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), Fast(4, 4)), {nn.Linear})
    assert type(model[0]) is not nn.Linear
    assert type(model[1]) is Fast


@pytest.fixture
def depthwise_onnx(tmp_path):
    """An ONNX file of one depthwise convolution, of a size that the test chooses."""
    onnx = pytest.importorskip("onnx")

    def write(channels: int, side: int = 7, weights: np.ndarray | None = None) -> str:
        if weights is None:
            weights = np.random.default_rng(0).standard_normal((channels, 1, side, side)).astype(np.float32)
        shape = [1, channels, 28, 28]
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=channels, pads=[side // 2] * 4)
        x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
        graph = onnx.helper.make_graph([node], "g", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
        onnx.save(model, tmp_path / f"{channels}.onnx")
        return str(tmp_path / f"{channels}.onnx")

    return write


@seen_with("onnxruntime")
def test_dynamic_quantisation_ignores_per_channel_for_convolutions(depthwise_onnx, tmp_path):
    onnx, quantization = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime.quantization")
    weights = np.random.default_rng(0).uniform(-1, 1, (16, 1, 7, 7)).astype(np.float32)
    weights[0] *= 50
    quantization.quantize_dynamic(depthwise_onnx(16, weights=weights), tmp_path / "int8.onnx", per_channel=True)
    tensors = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    assert tensors["w_scale"].size == 1
    assert len(np.unique(tensors["w_quantized"][1])) < 10  # of 49 weights


# --- speed ----------------------------------------------------------------------------------------


def ratio(slow, fast) -> float:
    """How many times as long `slow` takes on its thread as `fast`: the best of several tries of each, in turns."""
    best = [float("inf"), float("inf")]
    with torch.no_grad():
        for attempt in range(6):
            for index, call in enumerate((slow, fast)):
                start = time.thread_time()
                call()
                if attempt:
                    best[index] = min(best[index], time.thread_time() - start)
    return best[0] / best[1]


needs_avx = pytest.mark.skipif(
    "AVX" not in torch.backends.cpu.get_cpu_capability(), reason="measured with AVX2 and AVX-512"
)


@needs_avx
@seen_with("torch")
def test_large_depthwise_kernels_are_slow_unless_padded_beforehand():
    images, weights = torch.randn(1, 64, 56, 56), torch.randn(64, 1, 31, 31)
    assert ratio(
        lambda: F.conv2d(images, weights, padding=15, groups=64),
        lambda: F.conv2d(F.pad(images, (15,) * 4), weights, groups=64),
    ) > 5  # fmt: skip


@needs_avx
@seen_with("torch")
def test_float64_depthwise_is_slow_in_channels_last():
    images, weights = torch.randn(1, 64, 28, 28).double(), torch.randn(64, 1, 7, 7).double()
    last = images.contiguous(memory_format=torch.channels_last)
    assert ratio(*(lambda x=x: F.conv2d(x, weights, padding=3, groups=64) for x in (last, images))) > 2.5


@needs_avx
@seen_with("torch")
def test_softmax_over_few_numbers_is_slow():
    many, few = torch.randn(4096, 16), torch.randn(64, 9, 64)
    assert ratio(lambda: few.transpose(1, 2).contiguous().softmax(-1), lambda: few.softmax(1)) > 3
    assert ratio(lambda: many[:, :15].contiguous().softmax(-1), lambda: many.softmax(-1)) > 1.5


@needs_avx
@seen_with("torch")
def test_variances_and_norms_over_channels_are_slow():
    images = torch.randn(1, 64, 56, 56)
    assert ratio(
        lambda: images.var(1),
        lambda: (images - images.mean(1, True)).square().mean(1),
    ) > 4  # fmt: skip
    assert ratio(lambda: images.norm(dim=1), lambda: images.square().sum(1).sqrt()) > 2.5


def runner(path: str, channels: int):
    """A call that runs an ONNX file of `depthwise_onnx` on one thread, the calling one."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    image = np.random.default_rng(0).standard_normal((1, channels, 28, 28)).astype(np.float32)
    return lambda: session.run(None, {"x": image})


@needs_avx
@seen_with("onnxruntime")
def test_onnxruntime_is_slow_where_channels_are_no_multiple_of_four(depthwise_onnx):
    assert ratio(runner(depthwise_onnx(62), 62), runner(depthwise_onnx(64), 64)) > 3


@needs_avx
@seen_with("onnxruntime")
def test_dynamic_quantisation_slows_depthwise_convolutions_down(depthwise_onnx, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = depthwise_onnx(64)
    quantization.quantize_dynamic(path, tmp_path / "int8.onnx", weight_type=quantization.QuantType.QUInt8)
    assert ratio(runner(str(tmp_path / "int8.onnx"), 64), runner(path, 64)) > 5


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_a_row_for_every_test_and_script():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "surprises.md").read_text(encoding="utf-8")
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_") and "the_page" not in name}
    scripts = {path.stem for path in (root / "findings").glob("*.sh")}
    named = re.findall(r'\(\.\./tests/project/test_surprises\.py "(\w+)"\)', page)
    linked = re.findall(r"\(\.\./findings/(\w+)\.sh\)", page)
    assert (sorted(named), sorted(linked)) == (sorted(tests), sorted(scripts))
