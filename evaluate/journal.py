"""What has been measured so far, on disk, so that an evaluation goes on where it was killed."""

import base64
import glob
import json
import os
import zlib
from pathlib import Path
from typing import Any

from hf_models.errors import InputError

MAX_SECONDS = 1e9  # what a batch can take


class Journal:
    """One file for each process beside the results: a line that says of what, then a line for each batch.

    A line is the JSON list `[checksum, content]`. The first batch that is incomplete, or does not fit its checksum,
    ends the journal: the process was killed while it wrote, or the machine lost its power. It is measured again.

    Args:
        results: CSV file that the rows will go to; `None` keeps no journal.
        key: All that a record depends on; a journal of something else is refused.
        resume: Whether to go on from the journals that are there.

    Attributes:
        done: Index of an image -> its record, from the journals.
        seconds: What all processes together took for that.

    Raises:
        InputError: There is a journal and `resume` is not set, or it is damaged or of another evaluation.
    """

    def __init__(self, results: Path | None, key: dict[str, str], resume: bool):
        self.results, self.key = results, key
        self.done: dict[int, bytes] = {}
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
        text = b""
        try:
            text = path.read_bytes()
            lines = _checked_lines(text)
            if not lines and b"\n" in text:
                raise ValueError("the first line is not what was written")
            found, *batches = [json.loads(_content(line)) for line in lines] or [self.key]
            other = ", ".join(name for name in self.key if found.get(name) != self.key[name])
            for batch in batches:
                if not 0 <= batch["seconds"] < MAX_SECONDS:
                    raise ValueError("no time")
                self.seconds += batch["seconds"]
                for index, record in batch["records"]:
                    if type(index) is not int or index < 0:
                        raise ValueError("no index")
                    self.done[index] = base64.b64decode(record, validate=True)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError):
            why = "written by an earlier version" if text.startswith(b"{") else "damaged"
            raise InputError(f"{path}: {why}. Delete it, and start without --resume.") from None
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
            lines = _checked_lines(path.read_bytes()) if path.exists() else []
            self.file = path.open("r+b" if lines else "wb")
            self.file.truncate(sum(len(line) + 1 for line in lines))
            self.file.seek(0, os.SEEK_END)
            if not lines:
                self._append(self.key)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}). Name another --results.") from None

    def write(self, records: dict[int, bytes], seconds: float) -> None:
        """Keep a batch.

        Args:
            records: Index of an image -> its record.
            seconds: What the batch took.
        """
        if self.file:
            encoded = [[index, base64.b64encode(record).decode()] for index, record in records.items()]
            self._append({"seconds": round(seconds, 6), "records": encoded})

    def _append(self, content: Any) -> None:
        self.file.write(journal_line(content))
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


def journal_line(content: Any) -> bytes:
    """`content` as a line of a journal."""
    return checked_line(json.dumps(content, separators=(",", ":")).encode())


def checked_line(text: bytes) -> bytes:
    """JSON behind its checksum."""
    return b'["%08x",%b]\n' % (zlib.crc32(text), text)


def _content(line: bytes) -> bytes:
    """What [`checked_line`] was given, from a line without its end."""
    return line[len('["01234567",') : -len("]")]


def _checked_lines(text: bytes) -> list[bytes]:
    """The lines, without their ends, up to the first that is incomplete or does not fit its checksum."""
    lines = []
    for line in text.split(b"\n")[:-1]:
        if not line.startswith(b'["%08x",' % zlib.crc32(_content(line))):
            break
        lines.append(line)
    return lines
