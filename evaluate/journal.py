"""What has been counted so far, on disk, so that an evaluation goes on where it was killed."""

import glob
import json
import os
from pathlib import Path

from hf_models.errors import InputError

MAX_SECONDS = 1e9  # what a batch can take


class Journal:
    """One file for each process beside the results: a line that says of what, then a line for each batch.

    Args:
        results: CSV file that the rows will go to; `None` keeps no journal.
        key: All that a count depends on; a journal of something else is refused.
        resume: Whether to go on from the journals that are there.

    Attributes:
        done: index of a sample -> what was counted for it, from the journals.
        seconds: What all processes together took for that.

    Raises:
        InputError: There is a journal and `resume` is not set, or it is damaged or of another evaluation.
    """

    def __init__(self, results: Path | None, key: dict[str, str], resume: bool):
        self.results, self.key = results, key
        self.done: dict[int, list[int]] = {}
        self.seconds = 0.0
        self.file = None
        for path in self._paths():
            if not resume:
                raise InputError(f"{path}: an evaluation was interrupted. Pass --resume to go on, or delete the file.")
            self._read(path)

    def _paths(self) -> list[Path]:
        if self.results is None:
            return []
        return sorted(self.results.parent.glob(f"{glob.escape(self.results.name)}.progress-*.jsonl"))

    def _read(self, path: Path) -> None:
        try:
            found, *batches = [json.loads(line) for line in _whole_lines(path)] or [self.key]
            other = ", ".join(name for name in self.key if found.get(name) != self.key[name])
            for batch in batches:
                seconds = batch["seconds"]
                values = [number for row in batch["counts"] for number in row]
                if not (0 <= seconds < MAX_SECONDS and all(type(n) is int and 0 <= n < 2**53 for n in values)):
                    raise ValueError("no counts")
                self.done.update({index: counts for index, *counts in batch["counts"]})
                self.seconds += seconds
            if len({len(counts) for counts in self.done.values()}) > 1:
                raise ValueError("counts of different lengths")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError):
            raise InputError(f"{path}: damaged. Delete it, and start without --resume.") from None
        if other:
            raise InputError(
                f"{path}: belongs to another evaluation ({other} differs). Finish that one, or delete the file."
            )

    def start(self, process: int) -> None:
        """Open this process's file, without what a killed process left of a line."""
        if self.results is None:
            return
        path = self.results.with_name(f"{self.results.name}.progress-{process}.jsonl")
        try:
            lines = _whole_lines(path) if path.exists() else []
            self.file = path.open("r+b" if lines else "wb")
            self.file.truncate(sum(len(line) + 1 for line in lines))
            self.file.seek(0, os.SEEK_END)
            if not lines:
                self._append(self.key)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}). Name another --results.") from None

    def write(self, counts: list[list[int]], seconds: float) -> None:
        """Keep a batch.

        Args:
            counts: For each sample its index and what was counted.
            seconds: What that took.
        """
        if self.file:
            self._append({"seconds": round(seconds, 6), "counts": counts})

    def _append(self, content: dict) -> None:
        self.file.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.file:
            self.file.close()

    def remove(self) -> None:
        """Delete the files of all processes."""
        self.close()
        for path in self._paths():
            path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end; a killed process leaves its last one incomplete."""
    return path.read_bytes().split(b"\n")[:-1]
