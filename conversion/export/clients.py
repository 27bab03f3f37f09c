"""Config and image processor of an ONNX folder, under names that the clients of such folders know.

optimum's ORTModel classes and transformers.js run any ONNX model of an interface that they know, but they choose the
interface by `model_type`, `architectures` and `image_processor_type`, from lists that they carry. So an exported
folder bears the names of a model of transformers with the same inputs and outputs, and its own config as
`exported_from`.
"""

import json
from dataclasses import dataclass
from typing import Any

import transformers
from transformers import BaseImageProcessor, PreTrainedConfig

from hf_models.inference.tasks import auto_class_of

# what a processor of any type says of values, not of sizes
VALUES = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


@dataclass(frozen=True)
class Interface:
    """Names in optimum 2.1 and transformers.js 4.3 of what takes `pixel_values` and returns `outputs`."""

    model_type: str
    architecture: str
    image_processor_type: str
    outputs: tuple[str, ...] = ("logits",)


INTERFACES = {
    "AutoModelForImageClassification": Interface("resnet", "ResNetForImageClassification", "BitImageProcessor"),
    "AutoModelForSemanticSegmentation": Interface(
        "segformer", "SegformerForSemanticSegmentation", "SegformerImageProcessor"
    ),
    # optimum has no class for it
    "AutoModelForUniversalSegmentation": Interface(
        "maskformer",
        "MaskFormerForInstanceSegmentation",
        "MaskFormerImageProcessor",
        ("class_queries_logits", "masks_queries_logits"),
    ),
}


def interface_of(config: PreTrainedConfig) -> Interface:
    """The interface of the models with this config."""
    return INTERFACES[auto_class_of(config).__name__]


def client_config(config: PreTrainedConfig) -> dict[str, Any]:
    """What `config.json` says: the interface, the labels, and the model's own config as `exported_from`."""
    interface = interface_of(config)
    own = json.loads(config.to_json_string())
    for name in ("auto_map", "id2label", "label2id"):
        own.pop(name, None)
    problem = {"problem_type": config.problem_type} if config.problem_type else {}
    return {
        "model_type": interface.model_type,
        "architectures": [interface.architecture],
        "id2label": config.id2label,
        "label2id": config.label2id,
        **problem,
        "transformers.js_config": {"dtype": "fp32"},  # the name of the file: in browsers it asks for another one
        "exported_from": own,
    }


def client_processor(
    processor: BaseImageProcessor, config: PreTrainedConfig, height: int, width: int
) -> dict[str, Any]:
    """What `preprocessor_config.json` says.

    Args:
        processor: That of the model.
        config: That of the model.
        height: Of the images that the exported model takes, in pixels; `width` likewise. Clients know no sliding
            windows and no multiples of a stride, so they resize what is to be segmented to this size.
    """
    interface = interface_of(config)
    own = json.loads(processor.to_json_string())
    if interface is not INTERFACES["AutoModelForImageClassification"]:
        size = {"height": height, "width": width}
        own = {name: own[name] for name in VALUES if name in own} | {"do_resize": True, "size": size}
        return {"image_processor_type": interface.image_processor_type, **own}
    # transformers 5 has each processor for Pillow and for tensors; clients know the name without the ending
    name = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
    return own | {"image_processor_type": name if hasattr(transformers, name) else interface.image_processor_type}
