"""Images and the objects on them in COCO's format: where they are, and which classes are on them."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from hf_models.errors import InputError
from hf_models.inference.files import check_path, read_json

from .coco_objects import check_objects
from .images import Selection, from_files, limited

FULL = "COCO val2017"
COUNTS = {"images": 5000, "annotations": 36781, "categories": 80}  # of val2017
MAX_JSON = 500_000_000  # bytes; that of COCO's training images has 470 million
COCO_IDS = range(90, 93)  # outputs of models that answer with the ids of COCO's categories, which end at 90


@dataclass(frozen=True)
class COCOSelection(Selection):
    """Images, and the objects on them.

    Args:
        path: The file of annotations.
        content: Images, annotations and categories as COCO's files have them.
    """

    path: Path
    content: dict[str, list[dict[str, Any]]]

    @property
    def with_masks(self) -> bool:
        """Whether objects have outlines and not only boxes."""
        return any(annotation.get("segmentation") for annotation in self.content["annotations"])


def open_coco(data: str, split: str, annotations: Path | None = None, limit: int | None = None) -> COCOSelection:
    """Images and their objects; all that the boxes need is checked.

    Args:
        data: A folder as COCO has it, with `annotations/instances_{split}.json` or `{split}.json`, and the images in
            `{split}/`. With `annotations` the images may also lie in the folder itself, or in one that is called like
            the file.
        annotations: The file of annotations, if it is another.
        limit: How many of the images are evaluated, the first ones; `None` for all.

    Raises:
        InputError: There are no such files, or what they say would be measured wrongly.
    """
    check_path(data)
    root = Path(data)
    if not root.is_dir():
        raise InputError(f"{data}: no such folder. Name the folder of the images.")
    if annotations is None:
        places = root / "annotations" / f"instances_{split}.json", root / f"{split}.json"
        annotations = next((place for place in places if place.is_file()), places[0])
    content = read_json(annotations, MAX_JSON)
    check_objects(content, annotations)
    folder = next(f for f in (root / split, root / annotations.stem, root) if f.is_dir())
    pairs = [(_find(folder, image["file_name"], annotations), image) for image in content["images"]]
    files = from_files(annotations.stem, folder, pairs, split)
    with annotations.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    files = replace(files, fingerprint=f"{files.fingerprint}, annotations sha256 {digest}")
    whole = all(len(content[name]) == count for name, count in COUNTS.items())
    count = limited(len(pairs), limit)
    title = FULL if whole and limit is None else f"{FULL if whole else files.name}, {count:,} images"
    content = _first(content, limit)
    if all(annotation["iscrowd"] for annotation in content["annotations"]):
        raise InputError(f"{annotations}: no annotations of single objects on the images. Nothing evaluated.")
    prefix = "" if limit is None else "subset "
    return COCOSelection(files, title, prefix, count, limit, annotations, content)


def category_ids(selection: COCOSelection, model: str, names: list[str]) -> dict[int, int]:
    """Find the categories that there are objects of among the model's labels, by their names.

    Args:
        model: What errors call the model.
        names: Its labels. It may have some that no object has.

    Returns:
        Index of a label -> id of a category.

    Raises:
        InputError: A category is none of the labels.
    """
    used = {annotation["category_id"] for annotation in selection.content["annotations"]}
    wanted = {c["name"]: c["id"] for c in selection.content["categories"] if c["id"] in used}
    counts = Counter(names)
    if missing := [name for name in wanted if name not in counts]:
        advice = "Rename the categories, or the labels in id2label of the model's config."
        if len(missing) == len(wanted) and len(names) in COCO_IDS:
            advice = f"Its {len(names)} outputs may be ids of COCO's categories: name them in id2label of its config."
        raise InputError(
            f"{selection.path}: {len(missing)} of its {len(wanted)} categories ({_some(missing)}) are none of the "
            f"{len(names)} labels of {model} ({_some(names)}). {advice}"
        )
    for name in wanted:
        if counts[name] > 1:
            raise InputError(f"{model}: {counts[name]} outputs are called {name}. Rename all but one.")
    return {index: wanted[name] for index, name in enumerate(names) if name in wanted}


def _first(content: dict[str, Any], limit: int | None) -> dict[str, list[dict[str, Any]]]:
    """What is said of the first images."""
    images = content["images"][:limit]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids]
    return {"images": images, "annotations": annotations, "categories": content["categories"]}


def _find(folder: Path, name: str, annotations: Path) -> Path:
    """The path of an image; its name may begin with folders that lie beside the folder or the file."""
    places = [_inside(parent, name, annotations) for parent in (folder, folder.parent, annotations.parent)]
    return next((place for place in places if place.is_file()), places[0])


def _inside(folder: Path, name: str, annotations: Path) -> Path:
    """The path of an image, refused if it would leave the folder on any system."""
    path = PureWindowsPath(name)  # whose separators are those of all systems
    if path.anchor or ".." in path.parts:
        raise InputError(f"{annotations}: its image {name} leaves the folder of the images. Correct file_name.")
    check_path(folder / name)
    return folder / name


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
