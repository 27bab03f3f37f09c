"""Models divided among processes: what accelerate asks of them, and that they learn what one process learns."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_models.auto import BACKBONES, FAMILIES
from hf_models.detection.registration import DETECTORS
from hf_models.memory.estimate import shard
from hf_models.segmentation.registration import SEGMENTERS as HEADS

from ..harness.hub_tester import TINY
from ..harness.sharded_training import DETECTORS as SMALL_DETECTORS
from ..harness.sharded_training import small_model

pytest.importorskip("accelerate")
SCRIPT = Path(__file__).parents[1] / "harness" / "sharded_training.py"
NAMES = [*TINY, "aligned_upernet", "segformer_head", *SMALL_DETECTORS]
NAMES += ["internimage+checkpointing", "flash_internimage+checkpointing"]


CLASSES = [(config, cls) for config, *classes in [*FAMILIES, *BACKBONES, *HEADS, *DETECTORS] for cls in classes]


@pytest.mark.parametrize(("config", "model_class"), CLASSES, ids=[cls.__name__ for _, cls in CLASSES])
def test_what_accelerate_asks_of_a_model(config, model_class):
    with torch.device("meta"):
        model = model_class(config())
    units = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert {type(unit).__name__ for unit in units} == model._no_split_modules, "accelerate refuses names of no module"
    inside = {parameter for unit in units for parameter in unit.parameters()}
    assert sum(parameter.numel() for parameter in inside) > 0.85 * model.num_parameters(), "the rest is never divided"
    embeddings = model.get_input_embeddings()
    assert embeddings is None or isinstance(embeddings, nn.Module)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with the models that two processes have trained, and what is known of each."""
    folder = tmp_path_factory.mktemp("trained")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, folder, *NAMES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_learn_what_one_learns(trained, name):
    folder, report = trained
    found = report[name]
    model = small_model(name.partition("+")[0])
    assert found["mean_loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert found["apart"] < 1e-5 * found["moved"]
    assert found["held"] == sum(shard(parameter, 2).nbytes for parameter in model.parameters())
    assert found["units"] > 4
    _, info = type(model).from_pretrained(folder / name, output_loading_info=True)
    assert not any(info.values())
