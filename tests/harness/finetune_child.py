"""Runs `finetune` of an example in a process of its own: a fork of the tests' process, which has threads, may hang.

python finetune_child.py EXAMPLE OPTIONS.json [--kill-at STEP]
"""

import argparse
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import torch

parser = argparse.ArgumentParser()
parser.add_argument("example")
parser.add_argument("options", type=Path)
parser.add_argument("--kill-at", type=int, help="the step before which the process kills itself")
arguments = parser.parse_args()
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
example, base = importlib.import_module(arguments.example), importlib.import_module("fine_tuner").FineTuner


def training_step(self, *args, original=base.training_step):
    if self.state.global_step == arguments.kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)


base.training_step = training_step
options = json.loads(arguments.options.read_text())
example.finetune(**options | {"output": Path(options["output"])})
