"""Names and colours of the classes of segmentation data sets, in the order of mmseg, which is that of the heads.

The files in `zoo/` hold one class a line: red, green and blue, a tab, the name.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("data")
# label set -> file, and the number of classes at its beginning that the set leaves out
LABEL_SETS = {
    "ade20k": ("ade20k.txt", 0),
    "cityscapes": ("cityscapes.txt", 0),
    "coco-stuff": ("coco-stuff.txt", 0),
    "mapillary-vistas": ("mapillary-vistas.txt", 0),
    "nyu-depth-v2": ("nyu-depth-v2.txt", 0),
    "pascal-context-59": ("pascal-context.txt", 1),
    "pascal-context-60": ("pascal-context.txt", 0),
}
Colour = tuple[int, int, int]


@cache
def class_colours(label_set: str) -> dict[str, Colour]:
    """Name -> colour of each class of a label set, in the order of the heads."""
    file, skipped = LABEL_SETS[label_set]
    colours = {}
    for line in (DATA / file).read_text(encoding="utf-8").splitlines()[skipped:]:
        colour, name = line.split("\t")
        red, green, blue = map(int, colour.split())
        colours[name] = (red, green, blue)
    return colours


def head_names(label_set: str, num_labels: int) -> list[str] | None:
    """Names for a head that was trained on a label set, `None` if it cannot have been.

    Some published heads have more outputs than their data set has classes; those are never predicted. For Mapillary
    Vistas the last class, "Unlabeled", may be missing.
    """
    names = list(class_colours(label_set))
    if num_labels == len(names) - 1 and label_set == "mapillary-vistas":
        return names[:-1]
    if num_labels < len(names):
        return None
    return names + [f"unused {index}" for index in range(len(names), num_labels)]


def palette(names: Sequence[str]) -> list[Colour]:
    """A colour for each class: those of the data set that has these classes, else those of PASCAL VOC."""
    for label_set in LABEL_SETS:
        if head_names(label_set, len(names)) == list(names):
            colours = list(class_colours(label_set).values())[: len(names)]
            return colours + [voc_colour(index) for index in range(len(colours), len(names))]
    return [voc_colour(index + 1) for index in range(len(names))]


def voc_colour(index: int) -> Colour:
    """The colour of PASCAL VOC for an index: bits 0, 3, 6, ... of the index from the top of red, and so on."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * place + channel)) & 1) << (7 - place)
    return tuple(channels)
