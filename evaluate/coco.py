"""`hf-models evaluate coco`: average precision of the boxes and masks of a detector, by mmdetection's rules."""

import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from transformers import BatchFeature

from hf_models.detection import load_detector
from hf_models.errors import InputError
from hf_models.inference.images import read_image
from hf_models.inference.loading import DTYPES

from .checkpoint import Loaded, identified
from .coco_metrics import compressed, precision
from .data.coco import COCOSelection, category_ids, open_coco
from .data.coco_objects import check_masks
from .data.images import Sample
from .evaluation import Evaluation, Outcome
from .machine import check_choice
from .run import run
from .settings import Settings

TASKS = {"boxes": ("box",), "masks": ("mask",), "both": ("box", "mask")}  # by the names of the option
PREDICTIONS = ("scores", "boxes", "masks", "logits", "pred_boxes")  # of detectors, of this package and of transformers


def evaluate_coco(
    model: str,
    data: str,
    *,
    split: str = "val2017",
    annotations: Path | None = None,
    task: str | None = None,
    limit: int | None = None,
    curve: Path | None = None,
    settings: Settings | None = None,
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Measure a detector on images in COCO's format whose categories it has labels for.

    Args:
        model: Folder or id on the Hub.
        data: See [`open_coco`], as for `split` and `annotations`.
        task: Key of `TASKS`; by default boxes, and masks where model and data have them.
        limit: Evaluate only the first images.
        curve: Image file to write, of precision over recall; needs matplotlib.

    Returns:
        The rows, as in the results, and the details: `metrics`, not rounded, and `classes`, one entry for each class
        with objects. Both are empty in all processes but the first.

    Raises:
        InputError: Something given cannot be used. Nothing was written.
    """
    settings = settings or Settings(batch_size=1)
    settings.check()
    check_choice("task", [task or "both"], TASKS)
    if curve:
        from hf_models.visualize.figures import check_out

        check_out(curve)
    selection = open_coco(data, split, annotations, limit)
    loaded = identified(model, *load_detector(model, DTYPES[settings.dtype]))
    with_masks = getattr(loaded.model.config, "with_masks", False)  # stock detectors have no such field, and no masks
    task = task or ("both" if with_masks and selection.with_masks else "boxes")
    if "mask" in TASKS[task]:
        if not with_masks:
            raise InputError(f"{model}: predicts boxes without masks. Pass --task boxes.")
        check_masks(selection.content, selection.path)
    names = [loaded.model.config.id2label[index] for index in range(loaded.model.config.num_labels)]
    categories = category_ids(selection, model, names)
    rows, details = run(COCOEvaluation(loaded, selection, categories, TASKS[task], settings.batch_size), settings)
    curves = details.pop("curves", None)
    if curve and rows:
        from .precision_recall import draw_curves

        draw_curves(curves, f"{loaded.name} on {selection.title}", curve)
    return rows, details


class COCOEvaluation(Evaluation):
    """Detections; a record is those of an image as COCO's code reads them, in JSON, compressed.

    Args:
        categories: Index of a label -> id of its category. Detections of other labels do not count.
        kinds: What is measured: `"box"`, `"mask"` or both.
        batch_size: Images in a batch. What a detector finds on one depends on the padding, and so on the others.
    """

    def __init__(
        self,
        loaded: Loaded,
        selection: COCOSelection,
        categories: dict[int, int],
        kinds: Sequence[str],
        batch_size: int,
    ):
        self.content, self.categories, self.kinds = selection.content, categories, kinds
        self.label_of = {category: loaded.model.config.id2label[index] for index, category in categories.items()}
        super().__init__(
            loaded,
            selection,
            size=_size(loaded.processor.size),
            options="" if batch_size == 1 else f"batches of {batch_size}",
            depends_on={"task": " and ".join(kinds), "batch size": str(batch_size)},
        )

    def prepare(self, sample: Sample) -> tuple[BatchFeature, dict[str, Any]]:
        """The image as the model sees it, a batch of its own, and what the annotations say of it."""
        image = read_image(sample.file, sample.name)
        check_size(image, sample)
        return self.loaded.processor(images=[image], return_tensors="pt"), sample.target

    @torch.inference_mode()
    def measure(self, batch: list[tuple[BatchFeature, dict[str, Any]]]) -> list[bytes]:
        """All detections, whatever their scores."""
        inputs = _padded([image for image, _ in batch]).to(self.model.device, self.model.dtype)
        # a detector drops scores that are NaN as it drops low ones, so its features are looked at too
        outputs = self.model(**inputs, output_hidden_states=True)
        for tensor in (*(outputs.get(name) for name in PREDICTIONS), *(outputs.get("hidden_states") or ())):
            if tensor is not None:
                self.check_finite(tensor)
        images = [image for _, image in batch]
        wanted = {"threshold": 0.0, "target_sizes": [(image["height"], image["width"]) for image in images]}
        detections = self.loaded.processor.post_process_object_detection(outputs, **wanted)
        if "mask" in self.kinds:
            found = self.loaded.processor.post_process_instance_segmentation(
                outputs, **wanted, return_coco_annotation=True
            )
            for detection, masks in zip(detections, found, strict=True):
                detection["masks"] = masks["segmentation"]
        return [
            zlib.compress(json.dumps(self._results(detection, image["id"])).encode())
            for detection, image in zip(detections, images, strict=True)
        ]

    def reduce(self, records: list[bytes]) -> Outcome:
        """The numbers that COCO is known for, for boxes and for masks."""
        results = [result for record in records for result in json.loads(zlib.decompress(record))]
        if not results:
            print("warning: nothing is detected on any image", file=sys.stderr)
        found = {kind: precision(self.content, results, kind) for kind in self.kinds}
        metrics = {f"{kind} {name}": value for kind in self.kinds for name, value in found[kind].summary.items()}
        classes = []
        for category, label in self.label_of.items():
            numbers = {f"{k} {name}": v for k in self.kinds for name, v in found[k].classes.get(category, {}).items()}
            objects = [a for a in self.content["annotations"] if a["category_id"] == category and not a["iscrowd"]]
            if numbers:
                classes.append({"label": label, "objects": len(objects), **numbers})
        return Outcome(metrics, {"metrics": metrics, "classes": classes, "curves": found})

    def _results(self, detection: dict[str, Any], image: int) -> list[dict[str, Any]]:
        """In COCO's format."""
        results = []
        for index, (label, score) in enumerate(
            zip(detection["labels"].tolist(), detection["scores"].tolist(), strict=True)
        ):
            if label not in self.categories:
                continue
            result = {"image_id": image, "category_id": self.categories[label], "score": score}
            if "box" in self.kinds:
                left, top, right, bottom = detection["boxes"][index].tolist()
                result["bbox"] = [left, top, right - left, bottom - top]
            if "mask" in self.kinds:
                result["segmentation"] = compressed(detection["masks"][index])
            results.append(result)
        return results


def check_size(image: Image.Image, sample: Sample) -> None:
    """Refuse an image of another size than its objects were marked on."""
    width, height = sample.target["width"], sample.target["height"]
    if image.size == (width, height):
        return
    seen = "its EXIF data turn it to {} x {}" if image.size == (height, width) else "has {} x {} pixels"
    raise InputError(
        f"{sample.name}: {seen.format(*image.size)}, the annotations are for {width} x {height}. Correct one of them."
    )


def _padded(images: list[BatchFeature]) -> BatchFeature:
    """Batches of one image each as one batch, with zeros at the right and below, as image processors pad."""
    padded = {}
    for name in images[0]:
        tensors = [image[name] for image in images]
        height, width = (max(sides) for sides in zip(*(tensor.shape[-2:] for tensor in tensors), strict=True))
        padded[name] = torch.cat([F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2])) for t in tensors])
    return BatchFeature(padded)


def _size(size: Any) -> str:
    """Of the images that the model sees."""
    return f"{size.shortest_edge} to {size.longest_edge}" if size.shortest_edge else f"{size.height} x {size.width}"
