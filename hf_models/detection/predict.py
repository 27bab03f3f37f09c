"""Detection of the objects on one image."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from ..errors import InputError
from ..mask_pasting import paste_mask, run_lengths


@dataclass(frozen=True, eq=False)
class Detection:
    """An object on an image.

    Args:
        label: Name of its class.
        score: How sure the model is, from 0 to 1.
        box: Left, top, right and bottom edge in pixels of the image.
        image_size: Height and width of the image.
        mask_grid: (side, side), how probably the cells of a grid over the box belong to the object; `None` from models
            without masks.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    image_size: tuple[int, int]
    mask_grid: torch.Tensor | None = None

    @property
    def mask(self) -> torch.Tensor | None:
        """(height, width), boolean: the pixels of the object, `None` from models without masks.

        It is computed when it is asked for: a hundred masks on a photo of 12 megapixels would take 1.2 GB.
        """
        if self.mask_grid is None:
            return None
        return paste_mask(self.mask_grid, self.mask_grid.new_tensor(self.box), self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """`label`, `score`, `box` and, if there is one, `mask` in COCO's uncompressed run lengths, for JSON."""
        content = {"label": self.label, "score": self.score, "box": list(self.box)}
        mask = self.mask
        return content if mask is None else content | {"mask": run_lengths(mask)}


@torch.inference_mode()
def detect(
    model: PreTrainedModel, processor: BaseImageProcessor, image: Image.Image, threshold: float = 0.5
) -> list[Detection]:
    """The objects on an image, found as the authors of the model test it.

    Args:
        model: A detector of this package, or one of transformers such as DETR.
        processor: Its image processor.
        image: An RGB image.
        threshold: Score above which an object is reported.

    Returns:
        The objects, the surest first.

    Raises:
        InputError: What the model returns is not finite.
    """
    inputs = processor(images=[image], return_tensors="pt").to(model.device, model.dtype)
    outputs = model(**inputs)
    if not all(outputs[name].isfinite().all() for name in ("scores", "logits") if name in outputs):
        raise InputError(f"{model.name_or_path}: its scores are not finite. Use another dtype, or convert it again.")
    size = (image.height, image.width)
    (found,) = processor.post_process_object_detection(
        outputs, threshold=threshold, target_sizes=torch.tensor([size], device=model.device)
    )
    scores, order = found["scores"].float().cpu().sort(descending=True, stable=True)
    boxes, labels = found["boxes"].float().cpu()[order].tolist(), found["labels"].cpu()[order].tolist()
    # only detectors of this package give masks; what is above the threshold comes first in their outputs
    grids = outputs["masks"][0].float().cpu()[order] if "masks" in outputs else [None] * len(scores)
    return [
        Detection(model.config.id2label[label], score, tuple(box), size, grid)
        for label, score, box, grid in zip(labels, scores.tolist(), boxes, grids, strict=True)
    ]
