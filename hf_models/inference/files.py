"""Files that users bring, and files that are written: whole or not at all."""

import json
import math
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, reason

MAX_JSON = 50_000_000  # bytes; the largest index of a published model has 300 thousand


def check_path(path: str | Path) -> None:
    """Refuse a path that the system cannot even look up, such as one that is too long."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be looked up ({why}). Check the path.") from error


def read_json(path: Path, max_bytes: int = MAX_JSON) -> dict:
    """A JSON object from a file: one that means the same to every reader, with numbers that can be sizes.

    Args:
        max_bytes: How large the file may be.

    Raises:
        InputError: It is missing, damaged, too large or no object; a key is there twice; a number is not finite.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise ValueError(f"larger than {max_bytes // 10**6} MB")
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({reason(error)}). Fetch or write it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a JSON {type(content).__name__}, an object is wanted.")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is there twice")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what was written takes the place of `path` if the block succeeds.

    At every moment `path` is the old file or the whole new one.

    Raises:
        InputError: It cannot be written.
    """
    beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        why = error.strerror or reason(error)
        raise InputError(f"{path}: cannot be written ({why}). Name another file.") from error
    finally:
        beside.unlink(missing_ok=True)
