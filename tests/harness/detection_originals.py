"""Detection checkpoints in mmdet's format: names and shapes of the published ones, and small ones with values."""

import copy
import gzip
import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_models.conversion.reading.checkpoint import Checkpoint
from hf_models.conversion.reading.source import Source

from .segmentation_tester import backbone, conv_norm, seeded_state

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
# name -> the published checkpoint, the model dict of its config, the number of parameters, the shapes of its tensors
MANIFESTS = json.loads(gzip.decompress((FIXTURES / "manifests.json.gz").read_bytes()))


def shapes_of(name: str) -> dict[str, list[int]]:
    """Name -> shape of a published checkpoint's tensors; of those with the same, one has them written out."""
    shapes = MANIFESTS[name]["tensors"]
    return shapes_of(shapes) if isinstance(shapes, str) else shapes


def opened(name: str, given: str | None = None) -> Checkpoint:
    """A published checkpoint of which only names and shapes exist."""
    tensors = {
        key: torch.empty(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else None, device="meta")
        for key, shape in shapes_of(name).items()
    }
    return Checkpoint(Source(given or f"{name}.pth", []), "model", tensors, {}, {}, [])


@cache
def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """A small detector that the original code ran: what is known of it, and tensors of all steps."""
    stored = json.loads((FIXTURES / f"det_{name}.json").read_text())
    return stored, load_file(FIXTURES / f"det_{name}.safetensors")


