"""The file that `--original-config` names: arguments of a constructor, a `model` dict, or a whole config around it."""

from pathlib import Path
from typing import Any

from hf_models.errors import InputError
from hf_models.inference.files import read_json

MAX_SIDE = 10_000  # pixels


def read_original_config(path: Path) -> tuple[dict, dict | None]:
    """What the original network is built from; and how its test prepares images, as image processors take it.

    Raises:
        InputError: The file cannot be read, or images cannot be prepared as it says.
    """
    if path.suffix == ".py":
        raise InputError(
            f"{path}: a program, which is not run. Write it as JSON where its code is installed: "
            f"python -c \"from mmcv import Config; Config.fromfile('{path.name}').dump('{path.stem}.json')\"."
        )
    content = read_json(path)
    model = next((content[key] for key in ("model", "model_cfg") if isinstance(content.get(key), dict)), None)
    return (content, None) if model is None else (model, _preprocessing(path, _test_pipeline(content)))


def _test_pipeline(content: dict) -> Any:
    """The steps of the test, which whole configs of mmdet hold twice, and those without variables once."""
    inside = content
    for key in ("data", "test", "pipeline"):
        inside = inside.get(key) if isinstance(inside, dict) else None
    return content.get("test_pipeline", inside)


def _preprocessing(path: Path, pipeline: Any) -> dict | None:
    """Size, mean and deviation in a pipeline of mmdet; `None` if it does not say all three."""
    steps = [step for step in (pipeline if isinstance(pipeline, list) else [pipeline]) if isinstance(step, dict)]
    inside = [step["transforms"] for step in steps if isinstance(step.get("transforms"), list)]
    steps += [step for transforms in inside for step in transforms if isinstance(step, dict)]
    said = {name: value for step in steps for name, value in step.items()}
    if not {"img_scale", "mean", "std"} <= said.keys():
        return None
    scale, mean, std = (said[name] for name in ("img_scale", "mean", "std"))
    if not (_numbers(scale, 2, MAX_SIDE) and _numbers(mean, 3, 255, 0) and _numbers(std, 3, 255)):
        raise InputError(f"{path}: test_pipeline has img_scale={scale!r}, mean={mean!r}, std={std!r}. Correct it.")
    if not said.get("to_rgb", True):
        raise InputError(f"{path}: test_pipeline has to_rgb=False, which is not supported: images are RGB here.")
    if said.get("flip", False):
        raise InputError(f"{path}: test_pipeline has flip={said['flip']!r}, but one view of an image is tested here.")
    return {
        "size": {"shortest_edge": min(scale), "longest_edge": max(scale)},
        "image_mean": [round(value / 255, 9) for value in mean],
        "image_std": [round(value / 255, 9) for value in std],
    }


def _numbers(values: Any, count: int, most: float, least: float = 1e-3) -> bool:
    """Whether something is a list of so many numbers in a range."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and least <= value <= most for value in values)
    )
