"""Names of the classes of ImageNet, in the order of the heads."""

import gzip
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("data")
LABEL_FILES = {"imagenet-1k": "imagenet-1k.txt", "imagenet-22k": "imagenet-22k.txt.gz"}


def label_names(label_set: str) -> list[str]:
    """Names of all classes of a label set, in the order of the heads; see [`wnid_names`]."""
    return list(wnid_names(label_set).values())


@cache
def wnid_names(label_set: str = "imagenet-1k") -> dict[str, str]:
    """WordNet id -> name of the class, in the order of the heads (the ids are sorted).

    WordNet gives some classes the same name: in ImageNet-1K 134 (a bird) and 517 (a machine) are both a "crane". The
    first class of a name keeps it, later ones carry their id, as in "crane (n03126707)", so that no class is lost when
    names are turned back into indices. All other names are those that transformers users know.

    Args:
        label_set: `"imagenet-1k"` (1,000 classes) or `"imagenet-22k"` (21,841 classes).
    """
    path = DATA / LABEL_FILES[label_set]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    names, taken = {}, set()
    for line in data.decode().splitlines():
        wnid, name = line.split("\t")
        names[wnid] = f"{name} ({wnid})" if name in taken else name
        taken.add(name)
    return names
