"""`hf-models memory`: what is counted from shapes is what PyTorch keeps, to the byte."""

import json
import resource
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    BertConfig,
    YolosConfig,
)
from typer.testing import CliRunner

from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.memory import training_memory
from hf_models.memory.dry_run import empty_model, kept_by_forward
from hf_models.memory.estimate import OPTIMIZERS, gathered_bytes, optimizer_bytes, shard
from hf_models.memory.gpu_operators import GpuOperators
from hf_models.memory.saved_tensors import SavedTensors, activation_bytes, storage_number
from hf_models.zoo import find_checkpoint

from ..harness.detection_tester import make_detector
from ..harness.hub_tester import SEGMENTERS, TINY, tiny_folder

SIDE = 32  # pixels
STAGES = [f"stage{stage}" for stage in range(1, 5)]
WITH_LARGE_POOLER = {
    "pooler_type": "attention",
    "pooler_hidden_size": 32,
    "pooler_output_size": 16,
    "pooler_num_heads": 2,
}


def config_of(name):
    """A small model, with stochastic depth."""
    if name in SEGMENTERS:
        family, head = SEGMENTERS[name]
        backbone = AutoConfig.for_model(family, **TINY[family], out_features=STAGES, drop_path_rate=0.1)
        return AutoConfig.for_model(name, backbone_config=backbone, num_labels=5, **head)
    family, _, pooler = name.partition("+")
    kwargs = WITH_LARGE_POOLER if pooler else {}
    return AutoConfig.for_model(family, **TINY[family], num_labels=10, drop_path_rate=0.1, **kwargs)


def model_and_batch(name):
    config = config_of(name)
    auto_class = AutoModelForSemanticSegmentation if name in SEGMENTERS else AutoModelForImageClassification
    labels = torch.randint(0, 5, (2, SIDE, SIDE) if name in SEGMENTERS else (2,))
    return auto_class.from_config(config).train(), {"pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": labels}


def kept(model, batch):
    """What PyTorch keeps of real tensors."""
    with SavedTensors(map(storage_number, (*model.parameters(), *model.buffers()))) as saved:
        model(**batch)
    return saved.bytes


@pytest.mark.parametrize(
    "name", ["internimage+attention", "flash_internimage", "smt", "replknet", "vit_dcnv4", "upernet"]
)
def test_activations_are_those_that_pytorch_keeps(name):
    model, batch = model_and_batch(name)
    assert kept_by_forward(empty_model(model.config), 2, SIDE, None, False)[0] == kept(model, batch)


@pytest.mark.parametrize("name", ["internimage", "smt"])
def test_layers_that_are_computed_again_keep_their_inputs(name):
    model, batch = model_and_batch(name)
    _, whole = activation_bytes(model, batch, [*model.parameters(), *model.buffers()])
    after_forward, most = activation_bytes(model, batch, [*model.parameters(), *model.buffers()], checkpointing=True)
    assert kept_by_forward(empty_model(model.config), 2, SIDE, None, True)[0] == most
    assert after_forward < most < whole
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert kept(model, batch) == after_forward


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_those_of_pytorch(name):
    model, batch = model_and_batch("smt")
    optimizer = OPTIMIZERS[name](model.parameters())
    model(**batch).loss.backward()
    optimizer.step()
    held = [tensor for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor)]
    empty = empty_model(model.config)
    assert optimizer_bytes(OPTIMIZERS[name], list(empty.parameters())) == sum(tensor.nbytes for tensor in held)


def test_autocast_is_that_of_pytorch():
    """A CPU's has the same types as a GPU's where there is no LayerNorm."""
    model, batch = model_and_batch("replknet")
    del batch["labels"]
    empty = empty_model(model.config)
    operators = GpuOperators(empty, torch.bfloat16)
    with operators:
        images = batch["pixel_values"].to("meta")
        weights = [*empty.parameters(), *empty.buffers(), *operators.copies.values()]
        _, counted = activation_bytes(empty, {"pixel_values": images}, weights)
    with torch.autocast("cpu", torch.bfloat16):
        of_pytorch = kept(model, batch)  # the copies of weights too, but not those of biases
    assert counted + sum(copy.nbytes for copy in operators.copies.values() if copy.ndim > 1) == of_pytorch


def test_autocast_normalises_in_float32():
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 4), nn.Softmax(dim=-1))
        hidden_states, types = torch.empty(2, 4), []
        with GpuOperators(layers, torch.bfloat16):
            for layer in layers:
                hidden_states = layer(hidden_states)
                types.append(hidden_states.dtype)
    bf16, fp32 = torch.bfloat16, torch.float32
    assert types == [bf16, fp32, fp32, bf16, fp32]


def test_gpus_share_what_they_can():
    one, ddp, fsdp = (
        training_memory("default", gpus=gpus, fsdp=fsdp) for gpus, fsdp in ((1, False), (8, False), (8, True))
    )
    assert one.weights > one.gradients == 4 * one.parameters, "buffers are weights too"
    assert ddp.exchanged == ddp.gradients == one.gradients and not one.exchanged
    assert one.gradients / 8 <= fsdp.gradients < one.gradients / 7
    assert one.optimizer > 7 * fsdp.optimizer
    assert one.activations == ddp.activations == fsdp.activations


