"""Photos with boxes and masks for `finetune_detection.py`: folders, the classes in them, crops to train on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from training_photos import Photos, Window, jittered, normalized, random_window
from voc_annotations import has_area, open_voc

from hf_models.coco_labels import coco_pixels
from hf_models.errors import InputError
from hf_models.evaluate.coco import check_size
from hf_models.evaluate.data.coco import COCOSelection, open_coco
from hf_models.image_processing_detection import DetectionImageProcessor
from hf_models.inference import read_image

SPLITS = {"train": ("train", "train2017", "training"), "validation": ("val", "val2017", "valid", "validation")}
JSON_FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}.json", "{}/_annotations.coco.json")
SCALES = (0.6, 1.6)  # of a training image
VISIBLE = 0.1  # of its box must be in the crop, or an object is none


def open_split(root: Path, split: str, skip_bad_boxes: bool = False) -> COCOSelection:
    """The images of a split and the objects on them, in COCO's or in Pascal VOC's layout.

    Args:
        root: The folder.
        split: Key of `SPLITS`.
        skip_bad_boxes: Go on without objects whose box has no area.

    Raises:
        InputError: There is neither, or something is wrong with what is annotated.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Name the folder of your photos and annotations.")
    selection = _open_json(root, split, skip_bad_boxes) or open_voc(root, SPLITS[split], skip_bad_boxes)
    if selection is None:
        part = SPLITS[split][0]
        places = f"{root / JSON_FILES[0].format(part)} (COCO) nor {root / 'ImageSets/Main' / part}.txt (Pascal VOC)"
        raise InputError(f"{root}: has neither {places}. docs/training.md shows the layouts.")
    return selection


def _open_json(root: Path, split: str, skip_bad_boxes: bool) -> COCOSelection | None:
    for part in SPLITS[split]:
        for file in (root / name.format(part) for name in JSON_FILES):
            if file.is_file():
                beside = (root / part).is_dir() or not (root / "images").is_dir()
                selection = open_coco(str(root if beside else root / "images"), part, file)
                selection.content["annotations"] = [
                    a
                    for a in selection.content["annotations"]
                    if a["iscrowd"] or has_area(a["bbox"], f"{file}: annotation {a['id']}", skip_bad_boxes)
                ]
                return selection
    return None


def has_masks(selection: COCOSelection) -> bool:
    """Whether every object has a mask."""
    return all(annotation.get("segmentation") for annotation in selection.content["annotations"])


def names_of(selection: COCOSelection) -> dict[int, str]:
    """Names of the categories that there are objects of, by their ids; exports have parents of categories, too."""
    used = {annotation["category_id"] for annotation in selection.content["annotations"]}
    return {c["id"]: c["name"] for c in selection.content["categories"] if c["id"] in used}


def class_names(trained: COCOSelection, validated: COCOSelection) -> list[str]:
    """Names of the classes that there are objects of to learn from.

    Raises:
        InputError: An object to validate with is of another class.
    """
    names, validated_names = names_of(trained), names_of(validated)
    learned = {a["category_id"] for a in trained.content["annotations"] if not a["iscrowd"]}
    learned = [name for number, name in names.items() if number in learned]
    for annotation in validated.content["annotations"]:
        name = validated_names[annotation["category_id"]]
        if name not in learned and not annotation["iscrowd"]:
            files = {image["id"]: image["file_name"] for image in validated.content["images"]}
            raise InputError(
                f"{validated.path}: {files[annotation['image_id']]} has an object of class {name}, which is on no "
                "image to train on. Move images of it to those."
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
        upside_down: Whether photos have no up and down, as those of microscopes.
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
        ids = {name: number for number, name in names_of(selection).items()}
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
