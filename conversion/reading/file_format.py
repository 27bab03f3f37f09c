"""Telling what a file really is, by its content, before anything reads it; and the only place that unpickles."""

import argparse
import enum
import json
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from hf_models.errors import InputError, reason

MAX_SAFETENSORS_HEADER = 100_000_000  # the library's own limit
# what checkpoints of the originals hold beside tensors: read as plain containers, never as the classes themselves
ALLOWED_GLOBALS = [(OrderedDict, "yacs.config.CfgNode"), argparse.Namespace]

HARMLESS = ("torch.", "collections.", "_codecs.")  # in every checkpoint; what of them is not, PyTorch names itself


class FileFormat(enum.Enum):
    ZIP = "PyTorch checkpoint"
    PICKLE = "PyTorch checkpoint from before 1.6, or a plain pickle"
    SAFETENSORS = "safetensors"


def file_format(path: Path) -> FileFormat:
    """Recognise the format of a checkpoint, whatever its extension.

    Raises:
        InputError: The file is unreadable, empty, truncated, a web page, a git-LFS pointer, or something else.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if not head:
        raise InputError(f"{path}: empty file (0 bytes). The download failed; fetch it again.")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:9].lower().startswith((b"<!doctype", b"<html")):
        start = text[:14].decode("ascii", errors="replace")
        raise InputError(
            f'{path}: this is a web page ("{start}"), not a checkpoint. Open the link in a browser and download again.'
        )
    if head.startswith(b"version https://git-lfs"):
        length = re.search(rb"\nsize (\d+)", head)
        what = f"a git-LFS pointer to {float(length[1]) / 1e6:,.0f} MB" if length else "a git-LFS pointer"
        raise InputError(f"{path}: {what} that was never fetched. Run git lfs pull or hf download ID.")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
        return FileFormat.ZIP
    header_size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_size <= MAX_SAFETENSORS_HEADER:
        expected = _safetensors_size(path, header_size)
        if size < expected:
            raise InputError(f"{path}: truncated: {size:,} bytes, {expected:,} expected. Delete and download again.")
        return FileFormat.SAFETENSORS
    if head.startswith(b"\x80"):
        return FileFormat.PICKLE
    raise InputError(f"{path}: neither a PyTorch checkpoint nor safetensors. Check what was downloaded.")


def load_pickle(path: Path, kind: FileFormat) -> Any:
    """Load a file that `torch.save` wrote: tensors on the CPU, mapped from disk where the format allows.

    Raises:
        InputError: The file is damaged, or wants to call anything but the constructors of tensors and containers.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED_GLOBALS):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", mmap=kind is FileFormat.ZIP, weights_only=True)
    except Exception as error:  # a malformed pickle can raise anything
        why = reason(error)
        # PyTorch's advice comes first, and last
        why = re.split(r" Check the documentation| \(Could this", why.partition("WeightsUnpickler error: ")[2] or why)[
            0
        ]
        if culprits := _forbidden_globals(path, kind, why):
            raise InputError(
                f"{path}: refused, it would call {', '.join(culprits)}. Only tensors and plain containers are read; "
                "get the file from its authors or ask for safetensors."
            ) from error
        raise InputError(f"{path}: damaged, or not written by torch.save ({why[:120]}).") from error


def _check_zip(path: Path, size: int) -> None:
    """Refuse a zip file that is cut off, a program, or packed: kilobytes could unpack to more than the memory."""
    try:
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path}: truncated: {size:,} bytes without an end. Delete it and download again.")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except InputError:
        raise
    except Exception as error:  # a malformed directory can raise anything
        raise InputError(f"{path}: damaged ({reason(error)}). Delete it and download again.") from error
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise InputError(f"{path}: a TorchScript program, not weights. Save its state_dict() instead.")
    if packed := [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]:
        raise InputError(f"{path}: {packed[0]} is compressed, so not written by torch.save. Save it with torch.save.")


def _forbidden_globals(path: Path, kind: FileFormat, why: str) -> list[str]:
    """What a pickle would import, found without running it."""
    if kind is FileFormat.ZIP:
        try:
            with torch.serialization.safe_globals(ALLOWED_GLOBALS):
                return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))[:5]
        except Exception:  # as malformed as it was for the loader
            return []
    if named := re.search(r"GLOBAL (\S+)", why):
        return [named[1]]
    culprits, strings, memo, last = [], [], [], None
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST"):
                    culprits.append(argument.replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":  # takes module and name from the stack
                    culprits.append(".".join(strings[-2:]))
                elif opcode.name in ("BINGET", "LONG_BINGET"):
                    strings.append(str(memo[argument]) if argument < len(memo) else "?")
                elif opcode.name == "MEMOIZE":
                    memo.append(last)
                elif isinstance(argument, str):
                    strings.append(argument)
                last = argument
    except Exception:  # not a pickle after all
        pass
    return sorted(name for name in set(culprits) if not name.startswith(HARMLESS))[:5]


def _safetensors_size(path: Path, header_size: int) -> int:
    """Bytes that the header promises."""
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(header_size)
    if len(header) < header_size:
        return 8 + header_size
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        return 8 + header_size + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0  # a damaged header: the library says what is wrong with it
