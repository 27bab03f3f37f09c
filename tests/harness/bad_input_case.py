"""What a bad input is in the tests: how to make it, the command that meets it, and what must be said."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .conversion_tester import original_state, read_manifest, upstream_config

NAME = "internimage_tiny_l"
BOMB = "bomb went off"
CONVERT = ("convert", "x.pth", "out", "--original-config", "arguments.json")


class Bomb:
    """Unpickled without care, it makes a folder where the test looks."""

    def __reduce__(self):
        return os.mkdir, (BOMB,)


@dataclass(frozen=True)
class Case:
    """One bad input.

    Args:
        build: Makes the files in the working folder, beside those that every case finds there: `arguments.json` for
            the conversion, `model/`, a converted classifier, `segmenter/` and `detector/`.
        command: Arguments of `hf-models`.
        path: What the line must name.
        message: What the line must say.
    """

    build: Callable[[], None]
    command: tuple[str, ...]
    path: str
    message: str


def state(**changes) -> dict[str, torch.Tensor]:
    return original_state(NAME) | changes


def saving(content, path: str = "x.pth", **kwargs) -> Callable[[], None]:
    """A builder that saves a checkpoint; the content may be given as a function, to be made only then."""
    return lambda: torch.save(content() if callable(content) else content, path, **kwargs)


def writing(content: bytes | str, path: str = "x.pth") -> Callable[[], None]:
    def build() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return build


def both(*builders: Callable[[], None]) -> Callable[[], None]:
    def build() -> None:
        for builder in builders:
            builder()

    return build


def changing(path: str, **changes) -> Callable[[], None]:
    """A builder that changes a JSON file; `...` takes a field away."""

    def build() -> None:
        content = json.loads(Path(path).read_text()) | changes
        Path(path).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return build


def upstream(weight_map: dict | None, config: dict | None = None) -> Callable[[], None]:
    """A folder in upstream's format, with an index and one shard that holds `a`."""

    def build() -> None:
        Path("upstream").mkdir()
        Path("upstream/config.json").write_text(json.dumps(config or upstream_config(read_manifest(NAME))))
        Path("upstream/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        save_file({"a": torch.zeros(2)}, "upstream/model-1.safetensors")
        save_file({"a": torch.zeros(2)}, "outside.safetensors")

    return build
