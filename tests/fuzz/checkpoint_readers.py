"""Readers of checkpoints, arguments and model folders, for the fuzzer."""

import argparse
import io
import json
import os
import random
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from mutate import mutate_json, mutate_value
from safetensors.torch import save
from transformers import AutoModelForImageClassification

from hf_models.conversion import convert, verify
from hf_models.conversion.heads.head import BackboneWithHead
from hf_models.conversion.plan import _config_from_original, make_plan
from hf_models.conversion.reading.checkpoint import Checkpoint, open_checkpoint
from hf_models.conversion.reading.original_config import read_original_config
from hf_models.conversion.reading.source import Source, find_source
from hf_models.conversion.registry import FAMILIES, HEADS
from hf_models.conversion.writing.output import check_output
from hf_models.errors import InputError
from hf_models.inference.files import read_json
from hf_models.inference.loading import load_model
from hf_models.inference.weight_files import inside

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from seeded_checkpoint import save_checkpoint

MANIFESTS = Path(__file__).parents[1] / "fixtures" / "parity" / "manifests"
DETECTION = Path(__file__).parents[1] / "fixtures" / "detection"
Random = random.Random


class Bomb:
    """Unpickled without care, it makes a folder that the fuzzer sees."""

    def __reduce__(self):
        return os.mkdir, ("bomb went off",)


def manifest(name: str = "internimage_tiny_l") -> dict:
    return json.loads((MANIFESTS / f"{name}.json").read_text())


def small_state() -> dict[str, torch.Tensor]:
    return {
        "levels.0.blocks.0.dcn.offset.weight": torch.arange(6.0).view(2, 3),
        "head.bias": torch.arange(4.0),
        "norm.num_batches_tracked": torch.tensor(3),
    }


