"""Which split is evaluated where a data set has several."""

import re
from collections.abc import Collection

from hf_models.errors import InputError

TRAINING = ("train", "training")
HELD_OUT = ("validation", "valid", "val", "dev", "test", "testing")  # the first that is there is taken
VALIDATION = HELD_OUT[:3]


def split_of(name: str) -> str | None:
    """The split that a word in the name of a file says, such as "train" in "imagenet1k-train-0000.tar"."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in words if word in TRAINING + HELD_OUT), None)


def choose_split(data: str, splits: Collection[str | None]) -> str | None:
    """The split to evaluate if the user names none: the validation images, else the test images.

    Args:
        data: What errors call the data set.
        splits: Those that are there; `None` stands for files whose names say none.

    Raises:
        InputError: There are training images, and none that were held out.
    """
    if held_out := next((split for split in HELD_OUT if split in splits), None):
        return held_out
    if named := sorted(split for split in splits if split):
        others = " and files of no split" if None in splits else ""
        raise InputError(
            f"{data}: holds only the split {', '.join(named)}{others}. Pass --split {named[0]} to evaluate on it."
        )
    return None
