"""Small segmentation checkpoints in mmseg's format, with seeded weights, for every family and head."""

import copy
import json
from pathlib import Path

import torch

from .conversion_tester import read_manifest
from .seeded_checkpoint import seeded_array

FIXTURES = Path(__file__).parents[1] / "fixtures" / "segmentation"
CLASSES = 5
NORM = {"type": "SyncBN", "requires_grad": True}
# family -> a small classifier of the fixtures, and the prefixes of what its backbone does not have
BACKBONES = {
    "internimage": ("internimage_tiny_l", ("head.", "conv_head.")),
    "internimage_h": ("internimage_tiny_h", ("head.", "clip_projector.", "fc_norm.", "dcnv3_head_")),
    "flash_internimage": ("flash_internimage_tiny_b", ("head.", "conv_head.")),
    "replknet": ("replknet_31_like", ("head.", "norm.")),
    "smt": ("smt_tiny_like", ("head.",)),
}


def golden(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def conv_norm(name: str, out: int, width: int, kernel: int) -> dict[str, list[int]]:
    """mmcv's ConvModule."""
    norms = {f"{name}.bn.{leaf}": [out] for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.conv.weight": [out, width, kernel, kernel], **norms, f"{name}.bn.num_batches_tracked": []}


def classifier(name: str, width: int) -> dict[str, list[int]]:
    return {f"{name}.conv_seg.weight": [CLASSES, width, 1, 1], f"{name}.conv_seg.bias": [CLASSES]}


def upernet(channels: list[int], auxiliary: bool = True, align_corners: bool = False) -> tuple[dict, dict]:
    """Names and shapes of a UPerHead with 8 channels, and its part of the `model` dict."""
    shapes = classifier("decode_head", 8)
    for i in range(2):
        shapes |= conv_norm(f"decode_head.psp_modules.{i}.1", 8, channels[-1], 1)
    shapes |= conv_norm("decode_head.bottleneck", 8, channels[-1] + 16, 3)
    for i, width in enumerate(channels[:-1]):
        shapes |= conv_norm(f"decode_head.lateral_convs.{i}", 8, width, 1)
        shapes |= conv_norm(f"decode_head.fpn_convs.{i}", 8, 8, 3)
    shapes |= conv_norm("decode_head.fpn_bottleneck", 8, 32, 3)
    shared = {"num_classes": CLASSES, "norm_cfg": NORM, "align_corners": align_corners, "dropout_ratio": 0.1}
    head = {
        "type": "UPerHead",
        "in_channels": channels,
        "in_index": [0, 1, 2, 3],
        "pool_scales": [1, 3],
        "channels": 8,
    }
    config = {"decode_head": head | shared}
    if auxiliary:
        shapes |= classifier("auxiliary_head", 4)
        shapes |= conv_norm("auxiliary_head.convs.0", 4, channels[2], 3)
        shapes |= conv_norm("auxiliary_head.convs.1", 4, 4, 3) | conv_norm(
            "auxiliary_head.conv_cat", 4, channels[2] + 4, 3
        )
        head = {"type": "FCNHead", "in_channels": channels[2], "in_index": 2, "channels": 4}
        config["auxiliary_head"] = head | shared
    return shapes, config


def segformer_head(channels: list[int]) -> tuple[dict, dict]:
    shapes = classifier("decode_head", 8)
    for i, width in enumerate(channels):
        shapes |= conv_norm(f"decode_head.convs.{i}", 8, width, 1)
    shapes |= conv_norm("decode_head.fusion_conv", 8, 32, 1)
    head = {"type": "SegformerHead", "in_channels": channels, "in_index": [0, 1, 2, 3], "channels": 8}
    return shapes, {"decode_head": head | {"num_classes": CLASSES, "norm_cfg": NORM, "align_corners": False}}


def mask2former(channels: list[int]) -> tuple[dict, dict]:
    """The head of the golden for a backbone of any width, with the 32 groups that transformers has."""
    head = golden("mask2former_h_like")["model_cfg"]["decode_head"]
    head["in_channels"] = channels
    head["pixel_decoder"]["norm_cfg"]["num_groups"] = 32
    shapes = {name: list(tensor.shape) for name, tensor in golden_tensors("mask2former_h_like").items()}
    shapes["decode_head.pixel_decoder.lateral_convs.0.conv.weight"][1] = channels[0]
    for i, width in enumerate(reversed(channels[1:])):
        shapes[f"decode_head.pixel_decoder.input_convs.{i}.conv.weight"][1] = width
    return shapes, {"decode_head": head}


def golden_tensors(name: str, expected: bool = False) -> dict[str, torch.Tensor]:
    """The stored weights of the head, or what the original computed."""
    from safetensors.torch import load_file

    tensors = load_file(FIXTURES / f"{name}.safetensors")
    return {k.removeprefix("expected."): v for k, v in tensors.items() if k.startswith("expected.") == expected}


HEADS = {"upernet": upernet, "segformer_head": segformer_head, "mask2former": mask2former}


def checkpoint(family: str, head: str, seed: int = 0, **kwargs) -> tuple[dict[str, torch.Tensor], dict]:
    """A state dict in mmseg's format, and the `model` dict that it was built from."""
    shapes, arguments, channels = backbone(family, kwargs.pop("feature_norms", False))
    others, heads = HEADS[head](channels, **kwargs)
    state = seeded_state(shapes | others, seed)
    config = {"type": "EncoderDecoder", "pretrained": None, "test_cfg": {"mode": "whole"}, **heads}
    config["backbone"] = {"type": "Backbone", "out_indices": [0, 1, 2, 3], **arguments}
    return state, copy.deepcopy(config)


def seeded_state(shapes: dict[str, list[int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Values for names and shapes."""
    return {
        name: torch.from_numpy(seeded_array(name, tuple(shape), _dtype(name), seed)).reshape(shape)
        for name, shape in shapes.items()
    }


def backbone(family: str, feature_norms: bool = False) -> tuple[dict[str, list[int]], dict, list[int]]:
    """Names and shapes of a backbone, the arguments that it was built from, and the channels of its stages."""
    name, prefixes = BACKBONES[family]
    manifest = read_manifest(name)
    shapes = {f"backbone.{n}": shape for n, (shape, _) in manifest["tensors"].items() if not n.startswith(prefixes)}
    arguments = {
        k: v for k, v in manifest["config"].items() if k not in ("family", "num_classes", "use_clip_projector", "head")
    }
    channels = _channels(arguments)
    if feature_norms:
        arguments["norm_intermediate_features"] = True
        for i, width in enumerate(channels):
            norm = {n: s for n, s in conv_norm("x", width, 1, 1).items() if ".bn." in n}
            shapes |= {n.replace("x.bn", f"backbone.stages.{i}.norm"): shape for n, shape in norm.items()}
    return shapes, arguments, channels


def write_checkpoint(folder: Path, state: dict, config: dict, name: str = "original") -> tuple[Path, Path]:
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, folder / f"{name}.pth")
    (folder / f"{name}.json").write_text(json.dumps(config))
    return folder / f"{name}.pth", folder / f"{name}.json"


def _channels(arguments: dict) -> list[int]:
    widths = arguments.get("channels", arguments.get("embed_dims"))
    return widths if isinstance(widths, list) else [widths * 2**stage for stage in range(4)]


def _dtype(name: str) -> str:
    return "int64" if name.endswith("num_batches_tracked") else "float32"