def test_the_largest_model_takes_no_memory():
    name = "internimage_g_22kto1k_512"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted = training_memory(name, gpus=8, fsdp=True, gradient_checkpointing=True, dtype="bfloat16")
    assert counted.parameters == find_checkpoint(name).parameters
    assert counted.total > 2**30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"


@pytest.mark.slow
def test_the_table_of_the_documentation():
    names = {"InternImage-H": "internimage_h_22kto1k_640", "InternImage-G": "internimage_g_22kto1k_512"}
    page = Path(__file__).parents[2] / "docs" / "distributed.md"
    rows = [
        line.strip("| ").split("|") for line in page.read_text("utf-8").splitlines() if line.startswith("| Intern")
    ]
    for model, pixels, gpus, dtype, checkpointing, *parts in [[cell.strip() for cell in row] for row in rows]:
        counted = training_memory(
            names[model],
            gpus=int(gpus.split(",")[0]),
            image_size=int(pixels),
            batch_size=8,
            dtype=dtype,
            gradient_checkpointing=checkpointing == "yes",
            fsdp=gpus.endswith("FSDP2"),
        )
        sizes = (counted.weights, counted.gradients, counted.optimizer, counted.activations, counted.copies)
        sizes += (counted.exchanged, counted.total)
        assert parts == [f"{size / 2**30:.2f}" if size else "" for size in sizes]
    assert len(rows) == 8


def test_units_are_gathered_one_after_the_other():
    model = empty_model(config_of("replknet"))
    units = [model.replknet.embeddings, *(layer for stage in model.replknet.encoder.stages for layer in stage.layers)]
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units]
    rest = model.num_parameters() - sum(sizes)
    pairs = [one + other for one, other in pairwise(sizes)]
    assert gathered_bytes(model, torch.bfloat16) == 2 * (max(pairs) + 2 * max(sizes) + 2 * rest)


@pytest.mark.parametrize("name", ["detector", "mask2former"])
def test_heads_that_need_numbers_are_left_out(name, tmp_path):
    if name == "detector":
        make_detector(tmp_path)
    else:
        tiny_folder(tmp_path, name)
    counted = training_memory(tmp_path, image_size=SIDE)
    assert counted.activations and "backbone" in counted.notes[0]


def test_a_backbone_alone():
    name = "openlane_v2_internimage_s"
    assert training_memory(name, image_size=SIDE).parameters == find_checkpoint(name).parameters


def test_the_reference_is_named(monkeypatch):
    kept_by_kernel = training_memory("default", image_size=SIDE).activations
    monkeypatch.setattr("hf_models.deformable_aggregate.get_function", lambda *_: None)
    monkeypatch.setattr("hf_models.memory.estimate.get_function", lambda *_: None)
    counted = training_memory("default", image_size=SIDE)
    assert counted.activations > kept_by_kernel and "hf-models kernels build" in counted.notes[0]


def test_the_command():
    run, arguments = CliRunner().invoke, ["memory", "default", "--gpus", "2", "--batch-size", "4"]
    counted = json.loads(run(app, [*arguments, "--json"]).stdout)
    assert counted["total"] == sum(
        counted[part] for part in ("weights", "gradients", "optimizer", "activations", "exchanged")
    )
    *parts, total = run(app, arguments).stdout.splitlines()
    assert [part.split("  ")[-1] for part in parts] == [
        "weights and buffers",
        "gradients",
        "optimizer",
        "activations",
        "held to be exchanged",
    ]
    assert total.endswith("2 GPUs, DDP, 4 x 64 x 64 pixels, float32, adamw")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["internimage-t"], "internimage-t: no such folder"),
        (["default", "--dtype", "int8"], "int8: no such dtype. Choose from float32, bfloat16."),
        (["default", "--optimizer", "lion"], "lion: no such optimizer. Choose from adamw, sgd."),
    ],
)
def test_bad_arguments(arguments, message):
    result = CliRunner().invoke(app, ["memory", *arguments])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_images_that_the_model_does_not_take(tmp_path):
    config_of("internimage+attention").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"1 x 100 x 100 pixels: .* multiples of 32.* Pass another --batch-size"):
        training_memory(tmp_path, image_size=100)


def test_models_that_cannot_be_counted(tmp_path):
    BertConfig(num_hidden_layers=1, hidden_size=12).save_pretrained(tmp_path / "text")
    with pytest.raises(InputError, match="bert: no classifier, segmenter, detector or backbone of images"):
        training_memory(tmp_path / "text")
    small = {"num_hidden_layers": 1, "hidden_size": 12, "intermediate_size": 12, "image_size": [32, 32]}
    config = YolosConfig(**small, architectures=["YolosForObjectDetection"])
    config.save_pretrained(tmp_path / "detector")
    with pytest.raises(InputError, match="YolosForObjectDetection: has no backbone"):
        training_memory(tmp_path / "detector")
    with pytest.raises(InputError, match=r"--fsdp: FSDP2 takes no scalar parameters.* Leave it out, for DDP"):
        shard(torch.nn.Parameter(torch.ones(())), 2)


def test_layers_that_cannot_be_computed_again(tmp_path):
    tiny_folder(tmp_path, "convnext_dcnv4")
    with pytest.raises(InputError, match="none of its layers can be computed again"):
        training_memory(tmp_path, gradient_checkpointing=True)
