"""Photos with boxes and masks for `finetune_detection.py`: folders, the classes in them, crops to train on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import Photos, Window, jittered, normalized, random_window
from PIL import Image
from voc_annotations import voc_content

from hf_models.coco_labels import coco_pixels
from hf_models.errors import InputError
from hf_models.evaluate.coco import check_size
from hf_models.evaluate.data.coco import COCOSelection, open_coco
from hf_models.evaluate.data.coco_objects import check_masks, check_objects
from hf_models.evaluate.data.images import IMAGE_SUFFIXES, from_files
from hf_models.image_processing_detection import DetectionImageProcessor
from hf_models.inference import read_image

SPLITS = {"train": ("train", "train2017", "training"), "validation": ("val", "val2017", "valid", "validation")}
JSON_FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}.json", "{}/_annotations.coco.json")
SCALES = (0.6, 1.6)  # of a training image
VISIBLE = 0.1  # of its box must be in the crop, or an object is none


def open_split(root: Path, split: str) -> COCOSelection:
    """The images of a split and the objects on them, in COCO's or in Pascal VOC's layout.

    Args:
        root: The folder.
        split: Key of `SPLITS`.

    Raises:
        InputError: There is neither, or something is wrong with what is annotated.
    """
    selection = _open_json(root, split) or _open_xml(root, split)
    if selection is None:
        part = SPLITS[split][0]
        places = f"{root / JSON_FILES[0].format(part)} (COCO) nor {root / 'ImageSets/Main' / part}.txt (Pascal VOC)"
        raise InputError(f"{root}: has neither {places}. Put your annotations there.")
    for annotation in selection.content["annotations"]:
        if min(annotation["bbox"][2:]) <= 0:
            box = f"{selection.path}: annotation {annotation['id']}: its box {annotation['bbox']}"
            raise InputError(f"{box} has no area. Correct or remove it.")
    if has_masks(selection):
        check_masks(selection.content, selection.path)
    return selection


def _open_json(root: Path, split: str) -> COCOSelection | None:
    for part in SPLITS[split]:
        for file in (root / name.format(part) for name in JSON_FILES):
            if file.is_file():
                beside = (root / part).is_dir() or not (root / "images").is_dir()
                return open_coco(str(root if beside else root / "images"), part, file)
    return None


def _open_xml(root: Path, split: str) -> COCOSelection | None:
    """Pascal VOC's own folders, or one folder for each split with images and XML files."""
    for part in SPLITS[split]:
        listed = root / "ImageSets" / "Main" / f"{part}.txt"
        if listed.is_file():
            folder, annotations = root / "JPEGImages", root / "Annotations"
            files = {file.stem: file for file in _images(folder)}
            stems = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
            if missing := [stem for stem in stems if stem not in files]:
                raise InputError(f"{listed}: names {missing[0]}, which is no image in {folder}. Correct it.")
            images = [files[stem] for stem in stems]
        elif any((root / part).glob("*.xml")):
            folder = annotations = listed = root / part
            images = _images(folder)
        else:
            continue
        content = voc_content(images, [annotations / f"{image.stem}.xml" for image in images])
        check_objects(content, listed)
        if not content["annotations"]:
            raise InputError(f"{listed}: there are no objects on its images. Nothing to learn or to measure.")
        pairs = list(zip(images, content["images"], strict=True))
        return COCOSelection(from_files(part, folder, pairs), part, "", len(pairs), None, listed, content)
    return None


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def has_masks(selection: COCOSelection) -> bool:
    """Whether every object has a mask."""
    return all(annotation.get("segmentation") for annotation in selection.content["annotations"])


def class_names(trained: COCOSelection, validated: COCOSelection) -> list[str]:
    """Names of the classes that there are objects of to learn from.

    Raises:
        InputError: An object to validate with is of another class.
    """
    names, validated_names = (
        {category["id"]: category["name"] for category in selection.content["categories"]}
        for selection in (trained, validated)
    )
    learned = {a["category_id"] for a in trained.content["annotations"] if not a["iscrowd"]}
    learned = [name for number, name in names.items() if number in learned]
    for annotation in validated.content["annotations"]:
        if (name := validated_names[annotation["category_id"]]) not in learned:
            raise InputError(
                f"{validated.path}: annotation {annotation['id']} is of class {name}, which is on no image to train "
                "on. Move images of it to those."
            )
    return learned