def checkpoints() -> list[Any]:
    """What checkpoints hold, harmless and not."""
    state = small_state()
    both = torch.arange(8.0)
    strange = {
        "int": torch.zeros(2, dtype=torch.int8),
        "half": torch.zeros(2).half(),
        "shared": both[:4],
        "sparse": torch.zeros(3).to_sparse(),
        "strided": torch.zeros(4, 4).t(),
        "expanded": torch.zeros(1).expand(1000),
        "complex": torch.zeros(2, dtype=torch.cfloat),
        "parameter": torch.nn.Parameter(both),
    }
    return [
        state,
        {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        {"model": state, "model_ema": state, 5: "a key that is a number"},
        {"state_dict": OrderedDict(state), "optimizer": {"state": [1, 2.5, None, "x", (1, 2)]}},
        strange,
        {"model": Bomb()},
    ]


def saved(content: Any, **kwargs) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def read_checkpoint(data: bytes, name: str = "x.pth") -> None:
    Path(name).write_bytes(data)
    checkpoint = open_checkpoint(Source(name, [Path(name)]))
    checkpoint.read(checkpoint.tensors)


def pickles_in_zips() -> list[bytes]:
    contents = [saved(content) for content in checkpoints()]
    return [next(zipfile.ZipFile(io.BytesIO(c)).open(n).read() for n in ["archive/data.pkl"]) for c in contents]


def read_pickle_in_zip(data: bytes) -> None:
    """A whole zip around a damaged pickle, which the damage of zips would hide."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for i in range(8):
            archive.writestr(f"archive/data/{i}", bytes(range(64)))
        archive.writestr("archive/version", "3\n")
    read_checkpoint(file.getvalue())


def safetensors_headers() -> list[dict]:
    data = save(small_state())
    return [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])]


def read_safetensors_header(data: bytes) -> None:
    read_checkpoint(len(data).to_bytes(8, "little") + data + bytes(48), "x.safetensors")


def indexes() -> list[dict]:
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    return [
        {"metadata": {"total_size": 56}, "weight_map": dict(zip(small_state(), (*shards, shards[1]), strict=True))}
    ]


def read_index(data: bytes) -> None:
    state = list(small_state().items())
    Path("config.json").write_text("{}")
    Path("model-00001-of-00002.safetensors").write_bytes(save(dict(state[:1])))
    Path("model-00002-of-00002.safetensors").write_bytes(save(dict(state[1:])))
    Path("model.safetensors.index.json").write_bytes(data)
    open_checkpoint(find_source("."))


def upstream_folders() -> list[dict]:
    config = {key: value for key, value in manifest()["config"].items() if key != "family"}
    return [{"config": config, "preprocessor": {"size": 96, "crop_size": 80, "resample": 3, "image_mean": [0.5] * 3}}]


def read_upstream_folder(data: dict) -> None:
    Path("config.json").write_bytes(data["config"])
    Path("preprocessor_config.json").write_bytes(data["preprocessor"])
    Path("model.safetensors").write_bytes(b"x")
    find_source(".")


def arguments() -> list[dict]:
    names = (
        "internimage_tiny_l",
        "internimage_tiny_h",
        "flash_internimage_tiny_t",
        "smt_tiny_like",
        "replknet_31_like",
    )
    return [manifest(name)["config"] for name in names]


def read_arguments(data: bytes) -> None:
    """The arguments of an original constructor, for each family, and what the config shows."""
    Path("arguments.json").write_bytes(data)
    original = read_json(Path("arguments.json"))
    for family in FAMILIES.values():
        try:
            config = _config_from_original(family, original, family.facts({}), "arguments.json")
        except InputError:
            continue
        family.facts_of_config(config)


def model_dicts() -> list[dict]:
    """Configs of mmseg and mmdet."""
    backbone = {"type": "InternImage", **{k: v for k, v in arguments()[0].items() if k != "family"}}
    norm = {"type": "SyncBN", "requires_grad": True}
    upernet = {
        "type": "UPerHead", "in_channels": [16, 32, 64, 128], "in_index": [0, 1, 2, 3], "pool_scales": [1, 2, 3, 6],
        "channels": 64, "dropout_ratio": 0.1, "num_classes": 150, "norm_cfg": norm, "align_corners": False,
    }  # fmt: skip
    fcn = {
        "type": "FCNHead", "in_channels": 64, "in_index": 2, "channels": 32, "num_convs": 1, "concat_input": False,
        "num_classes": 150, "norm_cfg": norm, "align_corners": False,
    }  # fmt: skip
    shared = {"type": "EncoderDecoder", "pretrained": None, "backbone": backbone}
    slide = {"mode": "slide", "crop_size": [512, 512], "stride": [341, 341]}
    segmenters = [
        {**shared, "decode_head": upernet, "auxiliary_head": fcn, "test_cfg": cfg}
        for cfg in (slide, {"mode": "whole"})
    ]
    goldens = [json.loads(path.read_text()) for path in sorted(DETECTION.glob("det_*_t_like.json"))]
    detectors = [{key: golden[key] for key in ("model_cfg", "test_pipeline")} for golden in goldens]
    detectors[0]["test_pipeline"] = [{"type": "MultiScaleFlipAug", "transforms": [detectors[0]["test_pipeline"]]}]
    return segmenters + detectors


def read_model_dict(data: bytes) -> None:
    Path("model.json").write_bytes(data)
    original, _ = read_original_config(Path("model.json"))
    for head in HEADS:
        family = BackboneWithHead(FAMILIES["internimage"], head)
        try:
            config = _config_from_original(family, original, family.facts({}), "model.json")
        except InputError:
            continue
        family.facts_of_config(config)


def plans() -> list[dict]:
    names = ("internimage_tiny_l", "smt_tiny_like", "replknet_31_like")
    return [
        {"shapes": {n: list(s) for n, (s, _) in manifest(m)["tensors"].items()}, "config": manifest(m)["config"]}
        for m in names
    ]


def mutate_plan(plan: dict, random: Random) -> dict:
    """Names and shapes of tensors; mostly not the arguments, which have a reader of their own."""
    changed = {"shapes": plan["shapes"], "config": plan["config"]}
    for _ in range(random.choice((1, 1, 2, 20))):
        part = "config" if random.random() < 0.2 else "shapes"
        changed[part] = mutate_value(changed[part], random)
    return changed


def read_plan(plan: dict) -> None:
    """Names and shapes against arguments, without values."""
    Path("arguments.json").write_text(json.dumps(plan["config"]))
    shapes = plan["shapes"] if isinstance(plan["shapes"], dict) else {}
    tensors = {}
    for name, shape in shapes.items():
        if not (isinstance(shape, list) and all(type(n) is int and 0 < n < 10**6 for n in shape)):
            shape = []
        if name.isprintable() and len(name) < 500:
            tensors[name] = torch.empty(shape, device="meta")
    checkpoint = Checkpoint(Source("x.pth", [Path("x.pth")]), "model", tensors, {}, {}, [])
    make_plan(checkpoint, None, "arguments.json")


def converted_folder() -> list[dict]:
    """The two JSON files of a converted folder; the weights beside them stay."""
    return [{name: json.loads((CONVERTED / name).read_text()) for name in ("config.json", "conversion_report.json")}]


CONVERTED = Path("converted").absolute()  # in the folder that the fuzzer was started in


def make_converted() -> None:
    if not CONVERTED.exists():
        shape = manifest("internimage_tiny_l")
        save_checkpoint(shape, "seed.pth", seed=shape["seed"])
        Path("seed.json").write_text(json.dumps(shape["config"]))
        convert("seed.pth", CONVERTED, original_config="seed.json", progress=False)


def mutate_files(files: dict[str, Any], random: Random) -> dict[str, bytes]:
    """One of several JSON files mutated."""
    chosen = random.choice(list(files))
    return {n: mutate_json(c, random) if n == chosen else json.dumps(c).encode() for n, c in files.items()}


def read_converted(files: dict[str, bytes]) -> None:
    os.link(CONVERTED / "model.safetensors", "model.safetensors")
    for name, data in files.items():
        Path(name).write_bytes(data)
    verify(".", progress=False)


def model_folders() -> list[dict]:
    return [{name: json.loads((CONVERTED / name).read_text()) for name in ("config.json", "preprocessor_config.json")}]


def read_model(files: dict[str, bytes]) -> None:
    os.link(CONVERTED / "model.safetensors", "model.safetensors")
    for name, data in files.items():
        Path(name).write_bytes(data)
    load_model(os.getcwd(), AutoModelForImageClassification)


def names() -> list[str]:
    return ["x.pth", "org/model", "hf://org/repo/x.pth", "model-00001-of-00002.safetensors", "folder/x"]


def read_name(name: str) -> None:
    """As an argument of `convert`, as a shard of an index, and in a message."""
    assert "\n" not in str(InputError(name)) and str(InputError(name)).isprintable()
    assert str(InputError(str(InputError(name)))) == str(InputError(name)) or len(name) > 500
    for call in (lambda: check_output(Path(name), "x", False), lambda: inside(Path(), name, "index.json")):
        try:
            call()
        except InputError:
            continue
    if "/" not in name:  # nothing may be asked of the Hub
        find_source(name)


def mutate_name(name: str, random: Random) -> str:
    for _ in range(random.choice((1, 2, 4))):
        name = mutate_value(name, random) if isinstance(name, str) else str(name)
    return str(name)
