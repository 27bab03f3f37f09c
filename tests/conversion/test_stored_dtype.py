"""What files store does not leak into use: folders of float16 weights load and train as float32 models."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

import hf_models
from hf_models.conversion.publish import push_model

from ..harness.conversion_tester import converted

PIXELS = 64


def losses_of(model, steps=4, autocast=False):
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-4)
    images, labels = torch.randn(4, 3, PIXELS, PIXELS), torch.arange(4) % model.config.num_labels
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(pixel_values=images, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    return losses


@pytest.fixture(scope="module", params=["default", "converted"])
def folder(request, tmp_path_factory):
    if request.param == "default":
        return hf_models.default_checkpoint()
    return converted(tmp_path_factory.mktemp("half"), dtype="float16")[1]


@pytest.mark.parametrize("arguments", [{}, {"dtype": "auto"}], ids=["plain", "auto"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16 autocast"])
def test_a_float16_folder_trains(folder, arguments, autocast):
    stored = load_file(folder / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    model = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True, **arguments
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    losses = losses_of(model, autocast=autocast)
    assert losses[-1] < losses[0], losses


def test_half_precision_is_there_for_who_asks(folder):
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float16)
    assert model.dtype == model.config.dtype == torch.float16


def test_the_trainer_learns(tmp_path):
    model = AutoModelForImageClassification.from_pretrained(
        hf_models.default_checkpoint(), num_labels=2, ignore_mismatched_sizes=True
    )
    images = torch.randn(8, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))
    data = [{"pixel_values": image, "labels": index % 2} for index, image in enumerate(images)]
    options = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    arguments = TrainingArguments(
        tmp_path, max_steps=4, per_device_train_batch_size=8, learning_rate=5e-4, bf16=True, **options
    )
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_a_float16_folder_without_a_report_can_be_published(tmp_path):
    folder = shutil.copytree(hf_models.default_checkpoint(), tmp_path / "folder")
    assert push_model(folder, "acme/default", dry_run=True, progress=False)["files"]["model.safetensors"] < 6e6
