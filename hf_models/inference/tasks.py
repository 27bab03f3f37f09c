"""What a model is for."""

from pathlib import Path

import transformers
from transformers import PreTrainedConfig

from ..errors import InputError

# Auto class of models with a head -> their pipeline tag on the Hub. Where several load a config, the one for the class
# that was saved is taken, or else the first.
TASKS = {
    "AutoModelForObjectDetection": "object-detection",
    "AutoModelForUniversalSegmentation": "image-segmentation",
    "AutoModelForSemanticSegmentation": "image-segmentation",
    "AutoModelForImageClassification": "image-classification",
}
# of `hf-models`, for each task
COMMANDS = {
    "object-detection": "detect",
    "image-segmentation": "segment",
    "image-classification": "classify",
}


def auto_class_of(config: PreTrainedConfig) -> type | None:
    """The Auto class of `TASKS` that loads models with this config and a head; `None` where none does."""
    auto_classes = (getattr(transformers, name) for name in TASKS)
    fitting = [auto_class for auto_class in auto_classes if type(config) in auto_class._model_mapping]
    saved = [name.removeprefix("Hub") for name in config.architectures or ()]
    named = (auto_class for auto_class in fitting if auto_class._model_mapping[type(config)].__name__ in saved)
    return next(named, fitting[0] if fitting else None)


def task_of(config: PreTrainedConfig) -> str | None:
    """The pipeline tag of models with this config, such as `"image-classification"`."""
    auto_class = auto_class_of(config)
    return auto_class and TASKS[auto_class.__name__]


def model_class_of(config: PreTrainedConfig) -> type | None:
    """The class of models with this config and a head."""
    auto_class = auto_class_of(config)
    return auto_class and auto_class._model_mapping[type(config)]


def check_task(source: str | Path, config: PreTrainedConfig, task: str) -> None:
    """Refuse a model that is for another task.

    Args:
        source: What the user calls the model.
        config: Its config. A stock config may serve several tasks, as SegFormer's does.
        task: The pipeline tag of the task that is wanted.

    Raises:
        InputError: The model is for another task, whose command the message names.
    """
    tasks = {tag for name, tag in TASKS.items() if type(config) in getattr(transformers, name)._model_mapping}
    if tasks and task not in tasks:
        other = min(tasks)
        raise InputError(f"{source}: is for {other}, not for {task}. Use `hf-models {COMMANDS[other]}`.")
