"""Images with objects in COCO's format, and a detector that finds most of them, not quite where they are.

As a script, which `torchrun` can start: `coco_tester.py RESULTS DATA SPLIT` resumes an evaluation of that detector and
prints what comes out.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig

from hf_models.detector_output import DetectorOutput
from hf_models.evaluate.checkpoint import Loaded
from hf_models.evaluate.coco import COCOEvaluation
from hf_models.evaluate.data.coco import COCOSelection, category_ids, open_coco
from hf_models.evaluate.run import run
from hf_models.evaluate.settings import Settings
from hf_models.image_processing_detection import DetectionImageProcessor

NAMES = {7: "cup", 18: "dog", 90: "toothbrush"}
NUM_IMAGES = 24
EMPTY, CROWDED = 5, 6  # image without objects, image with more than 100 of one class
PLACES = 200


def make_coco(root: Path) -> Path:
    """A folder as COCO has it, with polygons, crowds, and objects of all three sizes."""
    random = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": i, "name": name} for i, name in NAMES.items()]}
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    for index in range(NUM_IMAGES):
        width, height = random.integers(150, 260, 2).tolist()
        number = 1000 - 7 * index  # so that the order of the ids is not that of the images
        image = {"id": number, "file_name": f"{number:012}.png", "width": width, "height": height}
        pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(root / "val2017" / image["file_name"])
        content["images"].append(image)
        objects = 0 if index == EMPTY else 170 if index == CROWDED else 6
        for _ in range(objects):
            add_object(content, image, random, category=18 if index == CROWDED else int(random.choice(list(NAMES))))
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def add_object(content, image, random, category):
    """An ellipse; now and then a crowd."""
    number = len(content["annotations"]) + 1
    crowd = int(number % 11 == 0)
    width, height = random.uniform(8, 140, 2).round(1).tolist()
    left = round(random.uniform(0, image["width"] - width), 1)
    top = round(random.uniform(0, image["height"] - height), 1)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points = np.stack((left + width / 2 * (1 + np.cos(angles)), top + height / 2 * (1 + np.sin(angles))), axis=1)
    segmentation = [points.flatten().round(2).tolist()]
    if crowd:  # the upper part of the image, as runs
        pixels = image["width"] * image["height"]
        segmentation = {"size": [image["height"], image["width"]], "counts": [0, pixels // 3, pixels - pixels // 3]}
    content["annotations"].append(
        {
            "id": number,
            "image_id": image["id"],
            "category_id": category,
            "bbox": [left, top, width, height],
            "area": round(0.75 * width * height, 2),
            "iscrowd": crowd,
            "segmentation": segmentation,
        }
    )


class PerturbedTruth(nn.Module):
    """A detector that recognises the images of a data set, and knows what is on them."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, selection: COCOSelection, processor: DetectionImageProcessor):
        super().__init__()
        self.names = [*reversed([category["name"] for category in selection.content["categories"]]), "unicorn"]
        self.config = PreTrainedConfig(id2label=dict(enumerate(self.names)), with_masks=True)
        self.categories = category_ids(selection, "stub", self.names)
        self.image_of = {}
        for sample in selection.samples():
            inputs = processor(images=[Image.open(sample.file)], return_tensors="pt")
            self.image_of[key(inputs.pixel_values[0], inputs.pixel_mask[0])] = sample.target
        self.annotations = selection.content["annotations"]

    def forward(self, pixel_values, pixel_mask, output_hidden_states=False) -> DetectorOutput:
        images = [self.image_of[key(pixels, mask)] for pixels, mask in zip(pixel_values, pixel_mask, strict=True)]
        found = [self.detections(image) for image in images]
        return DetectorOutput(**{name: torch.stack([f[name] for f in found]) for name in found[0]})

    def detections(self, image: dict) -> dict[str, torch.Tensor]:
        random = np.random.default_rng(image["id"])
        label_of = {category: label for label, category in self.categories.items()}
        size = np.array([image["width"], image["height"]] * 2)
        rows = []
        for annotation in self.annotations:
            if annotation["image_id"] == image["id"] and random.random() < 0.85:
                box = np.array(annotation["bbox"])
                box[2:] += box[:2]
                box += random.normal(0, 0.05, 4) * np.tile(box[2:] - box[:2], 2)
                label = label_of[annotation["category_id"]] if random.random() < 0.9 else len(self.names) - 1
                rows.append((label, box))
        rows += [(0, np.sort(random.uniform(0, size / 2, 4).reshape(2, 2), axis=0).flatten()) for _ in range(3)]
        scores = np.sort(random.uniform(0.05, 1, len(rows)).round(2))[::-1].copy()  # some are equal
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        scale = random.uniform(0.8, 1.2, (len(rows), 1, 1))
        output = {
            "scores": torch.zeros(PLACES),
            "labels": torch.full((PLACES,), -1),
            "boxes": torch.zeros(PLACES, 4),
            "masks": torch.zeros(PLACES, 28, 28),
        }
        output["scores"][: len(rows)] = torch.from_numpy(scores)
        output["labels"][: len(rows)] = torch.tensor([label for label, _ in rows])
        output["boxes"][: len(rows)] = torch.from_numpy(np.array([box / size for _, box in rows]))
        output["masks"][: len(rows)] = torch.from_numpy(1 / (1 + np.exp(8 * (x**2 + y**2 - scale))))
        return output


def key(pixels: torch.Tensor, mask: torch.Tensor) -> bytes:
    """Of an image without its padding."""
    return pixels[:, : mask.any(1).sum(), : mask.any(0).sum()].numpy().tobytes()


def coco_evaluation(data: Path, split: str = "val2017", limit: int | None = None, batch_size: int = 1):
    """Of boxes, and of masks where the data have them."""
    processor = DetectionImageProcessor(size={"shortest_edge": 40, "longest_edge": 66})
    selection = open_coco(str(data), split, limit=limit)
    model = PerturbedTruth(selection, processor)
    kinds = ("box", "mask") if selection.with_masks else ("box",)
    return COCOEvaluation(Loaded("stub", "r", processor, model), selection, model.categories, kinds, batch_size)


if __name__ == "__main__":
    results, data, split = sys.argv[1:]
    rows, details = run(
        coco_evaluation(Path(data), split), Settings(1, device="cpu", results=Path(results), resume=True)
    )
    if rows:
        print(json.dumps(details["metrics"]))
