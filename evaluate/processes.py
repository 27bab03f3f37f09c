"""One process, or the several that `torchrun` or `accelerate launch` started."""

import os
from typing import Any

import torch

from hf_models.errors import InputError


class Processes:
    """Which of the processes this is, where it computes, and what they do together.

    Args:
        device: "cpu" or "cuda"; with several processes on GPUs each takes its own.

    Raises:
        InputError: There are several processes, and accelerate is not installed.
    """

    def __init__(self, device: str):
        self.state, self.index, self.count, self.device = None, 0, 1, torch.device(device)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            try:
                from accelerate import PartialState
            except ImportError:
                raise InputError(
                    "accelerate: not installed, needed by several processes. Run `pip install accelerate`."
                ) from None
            self.state = PartialState(cpu=device == "cpu")
            self.index, self.count = self.state.process_index, self.state.num_processes
            self.device = self.state.device

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.state:
            self.state.wait_for_everyone()

    def gather(self, value: Any) -> list[Any]:
        """What each process passes, in their order, in the first process; an empty list in the others."""
        if self.state is None:
            return [value]
        values = [None] * self.count if self.is_main else None
        torch.distributed.gather_object(value, values)
        return values or []

    def close(self) -> None:
        if self.state:
            self.state.destroy_process_group()
