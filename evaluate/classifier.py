"""What all evaluations of image classifiers share."""

import torch
from PIL import Image
from transformers import BaseImageProcessor
from transformers.image_utils import SizeDict

from hf_models.errors import InputError
from hf_models.inference.images import read_image

from .checkpoint import Loaded
from .data.images import Sample, Selection
from .evaluation import Evaluation


class ClassifierEvaluation(Evaluation):
    """An evaluation of the logits of single images.

    Args:
        upright: Whether photos are turned as their EXIF data say.
        depends_on: As for [`Evaluation`], as for `options`.
    """

    def __init__(
        self, loaded: Loaded, selection: Selection, upright: bool, depends_on: dict[str, str], options: str = ""
    ):
        self.upright = upright
        super().__init__(loaded, selection, size=_size(loaded.processor), options=options, depends_on=depends_on)

    def read(self, sample: Sample) -> Image.Image:
        """The image, in the channels that the model takes."""
        channels = getattr(self.loaded.processor, "channels", 3)
        return read_image(sample.file, sample.name, upright=self.upright, channels=channels)

    def prepare_image(self, sample: Sample) -> torch.Tensor:
        """The image as the model sees it, (channels, H, W)."""
        return self.loaded.processor(self.read(sample), return_tensors="pt").pixel_values[0]

    @torch.inference_mode()
    def logits(self, images: list[torch.Tensor]) -> torch.Tensor:
        """(batch_size, num_labels) in float32, all finite."""
        if len({image.shape for image in images}) > 1:
            raise InputError(
                f"{self.loaded.name}: its image processor makes images of many sizes. Use --batch-size 1."
            )
        pixel_values = torch.stack(images).to(self.model.device, self.model.dtype)
        logits = self.model(pixel_values=pixel_values).logits.float()
        self.check_finite(logits)
        return logits


def best_outputs(logits: torch.Tensor, number: int) -> torch.Tensor:
    """The outputs with the largest logits, (batch_size, number), best first.

    Of equal logits the first counts, as for argmax; `topk` may name any of them.
    """
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :number]


def size_seen(processor: BaseImageProcessor) -> SizeDict:
    """The size of the images that the model sees; only `shortest_edge` where they are not cropped to one shape."""
    return processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size


def _size(processor: BaseImageProcessor) -> str:
    """For tables."""
    size = size_seen(processor)
    return f"{size.height} x {size.width}" if size.height else f"shortest edge {size.shortest_edge}"
