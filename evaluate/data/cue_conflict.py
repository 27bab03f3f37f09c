"""The cue-conflict stimuli: images with the shape of one category and the texture of another.

Source: Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019.
"""

import json
import re
from collections import Counter
from collections.abc import Collection
from functools import cache
from itertools import permutations
from pathlib import Path

from hf_models.errors import InputError
from hf_models.inference.files import check_path

from .images import IMAGE_SUFFIXES, Selection, from_files, limited

FULL = "cue-conflict stimuli"
SIDE = 224  # of every stimulus, in pixels
PER_PAIR = 5  # stimuli of each shape with each other texture
NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")

Stimuli = list[tuple[Path, tuple[str, str]]]  # the file, its shape and its texture


@cache
def shape_categories() -> dict[str, list[str]]:
    """The 16 categories, in alphabetical order -> WordNet ids of their classes of ImageNet-1K, 207 in all."""
    return json.loads(Path(__file__).with_name("shape_categories.json").read_text(encoding="utf-8"))["categories"]


def find_stimuli(data: str, subset: bool, limit: int | None) -> Stimuli:
    """The stimuli in a folder of one folder for each shape, without those whose texture is of the same category.

    Args:
        data: The folder.
        subset: Accept fewer than the 1,200 that there are.
        limit: How many of them are evaluated; `None` for all.

    Raises:
        InputError: There are none, not all of them, or a name does not say which shape and texture it has.
    """
    check_path(data)
    known, stimuli = shape_categories(), []
    for path in sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        found = NAME.fullmatch(path.stem)
        if not found or found[1] != path.parent.name or not known.keys() >= set(found.groups()):
            raise InputError(
                f"{path}: not a stimulus. Their names are SHAPEi-TEXTUREj.png in a folder SHAPE, such as "
                f"cat/cat7-elephant1.png; the categories are {', '.join(known)}."
            )
        if found[1] != found[2]:
            stimuli.append((path, found.groups()))
    if not stimuli:
        raise InputError(f"{data}: no stimuli such as cat/cat7-elephant1.png in this folder. Nothing evaluated.")
    if not subset and limit is None:
        _check_complete(data, Counter(pair for _, pair in stimuli))
    return stimuli


def select_stimuli(
    data: str, stimuli: Stimuli, model: str, categories: Collection[str], subset: bool, limit: int | None
) -> Selection:
    """The stimuli of whose shape and texture a model has classes.

    Args:
        data: Where they are.
        stimuli: All that there are.
        model: What errors call the model.
        categories: Those of which it has classes.
        subset: Leave the others out; the result is then called a subset's.
        limit: Take only so many; `None` for all.

    Raises:
        InputError: It has no classes of some, and `subset` is not set, or of too many.
    """
    missing = [category for category in shape_categories() if category not in categories]
    if missing and not subset:
        raise InputError(
            f"{model}: has no classes of {len(missing)} of the 16 categories ({', '.join(missing)}). "
            "Pass --subset to measure on the others."
        )
    chosen = [(path, pair) for path, pair in stimuli if set(pair) <= set(categories)]
    if not chosen:
        raise InputError(f"{data}: no stimulus whose shape and texture {model} has classes of. Nothing evaluated.")
    source = from_files(Path(data).name, Path(data), chosen)
    count = limited(len(chosen), limit)
    if limit is None and not missing and _lacking(Counter(pair for _, pair in chosen)) is None:
        return Selection(source, f"{FULL}, {count:,} images", "", count, limit)
    title = f"{source.name}, {count:,} images, {len(categories)} categories"
    return Selection(source, title, "subset ", count, limit)


def _check_complete(data: str, found: Counter) -> None:
    if pair := _lacking(found):
        shape, texture = pair
        absent = [category for category in shape_categories() if not any(category == shape for shape, _ in found)]
        which = f"no {', '.join(absent)}" if absent else f"{found[pair]} of {shape} with the texture of {texture}"
        raise InputError(
            f"{data}: {found.total():,} stimuli ({which}), 1,200 expected, {PER_PAIR} of each shape with each other "
            "texture. Nothing evaluated. Pass --subset to measure on what there is."
        )


def _lacking(found: Counter) -> tuple[str, str] | None:
    """A shape and a texture of which there are fewer or more stimuli than there should be; `None` if all are there."""
    return next((pair for pair in permutations(shape_categories(), 2) if found[pair] != PER_PAIR), None)
