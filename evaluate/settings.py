"""How an evaluation runs, whatever it measures."""

import os
from dataclasses import dataclass
from pathlib import Path

from hf_models.errors import InputError

from .machine import DTYPES, check_choice, choose_device
from .results import ACCURACY, read_results


@dataclass(frozen=True)
class Settings:
    """How to evaluate; none of it changes what comes out but `dtype`, by rounding.

    Args:
        batch_size: Images in a batch.
        dtype: Key of `DTYPES`.
        device: "cpu" or "cuda"; by default the GPU where there is one.
        num_workers: Threads that read and prepare images; with 0 the thread that runs the model does it.
        results: CSV file to merge the rows into, which also gets the journal of a killed run.
        resume: Go on from that journal.
    """

    batch_size: int = 32
    dtype: str = "float32"
    device: str | None = None
    num_workers: int = 2
    results: Path | None = None
    resume: bool = False

    def check(self) -> None:
        """Raise an [`InputError`] for what cannot be done."""
        check_choice("dtype", [self.dtype], DTYPES)
        choose_device(self.device)
        if self.results is None:
            if self.resume:
                raise InputError("--resume: needs the --results beside which the journal is.")
            return
        read_results(self.results, ACCURACY)
        folder = self.results.resolve().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise InputError(f"{self.results}: cannot be written (no such folder). Name another file.")
