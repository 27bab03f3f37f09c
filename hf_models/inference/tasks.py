"""What a model is for."""

import transformers
from transformers import PreTrainedConfig

# Auto class of models with a head -> their pipeline tag on the Hub. Where several load a config, the first is taken.
TASKS = {
    "AutoModelForUniversalSegmentation": "image-segmentation",
    "AutoModelForSemanticSegmentation": "image-segmentation",
    "AutoModelForImageClassification": "image-classification",
}


def auto_class_of(config: PreTrainedConfig) -> type | None:
    """The Auto class that loads models with this config and a head; `None` where none of `TASKS` does."""
    auto_classes = (getattr(transformers, name) for name in TASKS)
    return next((auto_class for auto_class in auto_classes if type(config) in auto_class._model_mapping), None)


def task_of(config: PreTrainedConfig) -> str | None:
    """The pipeline tag of models with this config, such as `"image-classification"`."""
    auto_class = auto_class_of(config)
    return auto_class and TASKS[auto_class.__name__]


def model_class_of(config: PreTrainedConfig) -> type | None:
    """The class of models with this config and a head."""
    auto_class = auto_class_of(config)
    return auto_class and auto_class._model_mapping[type(config)]
