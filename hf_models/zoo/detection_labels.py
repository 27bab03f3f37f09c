"""Names of the classes of detection data sets, in the order of the heads. The files in `data/` hold one name a line."""

from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("data")
DETECTION_SETS = {
    "coco": "coco.txt",
    "lvis": "lvis.txt",
    "open-images": "open-images.txt",
    "pascal-voc": "pascal-voc.txt",
}


@cache
def detection_names(label_set: str) -> tuple[str, ...]:
    """Names of all classes of a label set, in the order of the heads.

    Args:
        label_set: `"coco"` (80 classes), `"lvis"` (1,203), `"open-images"` (601) or `"pascal-voc"` (20).
    """
    return tuple((DATA / DETECTION_SETS[label_set]).read_text(encoding="utf-8").splitlines())
