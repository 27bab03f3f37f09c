"""Objects on images from Pascal VOC's XML files, as COCO's format has them."""

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hf_models.errors import InputError
from hf_models.evaluate.data.coco import COCOSelection
from hf_models.evaluate.data.coco_objects import check_objects
from hf_models.evaluate.data.images import IMAGE_SUFFIXES, from_files
from hf_models.inference import read_image

MAX_XML = 10_000_000  # bytes


def open_voc(root: Path, parts: tuple[str, ...], skip_bad_boxes: bool) -> COCOSelection | None:
    """The images of a split and the objects on them, from Pascal VOC's own folders, or from a folder of the split.

    Args:
        root: The folder of the data.
        parts: What the split may be called.
        skip_bad_boxes: See [`has_area`].

    Raises:
        InputError: Something is wrong with what is annotated.
    """
    for part in parts:
        listed = root / "ImageSets" / "Main" / f"{part}.txt"
        if listed.is_file():
            folder, annotations = root / "JPEGImages", root / "Annotations"
            files = {file.stem: file for file in _images(folder)}
            images = [_listed(line.strip(), files, listed) for line in _lines(listed) if line.strip()]
        elif any((root / part).glob("*.xml")):
            folder = annotations = listed = root / part
            images = _images(folder)
        else:
            continue
        files = [annotations / f"{image.stem}.xml" for image in images]
        content = voc_content(images, files, skip_bad_boxes)
        check_objects(content, listed)
        if all(annotation["iscrowd"] for annotation in content["annotations"]):
            raise InputError(
                f"{listed}: no objects on its images, or difficult ones alone. Annotate some in {annotations}."
            )
        pairs = list(zip(images, content["images"], strict=True))
        return COCOSelection(from_files(part, folder, pairs), part, "", len(pairs), None, listed, content)
    return None


def _lines(listed: Path) -> list[str]:
    try:
        return listed.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{listed}: not in UTF-8. Save it in UTF-8.") from None


def _listed(line: str, files: dict[str, Path], listed: Path) -> Path:
    """The image of a line: its name, with or without suffix, and perhaps whether it has objects of a class."""
    for name in (line, line.rpartition(" ")[0].strip()):
        if file := files.get(name) or files.get(Path(name).stem):
            return file
    raise InputError(f"{listed}: names {line}, which is no image in JPEGImages. Correct it.")


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def has_area(box: list[float], called: str, skip_bad_boxes: bool) -> bool:
    """Whether a box (left, top, width, height) has an area.

    Args:
        box: In pixels.
        called: What it is the box of.
        skip_bad_boxes: Print what has none, instead of the error.

    Raises:
        InputError: It has none.
    """
    if min(box[2:]) > 0:
        return True
    error = f"{called}: its box {box} has no area. Correct or remove it"
    if not skip_bad_boxes:
        raise InputError(f"{error}, or pass --skip-bad-boxes.")
    print(f"skipped: {error}.", file=sys.stderr)
    return False


def voc_content(images: list[Path], annotations: list[Path], skip_bad_boxes: bool) -> dict[str, list[dict[str, Any]]]:
    """What is on images, in COCO's format.

    A box covers the pixels that it names, the first of which is 1. Objects that are marked as difficult become crowds:
    they are not to be found, and who finds them makes no mistake. An image without a file of annotations has no
    objects, which is printed.

    Args:
        images: Their files.
        annotations: The XML file of each image.
        skip_bad_boxes: See [`has_area`].

    Raises:
        InputError: A file has another format, or a box has no area.
    """
    content, categories = {"images": [], "annotations": []}, {}
    bare = [image for image, file in zip(images, annotations, strict=True) if not file.is_file()]
    if bare:
        print(f"warning: {len(bare)} images have no annotations and count as background: {bare[0]}", file=sys.stderr)
    for number, (image, file) in enumerate(zip(images, annotations, strict=True), 1):
        root = _parsed(file) if file.is_file() else ElementTree.Element("annotation")
        size = width, height = _size(root) or read_image(image).size
        content["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
        for of_image, element in enumerate(root.iterfind("object"), 1):
            called = f"{file}: object {of_image}"
            name, box = (element.findtext("name") or "").strip(), _box(element, size, called)
            if not name:
                raise InputError(f"{called} has no name. Add the name of its class.")
            if not has_area(box, called, skip_bad_boxes):
                continue
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": categories.setdefault(name, len(categories) + 1),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int((element.findtext("difficult") or "0").strip() == "1"),
                }
            )
    return content | {"categories": [{"id": number, "name": name} for name, number in categories.items()]}


def _parsed(file: Path) -> ElementTree.Element:
    if file.stat().st_size > MAX_XML:
        raise InputError(f"{file}: larger than {MAX_XML:,} bytes. Name a file of annotations.")
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of encodings
        raise InputError(f"{file}: not XML that can be read ({error}). Export it again, in UTF-8.") from None
    if root.tag != "annotation":
        raise InputError(f"{file}: begins with <{root.tag}>, not with <annotation>. Export it as Pascal VOC.")
    return root


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height of the image, where the file says them; some tools write 0."""
    try:
        width, height = (int(root.findtext(f"size/{side}")) for side in ("width", "height"))
    except (TypeError, ValueError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(element: ElementTree.Element, size: tuple[int, int], called: str) -> list[float]:
    """Left, top, width and height in pixels, from 0, in an image of this width and height."""
    names = ("xmin", "ymin", "xmax", "ymax")
    texts = [element.findtext(f"bndbox/{name}") for name in names]
    try:
        left, top, right, bottom = map(float, texts)
    except (TypeError, ValueError):
        raise InputError(f"{called} has no box of four numbers ({', '.join(names)}). Add them.") from None
    if not (left < right and top < bottom):
        return [left, top, 0, 0]
    if min(left, top) < 0 or right > size[0] + 1 or bottom > size[1] + 1:
        raise InputError(
            f"{called}: its box ({', '.join(texts)}) leaves the image of {size[0]} x {size[1]} pixels. Correct it."
        )
    return [left - 1, top - 1, right - left + 1, bottom - top + 1]
