"""Loading a detector and its image processor."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForObjectDetection, BaseImageProcessor, PreTrainedModel

from ..errors import InputError
from ..inference.loading import DETECTOR, load_model, loading
from ..inference.names import model_folder
from ..inference.tasks import check_task


def load_detector(model: str | Path, dtype: torch.dtype = torch.float32) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load a detector, of this package or of transformers, and its image processor.

    Args:
        model: Folder or Hub id.
        dtype: Type of the weights.

    Raises:
        InputError: It cannot be loaded as a detector.
    """
    folder = model_folder(model)
    with loading(folder, DETECTOR):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_task(model, config, "object-detection")
    processor, detector = load_model(folder, AutoModelForObjectDetection, dtype)
    if not hasattr(processor, "post_process_object_detection"):
        raise InputError(f"{model}: its {type(processor).__name__} finds no boxes. Save the detector's own beside it.")
    return processor, detector
