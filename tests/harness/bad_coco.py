"""Bad annotations in COCO's format: `hf-models evaluate coco`."""

import json
from pathlib import Path

from PIL import Image

from .bad_input_case import Case, both, writing

FILE = "coco/annotations/instances_val2017.json"
PHOTO, OTHER = "coco/val2017/000000000009.jpg", "coco/val2017/a.jpg"
COMMAND = ("evaluate", "coco", "--device", "cpu", "--model", "detector", "--data", "coco")
RUNS = {"size": [60, 80], "counts": [1000, 200, 3600]}


def content() -> dict:
    annotation = {"image_id": 9, "category_id": 18, "iscrowd": 0}
    square = {"bbox": [10, 10, 20, 20], "area": 400, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
    return {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "width": 80, "height": 60}],
        "annotations": [{"id": 5} | annotation | square, {"id": 6} | annotation | square],
        "categories": [{"id": 18, "name": "LABEL_0"}],
    }


def photo() -> None:
    Path(PHOTO).parent.mkdir(parents=True)
    for path in (PHOTO, OTHER):
        Image.new("RGB", (80, 60)).save(path)


def coco(message: str, *options: str, path: str = FILE, **changes) -> Case:
    """A data set in which the last image, category or annotation is changed, or a list; `...` takes a field away."""
    changed = content()
    for name, change in changes.items():
        if isinstance(change, dict):
            entry = changed[name][-1] | change
            changed[name][-1] = {key: value for key, value in entry.items() if value is not ...}
        else:
            changed[name] = change
    return Case(both(photo, writing(json.dumps(changed), FILE)), (*COMMAND, *options), path, message)


def annotation(message: str, *options: str, **change) -> Case:
    return coco(message, *options, annotations=change)


def masks(segmentation, message: str) -> Case:
    return annotation(message, "--task", "masks", segmentation=segmentation)


TWO = [content()["images"][0] | {"id": 1, "file_name": "a.jpg"}, *content()["images"]]
TWICE = [content()["images"][0] | {"id": number} for number in (1, 9)]
SAME_NAME = [{"id": number, "name": "LABEL_0"} for number in (17, 18)]
CROWD = [content()["annotations"][0] | {"iscrowd": 1}]
CASES = {
    "no folder": Case(lambda: None, COMMAND, "coco", "no such folder. Name the folder of the images."),
    "no file": Case(photo, COMMAND, FILE, "no such file"),
    "no JSON": Case(both(photo, writing("{", FILE)), COMMAND, FILE, "not readable as JSON"),
    "NaN": Case(both(photo, writing('{"images": [NaN]}', FILE)), COMMAND, FILE, "NaN is not a finite number"),
    "captions": coco("no list of categories. Name a file such as", categories=None),
    "a list of numbers": coco("no list of annotations", annotations=[1, 2]),
    "no images": coco("no images. Nothing evaluated.", images=[]),
    "no annotations": coco("no annotations of single objects on the images. Nothing", annotations=[]),
    "only crowds": coco("no annotations of single objects", annotations=CROWD),
    "no annotations of the first images": coco("no annotations of single objects", "--limit", "1", images=TWO),
    "image: no size": coco("image 9 has no width and height", images={"width": ...}),
    "image: no pixels": coco("image 9 has no width and height", images={"width": 0}),
    "image: no name": coco("image 9 has no file_name", images={"file_name": 9}),
    "image: twice": coco("file_name 000000000009.jpg is there twice", images=TWICE),
    "image: leaves the folder": coco(
        "its image ../secret.jpg leaves the folder", images={"file_name": "../secret.jpg"}
    ),
    "image: missing": coco("not a file, or a link to none", images={"file_name": "b.jpg"}, path="b.jpg"),
    "image: of another size": coco(
        "has 80 x 60 pixels, the annotations are for 80 x 61", images={"height": 61}, path=PHOTO
    ),
    "image: id of a word": coco("an id of its images is 'nine', a whole number from 0 is", images={"id": "nine"}),
    "category: id below 0": coco("an id of its categories is -1, a whole", categories={"id": -1}),
    "category: twice": coco("two of its categories have the id 18", categories=content()["categories"] * 2),
    "category: name twice": coco("name LABEL_0 is there twice", categories=SAME_NAME, annotations={"category_id": 17}),
    "category: unknown to the model": coco(
        "1 of its 1 categories (lynx) are none of the 5 labels of detector (LABEL_0, ", categories={"name": "lynx"}
    ),
    "annotation: id twice": annotation("two of its annotations have the id 5", id=5),
    "annotation: unknown image": annotation("annotation 6: the file has no image 10", image_id=10),
    "annotation: list for an image": annotation("annotation 6: the file has no image []", image_id=[]),
    "annotation: unknown category": annotation("annotation 6: the file has no category 1. Correct", category_id=1),
    "annotation: no area": annotation("annotation 6: no area. Add it: pixels of the mask", area=...),
    "annotation: area in words": annotation("annotation 6: no area", area="400"),
    "annotation: iscrowd 2": annotation("annotation 6: iscrowd is 2, 0 or 1 is wanted", iscrowd=2),
    "annotation: to be ignored": annotation("COCO's metrics do not know `ignore`", ignore=1),
    "annotation: no box": annotation("annotation 6: no bbox of four numbers", bbox=...),
    "annotation: box of corners": annotation(
        "its box [60, 10, 75, 30] leaves the image of 80 x 60", bbox=[60, 10, 75, 30]
    ),
    "annotation: box below 0": annotation("its box [-2, 10, 20, 20] leaves the image", bbox=[-2, 10, 20, 20]),
    "annotation: box inside out": annotation("its box is -20 x 20 pixels", bbox=[30, 10, -20, 20]),
    "mask: none": masks(..., "annotation 6: no mask (segmentation). Pass --task boxes."),
    "mask: empty": masks([], "annotation 6: no mask (segmentation). Pass --task boxes."),
    "mask: a word": masks("cat", "segmentation is neither a list of polygons nor a run-length encoding"),
    "mask: polygon of two points": masks([[10, 10, 30, 30]], "a polygon of 2 points, at least 3 are wanted"),
    "mask: half a point": masks([[10, 10, 30, 10, 30, 30, 10]], "a polygon of 3.5 points"),
    "mask: polygon of words": masks([["a"] * 6], "a polygon of 0 points"),
    "mask: polygon far away": masks([[10, 10, 1e9, 10, 30, 30]], "its polygon leaves the image of 80 x 60 pixels"),
    "mask: runs of another size": masks(
        RUNS | {"size": [80, 60]}, "its mask has the size [80, 60], its image [60, 80]"
    ),
    "mask: runs too short": masks(RUNS | {"counts": [10, 5]}, "the runs of its mask have 15 pixels, its image 4,800"),
    "mask: runs below 0": masks(RUNS | {"counts": [4801, -1]}, "its mask is no run-length encoding"),
    "mask: runs cut off": masks(RUNS | {"counts": "Tag0X"}, "its mask is no run-length encoding"),
    "mask: runs of other letters": masks(RUNS | {"counts": "éé"}, "its mask is no run-length encoding"),
    "a classifier": Case(
        coco("").build,
        (*COMMAND, "--model", "model"),
        "model",
        "is for image-classification, not for object-detection",
    ),
    "task: another": coco("pixels: no such task. Choose from boxes, masks, both.", "--task", "pixels", path="pixels"),
    "curve: no picture": coco("not a name of a picture", "--curve", "a.txt", path="a.txt"),
}
