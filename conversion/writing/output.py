"""The folder that is written: it appears whole or not at all."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from hf_models.errors import InputError, reason
from hf_models.inference.files import check_path

try:
    import fcntl
except ImportError:  # Windows: what killed runs left there stays until someone deletes it
    fcntl = None


def check_output(output: Path, source: str | Path, overwrite: bool) -> None:
    """Refuse an output that must not be touched.

    Args:
        output: The folder to create.
        source: What is converted.
        overwrite: Whether a model repository may be replaced.

    Raises:
        InputError: There is something else at `output`, or `source` is in it.
    """
    check_path(output)
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"{output}: is a file. Choose a folder that does not exist.")
    try:
        empty = not any(output.iterdir())
    except OSError as error:
        raise InputError(f"{output}/: cannot be read ({error.strerror}). Choose another folder.") from error
    if empty:
        return
    if not overwrite:
        raise InputError(f"{output}/: not empty. Pass --overwrite.")
    if not (output / "config.json").is_file():
        raise InputError(f"{output}/: not a model repository (no config.json), so --overwrite does not replace it.")
    if Path(source).resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output}/: holds the source, which --overwrite would delete. Choose another folder.")


def tidy(output: Path) -> None:
    """Delete what killed runs left beside `output`, and put back what one of them was replacing.

    What a running conversion writes is locked, and stays.
    """
    output = output.resolve()
    near = _nearest_folder(output)
    name = re.compile(re.escape(f".{output.name}.") + r"[0-9a-f]{8}\.(partial|old)")
    with suppress(OSError):  # another run tidies too, or the folder cannot be read
        leftovers = [path for path in near.iterdir() if name.fullmatch(path.name)]
        for path in leftovers:
            if path.suffix == ".partial" and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
        for path in leftovers:
            if path.suffix == ".old" and fcntl and not path.with_suffix(".partial").exists():
                if output.exists():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.rename(output)


@contextmanager
def appearing(output: Path, size: int, overwrite: bool) -> Iterator[Path]:
    """A temporary folder near `output` that takes its place if the block succeeds, and vanishes if it does not.

    Of two that write the same output at once, without `overwrite` the first to end has it.

    Args:
        output: The folder to create or to replace.
        size: Bytes that will be written.
        overwrite: Whether to replace a folder that is not empty.

    Raises:
        InputError: The disk is full, the folder cannot be written, or another run was faster.
    """
    output = output.resolve()
    # the nearest folder that exists: on the same disk, and nothing is left behind if the block fails
    near = _nearest_folder(output)
    free = shutil.disk_usage(near).free
    if free < size:
        raise InputError(f"{output}: needs {size / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free. Choose another disk.")
    mark = uuid.uuid4().hex[:8]
    temporary, aside = near / f".{output.name}.{mark}.partial", near / f".{output.name}.{mark}.old"
    lock = None
    try:
        temporary.mkdir()
        lock = _lock(temporary)
        yield temporary
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists() and any(output.iterdir()):
            if not overwrite:
                raise InputError(f"{output}/: appeared in the meantime. Pass --overwrite to replace it.")
            output.rename(aside)
        elif output.exists():
            output.rmdir()
        try:
            temporary.rename(output)
        except BaseException:
            if aside.exists():
                aside.rename(output)
            raise
    except (OSError, SafetensorError) as error:
        raise InputError(f"{output}: cannot be written ({reason(error)}).") from error
    finally:
        for leftover in (temporary, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _nearest_folder(output: Path) -> Path:
    return next(parent for parent in output.parents if parent.is_dir())


def _lock(folder: Path) -> int | None:
    """Lock a folder until the process ends or closes what is returned; `None` if another has it, or nothing can."""
    if fcntl is None:
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return None
