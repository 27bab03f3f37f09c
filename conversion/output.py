"""The folder that is written: it appears whole or not at all."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hf_models.errors import InputError


def check_output(output: Path, source: str | Path, overwrite: bool) -> None:
    """Refuse an output that must not be touched.

    Args:
        output: The folder to create.
        source: What is converted.
        overwrite: Whether a model repository may be replaced.

    Raises:
        InputError: There is something else at `output`, or `source` is in it.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"{output}: is a file. Choose a folder that does not exist.")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{output}/: not empty. Pass --overwrite.")
    if not (output / "config.json").is_file():
        raise InputError(f"{output}/: not a model repository (no config.json), so --overwrite does not replace it.")
    if Path(source).resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output}/: holds the source, which --overwrite would delete. Choose another folder.")


@contextmanager
def appearing(output: Path, size: int) -> Iterator[Path]:
    """A temporary folder near `output` that takes its place if the block succeeds, and vanishes if it does not.

    Args:
        output: The folder to create or to replace.
        size: Bytes that will be written.

    Raises:
        InputError: The disk is full, or the folder cannot be written.
    """
    output = output.resolve()
    # the nearest folder that exists: on the same disk, and nothing is left behind if the block fails
    near = next(parent for parent in output.parents if parent.is_dir())
    free = shutil.disk_usage(near).free
    if free < size:
        raise InputError(f"{output}: needs {size / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free. Choose another disk.")
    mark = uuid.uuid4().hex[:8]
    temporary, aside = near / f".{output.name}.{mark}.partial", near / f".{output.name}.{mark}.old"
    try:
        temporary.mkdir()
        yield temporary
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            output.rename(aside)
        try:
            temporary.rename(output)
        except BaseException:
            if aside.exists():
                aside.rename(output)
            raise
    except (OSError, SafetensorError) as error:
        raise InputError(f"{output}: cannot be written ({' '.join(str(error).split())}).") from error
    finally:
        for leftover in (temporary, aside):
            shutil.rmtree(leftover, ignore_errors=True)
