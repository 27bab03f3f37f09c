"""Small models of every kind for the tests of the Hub, and the process that loads them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedModel,
    SegformerImageProcessorPil,
)

from hf_models.auto import FAMILIES
from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.image_processing_mask2former import SemanticMask2FormerImageProcessor

TINY = {
    "internimage": {"hidden_sizes": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "groups": (2, 4, 8, 16)},
    "flash_internimage": {"hidden_sizes": (32, 64, 128, 256), "depths": (1, 1, 1, 1), "groups": (2, 4, 8, 16)},
    "smt": {"hidden_sizes": (16, 24, 32, 48), "depths": (1, 1, 2, 1), "num_attention_heads": (1, 1, 4, 8)},
    "replknet": {"hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "kernel_sizes": (31, 29, 27, 13)},
    "convnext_large_kernel": {"hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 1, 1)},
    "convnextv2_large_kernel": {"hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 1, 1)},
    "convnext_dcnv4": {"hidden_sizes": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "group_width": 16},
    "convnextv2_dcnv4": {"hidden_sizes": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "group_width": 16},
    "vit_dcnv4": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        **{"image_size": 64, "patch_size": 8},
    },
}
SEGMENTERS = {
    "upernet": ("flash_internimage", {"hidden_size": 8, "auxiliary_channels": 4, "pool_scales": [1, 2]}),
    "aligned_upernet": ("replknet", {"hidden_size": 8, "auxiliary_channels": 4, "pool_scales": [1, 2]}),
    "segformer_head": ("smt", {"hidden_size": 8}),
    "mask2former": (
        "internimage",
        {
            **{"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 4},
            **{"dim_feedforward": 32, "encoder_feedforward_dim": 32, "encoder_layers": 1, "decoder_layers": 2},
            "num_queries": 6,
        },
    ),
}
CLASSIFIER_CLASSES = ("AutoModelForImageClassification", "AutoModel", "AutoBackbone")


def auto_classes(name: str) -> tuple[str, ...]:
    """The Auto classes that load a model."""
    if name not in SEGMENTERS:
        return CLASSIFIER_CLASSES
    return ("AutoModelForUniversalSegmentation" if name == "mask2former" else "AutoModelForSemanticSegmentation",)


def backbone_case(name: str, source: str, **kwargs) -> dict:
    """Loads a backbone without `AutoBackbone`, which in transformers 5.23 takes no folder and needs the Hub."""
    model_class = next(backbone for config, _, _, backbone in FAMILIES if config.model_type == name)
    reference = f"modeling_{name}.{model_class.__name__}"
    return {"name": f"{name}/AutoBackbone", "class": reference, "id": source, "kwargs": kwargs}


def tiny_model(name: str, **kwargs) -> PreTrainedModel:
    """A model with random weights, whose offsets move and whose branches all contribute."""
    torch.manual_seed(0)
    stages = [f"stage{stage}" for stage in range(1, 5)]
    if name in SEGMENTERS:
        family, head = SEGMENTERS[name]
        backbone = AutoConfig.for_model(family, **TINY[family], out_features=stages)
        config = AutoConfig.for_model(name, backbone_config=backbone, num_labels=5, **head, **kwargs)
        universal = name == "mask2former"
        auto_class = AutoModelForUniversalSegmentation if universal else AutoModelForSemanticSegmentation
    else:
        config = AutoConfig.for_model(name, **TINY[name], num_labels=10, **kwargs)
        auto_class = AutoModelForImageClassification
    model = auto_class.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model


def image_processor(name: str):
    """An image processor for 64 x 64 pixels."""
    if name == "mask2former":
        return SemanticMask2FormerImageProcessor(size={"height": 64, "width": 64}, ignore_index=255)
    if name in SEGMENTERS:
        return SegformerImageProcessorPil(size={"height": 64, "width": 64})
    return ImageNetImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})


def tiny_folder(folder: Path, name: str) -> Path:
    """A folder as training would leave it."""
    tiny_model(name).save_pretrained(folder)
    image_processor(name).save_pretrained(folder)
    return folder


def pixels() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def local_outputs(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """What the classes of a model, loaded from a folder in this process, compute: "<auto class>/<output>" -> value."""
    import transformers

    found = {}
    for auto_class in auto_classes(name):
        cls = getattr(transformers, auto_class)
        if auto_class == "AutoBackbone":  # see backbone_case
            cls = next(backbone for config, _, _, backbone in FAMILIES if config.model_type == name)
        with torch.inference_mode():
            outputs = cls.from_pretrained(folder).eval()(pixels())
        for key in ("logits", "last_hidden_state", "class_queries_logits", "masks_queries_logits"):
            if key in outputs:
                found[f"{auto_class}/{key}"] = outputs[key]
        for index, feature_map in enumerate(outputs.get("feature_maps", ())):
            found[f"{auto_class}/feature_maps{index}"] = feature_map
    return found


def kernel_arguments() -> dict[str, torch.Tensor]:
    """What the deformable operator takes: value, offset and weight."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"value": (1, 8, 8, 2, 16), "offset": (1, 8, 8, 2, 9, 2), "weight": (1, 8, 8, 2, 9)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def run_client(
    work: Path,
    environment: dict[str, str],
    cases: list[dict],
    *,
    absent: list[str],
    present: Sequence[str] = (),
    kernels: bool = False,
    get_kernel: dict[str, str] | None = None,
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Run hub_client.py; returns what it tells, and its outputs.

    Args:
        work: Folder for its files.
        environment: Variables beside those of this process.
        cases: What to load; see there.
        absent: Modules that it must not have.
        present: Modules that it imports first.
        kernels: Whether it tells which kernels run.
        get_kernel: `id` and `revision` of a kernel that it loads by itself, without a model.
    """
    work.mkdir(parents=True, exist_ok=True)
    save_file({"pixel_values": pixels(), **kernel_arguments()}, work / "input.safetensors")
    spec = {"absent": absent, "present": list(present), "cases": cases, "kernels": kernels}
    spec |= {"get_kernel": get_kernel}
    spec |= {"input": str(work / "input.safetensors"), "output": str(work / "output.safetensors")}
    spec["told"] = str(work / "told.json")
    (work / "spec.json").write_text(json.dumps(spec))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LOCAL_KERNELS"))}
    client = Path(__file__).with_name("hub_client.py")
    done = subprocess.run(
        [sys.executable, "-I", str(client), str(work / "spec.json")],
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((work / "told.json").read_text()), load_file(work / "output.safetensors")
