"""Models from a folder or the Hub, without ever running code that comes with them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel
from transformers.utils import logging

from ..errors import InputError, reason
from ..image_processing_imagenet import ImageNetImageProcessor
from .hub_requests import limited_requests
from .names import check_model
from .weight_files import weight_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # by the names of options
CLASSIFIER, SEGMENTER, DETECTOR = "an image classifier", "a segmentation model", "a detector"
KINDS = {"AutoModelForImageClassification": CLASSIFIER, "AutoModelForObjectDetection": DETECTOR}  # others segment


def load_model(
    source: str | Path, auto_class: type, dtype: torch.dtype = torch.float32
) -> tuple[BaseImageProcessor, PreTrainedModel]:
    """Load an image processor and a model for inference.

    Args:
        source: Folder or Hub id.
        auto_class: Such as AutoModelForImageClassification.

    Raises:
        InputError: There is no such model in `source`, or a part of its weights is missing.
    """
    with loading(source, KINDS.get(auto_class.__name__, SEGMENTER)):
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    model = load_weights(source, auto_class, dtype)
    if isinstance(processor, ImageNetImageProcessor):  # it may have been saved before the model took other channels
        processor.fit_channels(getattr(model.config, "num_channels", 3))
    return processor, model


def load_weights(source: str | Path, auto_class: type, dtype: torch.dtype) -> PreTrainedModel:
    """The model alone; see [`load_model`]."""
    with loading(source, KINDS.get(auto_class.__name__, SEGMENTER)):
        weight_files(Path(source))  # an index could name files outside, which transformers would load
        model, info = auto_class.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
    for what, names in (("missing", info["missing_keys"]), ("of another shape", info["mismatched_keys"])):
        if names := sorted(map(str, names)):
            raise InputError(
                f"{source}: {len(names)} weights are {what}, such as {names[0]}. Convert or train it first."
            )
    if list(model.config.id2label) != list(range(model.config.num_labels)):
        raise InputError(f"{source}: id2label of its config does not name the classes 0, 1, 2, .... Correct it.")
    return model.eval()


@contextmanager
def loading(source: str | Path, kind: str) -> Iterator[None]:
    """Turn what transformers raises into an [`InputError`], without its reports and progress bars.

    What is called inside must pass `trust_remote_code=False`: code that comes with a model never runs, and nobody is
    asked whether it may.

    Args:
        source: Folder or Hub id.
        kind: What is loaded.
    """
    check_model(source)
    progress_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with limited_requests():
            yield
    except InputError:
        raise
    except Exception as error:  # the library checks what it reads only in part
        # it follows its first line with many of advice; a config's error says what on its second line
        why = reason(error) if isinstance(error, StrictDataclassError) else str(error).strip().partition("\n")[0]
        if named := re.search(r"GLOBAL (\S+)", str(error)):  # PyTorch's first line is how to run it anyway
            why = f"its weights are a pickle that would call {named[1]}"
        advice = "" if Path(source).is_dir() else " Check the name, and the connection to the Hub."
        raise InputError(f"{source}: cannot be loaded as {kind} ({why or type(error).__name__}).{advice}") from error
    finally:
        logging.set_verbosity(verbosity)
        if progress_bars:
            logging.enable_progress_bar()