class BoxedPhotos(Photos):
    """Photos with the boxes, and perhaps the masks, of the objects on them.

    Args:
        selection: The photos.
        names: Of the classes.
        processor: Gives the size, mean and standard deviation of the images.
        crop_size: Side of the crops in pixels, where they are trained on.
        with_masks: Whether to learn masks.
        upside_down: Whether photos have no above, as those of microscopes.
        options: See [`Photos`].
    """

    def __init__(
        self,
        selection: COCOSelection,
        names: list[str],
        processor: DetectionImageProcessor,
        crop_size: int | None = None,
        with_masks: bool = False,
        upside_down: bool = False,
        **options,
    ):
        super().__init__(selection.count, **options)
        self.selection, self.processor, self.crop_size = selection, processor, crop_size
        self.with_masks, self.upside_down = with_masks, upside_down
        self.samples = list(selection.samples())
        ids = {category["name"]: category["id"] for category in selection.content["categories"]}
        self.categories = {index: ids[name] for index, name in enumerate(names) if name in ids}
        self.objects = {sample.target["id"]: [] for sample in self.samples}
        for annotation in selection.content["annotations"]:
            if not annotation["iscrowd"]:
                self.objects[annotation["image_id"]].append(annotation)

    def load(self, index: int) -> tuple[Image.Image, list[dict[str, Any]]]:
        """A photo and the objects on it, as in COCO's format."""
        sample = self.samples[index]
        image = read_image(sample.file, sample.name)
        check_size(image, sample)
        return image, self.objects[sample.target["id"]]

    def example(self, loaded: tuple[Image.Image, list[dict[str, Any]]], random: np.random.Generator) -> dict[str, Any]:
        """`pixel_values` (3, crop_size, crop_size) and `labels`, as detectors take them."""
        image, objects = loaded
        size, mean = self.processor.size, self.processor.image_mean
        edges = size.shortest_edge, size.longest_edge
        window = random_window(image.size, edges, self.crop_size, SCALES, random, self.upside_down)
        left_top_sides = np.array([annotation["bbox"] for annotation in objects]).reshape(-1, 4)
        boxes, kept = visible_boxes(window, left_top_sides)
        index_of = {number: index for index, number in self.categories.items()}
        objects = [annotation for annotation, keep in zip(objects, kept, strict=True) if keep]
        classes = [index_of[annotation["category_id"]] for annotation in objects]
        labels = {"class_labels": torch.tensor(classes, dtype=torch.long), "boxes": torch.from_numpy(boxes)}
        if self.with_masks:
            masks = (Image.fromarray(coco_pixels(a["segmentation"], image.size[::-1])) for a in objects)
            masks = [torch.from_numpy(np.array(window.cut(mask, Image.Resampling.NEAREST, 0))) for mask in masks]
            empty = torch.zeros(0, self.crop_size, self.crop_size, dtype=torch.uint8)
            labels["masks"] = torch.stack(masks) if masks else empty
        colour = tuple(round(255 * value) for value in mean)
        crop = jittered(window.cut(image, Image.Resampling.BILINEAR, colour), random)
        return {"pixel_values": normalized(crop, mean, self.processor.image_std), "labels": labels}


def visible_boxes(window: Window, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What can be seen of boxes (N, 4), left, top, width and height in pixels of a photo, in a part of it.

    Returns:
        Centre x, centre y, width and height (n, 4) of those that are to be found, in fractions of the window in
        float32, and which these are (N,).
    """
    corners = window.locate(np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1))
    low, high = np.split(corners.clip(0, 1), 2, axis=1)
    whole = corners[:, 2:] - corners[:, :2]
    kept = (high - low).prod(1) >= VISIBLE * whole.prod(1)
    return np.concatenate(((low + high) / 2, high - low), axis=1)[kept].astype(np.float32), kept


def batch(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """What a detector takes: images of one size, and what is on each."""
    pixel_values = torch.stack([example["pixel_values"] for example in examples])
    return {"pixel_values": pixel_values, "labels": [example["labels"] for example in examples]}
