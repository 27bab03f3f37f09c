"""Images of ImageNet-1K's classes: where they are, and whether they are the validation set."""

from collections import Counter
from dataclasses import dataclass

from hf_models.errors import InputError
from hf_models.zoo import wnid_names

from .imagenet_classes import wnids_of
from .images import ImageData, Selection, limited

FULL = "ImageNet-1K validation"


@dataclass(frozen=True)
class LabelledSelection(Selection):
    """Images, and what their labels mean.

    Args:
        wnid_of: Label -> WordNet id.
    """

    wnid_of: dict[str | int, str]


class OtherClasses(InputError):
    """The data are no images of ImageNet-1K's classes."""


def check_labels(data: ImageData, subset: bool, limit: int | None) -> LabelledSelection:
    """Say what the labels mean, and refuse to take anything else for the validation set.

    The validation set has 1,000 classes of 50 images. Folders 0 to 999 of ten images each are those of ImageNet-V2.
    Labels that are numbers without names are taken to be in the order of ImageNet-1K.

    Args:
        subset: Accept fewer classes or images; the result is then called a subset's.
        limit: How many of the images are evaluated; `None` for all.

    Raises:
        InputError: There are no images, the labels are no classes of ImageNet-1K, or not all of them.
    """
    if data.targets:
        images = Counter(data.targets())
        labels, count = sorted(images, key=str), images.total()
        if not count:
            raise InputError(f"{data.name}: no images. Nothing evaluated.")
    else:
        labels, count, images = list(range(len(data.names or wnid_names()))), data.count, None
    wnid_of = _wnids(data, labels)
    numbered = all(isinstance(label, str) and label.isdecimal() for label in labels)
    title = _title(len(wnid_of), count, set(images.values()) if images else None, numbered)
    if limit is None and title:
        return LabelledSelection(data, title, "", count, limit, wnid_of)
    if not subset and limit is None:
        missing = [wnid for wnid in wnid_names() if wnid not in wnid_of.values()]
        which = f" ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''} missing)" if missing else ""
        found = f"{len(wnid_of)} classes{which} and {'an unknown number of' if count is None else f'{count:,}'} images"
        raise InputError(
            f"{data.name}: {found}, 1000 and 50,000 expected. Nothing evaluated. "
            "Pass --subset to measure on what there is."
        )
    count = limited(count, limit)
    number = "" if count is None else f"{count:,} images of "
    title = f"{data.name}, {number}{len(wnid_of):,} classes"
    return LabelledSelection(data, title, "subset ", count, limit, wnid_of)


def _title(classes: int, count: int | None, sizes: set[int] | None, numbered: bool) -> str | None:
    """The name of a data set with so many classes, images, and images in each class; `None` for a subset."""
    if classes != 1000:
        return None
    if count == 50_000 and sizes in (None, {50}):
        return FULL
    if count == 10_000 and sizes == {10} and numbered:
        return "ImageNet-V2, 10,000 images"
    return None


def _wnids(data: ImageData, labels: list[str | int]) -> dict[str | int, str]:
    """Label -> WordNet id, for labels that are numbers, or given by their id, their number or their name."""
    known = list(wnid_names())
    names = data.names or [label for label in labels if isinstance(label, str)]
    wnids = wnids_of(names, "imagenet-1k")
    if wnids is None and all(name.isdecimal() and int(name) < len(known) for name in names):
        wnids = [known[int(name)] for name in names]
    if wnids is None:
        raise OtherClasses(
            f"{data.name}: classes such as {names[0]} are not ImageNet-1K's. Use WordNet ids, or measure a model of "
            "these classes with `hf-models evaluate classes`."
        )
    by_number = dict(enumerate(wnids if data.names else known))
    by_name = dict(zip(names, wnids, strict=True))
    try:
        return {label: by_name[label] if isinstance(label, str) else by_number[label] for label in labels}
    except KeyError as error:
        raise InputError(f"{data.name}: label {error} is no class of ImageNet-1K (0 to 999).") from None
