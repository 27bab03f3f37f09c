"""Runs of the fine-tuning examples in processes of their own, and what they logged."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.trainer_callback import TrainerState

from hf_models.image_processing_imagenet import ImageNetImageProcessor

EXAMPLES = Path(__file__).parents[2] / "examples"
CHILD = Path(__file__).with_name("finetune_child.py")


@contextmanager
def one_thread() -> Iterator[None]:
    """This process computes in one thread, as those that are compared with it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tiny_classifier(folder: Path) -> str:
    """Write a classifier of two stages, without anything random in it, and its image processor."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [16, 32], "depths": [1, 1], "groups": [1, 2], "mlp_ratio": 1.0, "drop_path_rate": 0.0}
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model("flash_internimage", **sizes))
    model.save_pretrained(folder)
    ImageNetImageProcessor().save_pretrained(folder)
    return str(folder)


def start(example: str, folder: Path, options: dict, kill_at: int | None = None, **environment) -> subprocess.Popen:
    """A process that trains; see `finetune_child.py`."""
    file = folder / "options.json"
    file.write_text(json.dumps(options))
    command = [sys.executable, CHILD, example, file]
    command += ["--kill-at", str(kill_at)] if kill_at else []
    return subprocess.Popen(command, env=os.environ | environment)


def run_two(example: str, folder: Path, options: dict) -> list[int]:
    """Two processes that train together; what they exit with."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    cluster = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [start(example, folder, options, **cluster, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    return [child.wait() for child in children]


def history(output: Path, *names: str) -> list[dict]:
    """What a run logged of each epoch: the loss, and metrics of these names."""
    (last,) = sorted(Path(f"{output}-run").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[-1:]
    log = TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    return [{key: value for key, value in entry.items() if key in ("loss", *names)} for entry in log]


def to_rounding(numbers: dict) -> dict:
    """What another run of the same steps may log: matrix products round by where their operands lie in memory."""
    return pytest.approx(numbers, rel=1e-4)


def assert_same_weights(one: torch.nn.Module, two: torch.nn.Module):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-3), name
