"""Images of any classes: which output of a model stands for which of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hf_models.errors import InputError

from .images import ImageData, Selection, limited


class UnknownClass(InputError):
    """The model has no label for a class of the data."""


@dataclass(frozen=True)
class OwnSelection(Selection):
    """Images, and what their labels mean.

    Args:
        output_of: Label -> index of the model's output.
    """

    output_of: dict[str | int, int]


def match_classes(data: ImageData, model: str, names: Sequence[str], limit: int | None) -> OwnSelection:
    """Find the classes of the data among the model's labels, by their names.

    Labels that are numbers without names are taken to be numbers of the model's outputs. The model may have labels of
    which there are no images.

    Args:
        model: What errors call the model.
        names: Its labels.
        limit: How many of the images are evaluated; `None` for all.

    Raises:
        InputError: There are no images, they have several labels each, or a class is none of the model's labels.
    """
    count, found = data.count, None
    if data.targets:
        try:
            found = Counter(data.targets())
        except TypeError:
            raise InputError(f"{data.name}: its images have lists of labels, one label each is wanted.") from None
        count = found.total()
        if not count:
            raise InputError(f"{data.name}: no images. Nothing evaluated.")
    labels = sorted(found, key=str) if found else range(len(data.names or names))
    output_of = {}
    for label in labels:
        name = data.names[label] if data.names and isinstance(label, int) else label
        index = name if isinstance(name, int) and 0 <= name < len(names) else None
        if isinstance(name, str) and (same := [index for index, known in enumerate(names) if known == name]):
            if len(same) > 1:
                raise InputError(f"{model}: outputs {same[0]} and {same[1]} are both called {name}. Rename one.")
            (index,) = same
        if index is not None:
            output_of[label] = index
        elif found:
            raise UnknownClass(unknown(data, model, names, name))
    if limit is None:
        title = f"{data.name}, {'' if count is None else f'{count:,} images of '}{len(output_of):,} classes"
    else:
        title = f"{data.name}, the first {limited(count, limit):,} images"
    prefix = "" if limit is None else "subset "
    return OwnSelection(data, title, prefix, limited(count, limit), limit, output_of)


def unknown(data: ImageData, model: str, names: Sequence[str], name: str | int) -> str:
    """Says that the model has no label for a class of the data."""
    labels = ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
    return (
        f"{data.name}: its class {name} is none of the {len(names)} labels of {model} ({labels}). "
        "Rename the class, or the labels in id2label of the model's config."
    )