def golden_checkpoint(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The state dict of a golden, and its model dict."""
    stored, tensors = golden(name)
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    return weights, copy.deepcopy(stored["model_cfg"])


def small_checkpoint(family: str, kind: str) -> tuple[dict[str, torch.Tensor], dict]:
    """A small state dict with seeded values, and the model dict that it was built from.

    Args:
        family: Of the backbone, as in `segmentation_tester.BACKBONES`; or "cb_internimage_h".
        kind: "mask_rcnn", "cascade" (without masks), "cascade_masks", "fcos", "dino", or "dino_strips" with the
            feed-forward networks of InternImage-G.
    """
    shapes, arguments, channels = backbone(family.removeprefix("cb_"), feature_norms=family == "replknet")
    if family.startswith("cb_"):
        shapes = composite(shapes, channels)
    if kind.startswith("dino"):
        others, config = dino(channels, kind)
    else:
        others, config = fcos(channels) if kind == "fcos" else rcnn(channels, kind, family)
    seen = [1, 2, 3] if kind.startswith("dino") else [0, 1, 2, 3]
    if family.startswith("cb_"):
        config |= {"type": "CBDINO", "neck": [config["neck"] | {"type": "CBChannelMapper"}]}
        others = {name.replace("neck.", "neck.0."): shape for name, shape in others.items()}
        seen = [[0, 1, 2, 3], seen]
    config["backbone"] = {"type": "Backbone", "out_indices": seen, **arguments}
    return seeded_state(shapes | others), config


def composite(shapes: dict[str, list[int]], channels: list[int]) -> dict[str, list[int]]:
    """Two of a backbone as one, the second without a stem."""
    inside = {name.removeprefix("backbone."): shape for name, shape in shapes.items()}
    found = {f"backbone.cb_modules.0.{name}": shape for name, shape in inside.items()}
    found |= {f"backbone.cb_modules.1.{name}": shape for name, shape in inside.items() if "patch_embed" not in name}
    for i, width in enumerate(channels):
        found[f"backbone.cb_modules.1.gamma{i}"] = [width]
        for j, higher in enumerate(channels[i + 1 :], start=1):
            found |= conv(f"backbone.cb_linears.{i}.{j}", width, higher, 1)
    return found


def conv(name: str, out: int, width: int, kernel: int) -> dict[str, list[int]]:
    return {f"{name}.weight": [out, width, kernel, kernel], f"{name}.bias": [out]}


def linear(name: str, out: int, width: int) -> dict[str, list[int]]:
    return {f"{name}.weight": [out, width], f"{name}.bias": [out]}


def rcnn(channels: list[int], kind: str, family: str) -> tuple[dict[str, list[int]], dict]:
    """The neck and the heads, 16 channels wide, for 5 classes; FlashInternImage has norms in the neck."""
    config = golden_checkpoint("mask_rcnn_t_like")[1]
    del config["backbone"]
    config["neck"]["in_channels"] = channels
    shapes = {}
    for name, kernel in (("lateral_convs", 1), ("fpn_convs", 3)):
        for i, width in enumerate(channels):
            layer = conv(f"neck.{name}.{i}.conv", 16, width if kernel == 1 else 16, kernel)
            if family == "flash_internimage":
                config["neck"] |= {"type": "FPN_vitdet", "norm_cfg": {"type": "LN"}, "use_residual": True}
                del layer[f"neck.{name}.{i}.conv.bias"]
                layer |= {f"neck.{name}.{i}.ln.{leaf}": [16] for leaf in ("weight", "bias")}
            shapes |= layer
    shapes |= conv("rpn_head.rpn_conv", 16, 16, 3) | conv("rpn_head.rpn_cls", 3, 16, 1)
    shapes |= conv("rpn_head.rpn_reg", 12, 16, 1)
    cascade = kind.startswith("cascade")
    roi_head = config["roi_head"]
    for stage in ("0.", "1.", "2.") if cascade else ("",):
        box, mask = f"roi_head.bbox_head.{stage}", f"roi_head.mask_head.{stage}"
        for i in range(4 * cascade):
            shapes |= conv_norm(f"{box}shared_convs.{i}", 16, 16, 3)
        shapes |= linear(f"{box}shared_fcs.0", 32, 16 * 49)
        if not cascade:
            shapes |= linear(f"{box}shared_fcs.1", 32, 32)
        shapes |= linear(f"{box}fc_cls", 6, 32) | linear(f"{box}fc_reg", 20, 32)
        if kind != "cascade":
            for i in range(4):
                shapes |= conv(f"{mask}convs.{i}.conv", 16, 16, 3)
            shapes |= conv(f"{mask}upsample", 16, 16, 2) | conv(f"{mask}conv_logits", 5, 16, 1)
    if cascade:
        config["type"] = "CascadeRCNN"
        head = roi_head["bbox_head"] | {"type": "ConvFCBBoxHead", "num_shared_convs": 4, "num_shared_fcs": 1}
        head |= {"conv_out_channels": 16, "norm_cfg": {"type": "SyncBN", "requires_grad": True}}
        stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        heads = [head | {"bbox_coder": head["bbox_coder"] | {"target_stds": part}} for part in stds]
        roi_head |= {"type": "CascadeRoIHead", "num_stages": 3, "bbox_head": heads}
    if kind == "cascade":
        del roi_head["mask_head"]  # some configs keep its extractor, of which the original then makes nothing
    return shapes, config


def fcos(channels: list[int]) -> tuple[dict[str, list[int]], dict]:
    """The neck and the head, 16 channels wide, for 5 classes."""
    shapes = {}
    for i, width in enumerate(channels[1:]):
        shapes |= conv(f"neck.lateral_convs.{i}.conv", 16, width, 1)
    for i in range(5):
        shapes |= conv(f"neck.fpn_convs.{i}.conv", 16, 16, 3) | {f"bbox_head.scales.{i}.scale": []}
    for tower in ("cls_convs", "reg_convs"):
        for i in range(2):
            shapes[f"bbox_head.{tower}.{i}.conv.weight"] = [16, 16, 3, 3]
            shapes |= {f"bbox_head.{tower}.{i}.gn.{leaf}": [16] for leaf in ("weight", "bias")}
    for name, out in (("cls", 5), ("reg", 4), ("centerness", 1)):
        shapes |= conv(f"bbox_head.conv_{name}", out, 16, 3)
    neck = {"type": "FPN", "in_channels": channels, "out_channels": 16, "start_level": 1, "num_outs": 5}
    head = {"type": "FCOSHead", "num_classes": 5, "in_channels": 16, "stacked_convs": 2, "feat_channels": 16}
    head |= {"strides": [8, 16, 32, 64, 128], "norm_cfg": {"type": "GN", "num_groups": 4, "requires_grad": True}}
    test = {"nms_pre": 100, "min_bbox_size": 0, "score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}}
    return shapes, {
        "type": "FCOS",
        "neck": neck | {"add_extra_convs": "on_output", "relu_before_extra_convs": True},
        "bbox_head": head | {"loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0}},
        "test_cfg": test | {"max_per_img": 10},
    }


def dino(channels: list[int], kind: str) -> tuple[dict[str, list[int]], dict]:
    """The head of the golden for a backbone of any width."""
    weights, config = golden_checkpoint("dino_t_like")
    del config["backbone"]
    config["neck"]["in_channels"] = channels[1:]
    if kind == "dino_strips":
        weights = in_strips(weights, config)
    shapes = {name: list(value.shape) for name, value in weights.items() if not name.startswith("backbone.")}
    for i, width in enumerate(channels[1:]):
        shapes[f"neck.convs.{i}.conv.weight"][1] = width
    shapes["neck.extra_convs.0.conv.weight"][1] = channels[-1]
    return shapes, config


STRIPS = (
    (".layers.0.0.weight", "fc1_{}.weight", 0),
    (".layers.0.0.bias", "fc1_{}.bias", 0),
    (".layers.1.weight", "fc2_{}.weight", 1),
)


def in_strips(weights: dict[str, torch.Tensor], config: dict) -> dict[str, torch.Tensor]:
    """The same DINO with feed-forward networks cut into four strips, as InternImage-G has them; changes the config."""
    transformer = config["bbox_head"]["transformer"]
    for part in ("encoder", "decoder"):
        transformer[part]["transformerlayers"]["ffn_cfgs"]["type"] = "EfficientFFN"
    found = {}
    for name, value in weights.items():
        for end, strip, axis in STRIPS:
            if name.endswith(f".ffns.0{end}"):
                parts = value.chunk(4, axis)
                found |= {f"{name.removesuffix(end)}.{strip.format(i)}": part.clone() for i, part in enumerate(parts)}
                break
        else:
            found[name.replace(".ffns.0.layers.1.bias", ".ffns.0.fc2_bias")] = value
    return found
