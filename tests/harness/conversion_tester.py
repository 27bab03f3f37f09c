"""Checkpoints in the originals' formats, small and reproducible, for the tests of the conversion."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hf_models.conversion import convert

from .seeded_checkpoint import save_checkpoint, seeded_state_dict

MANIFESTS = Path(__file__).parents[1] / "fixtures" / "parity" / "manifests"
TINY = sorted(path.stem for path in MANIFESTS.glob("*.json"))


def read_manifest(name: str, folder: Path = MANIFESTS) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def original_state(name: str) -> dict:
    """The state dict that the original code would load."""
    manifest = read_manifest(name)
    return seeded_state_dict(manifest, manifest["seed"])


def write_original(folder: Path, manifest: dict, name: str = "original") -> tuple[Path, Path]:
    """The checkpoint as its repository publishes it, and a file with the constructor's arguments."""
    checkpoint, config = folder / f"{name}.pth", folder / f"{name}.json"
    save_checkpoint(manifest, checkpoint, seed=manifest["seed"])
    config.write_text(json.dumps(manifest["config"]))
    return checkpoint, config


def upstream_config(manifest: dict) -> dict:
    """config.json as upstream's port to the Hub writes it: all arguments, and transformers' own."""
    defaults = {
        "act_layer": "GELU",
        "norm_layer": "LN",
        "core_op": "DCNv3",
        "center_feature_scale": False,
        "cls_scale": 1.5,
        "drop_path_rate": 0.0,
        "drop_path_type": "linear",
        "drop_rate": 0.0,
        "dw_kernel_size": None,
        "level2_post_norm": False,
        "level2_post_norm_block_ids": None,
        "remove_center": False,
        "res_post_norm": False,
        "use_clip_projector": False,
        "with_cp": False,
    }
    transformers = {
        "architectures": ["InternImageModel"],
        "auto_map": {"AutoConfig": "configuration_internimage.InternImageConfig"},
        "model_type": "internimage",
        "torch_dtype": "float32",
        "transformers_version": "4.37.2",
        "_name_or_path": "internimage",
    }
    arguments = {key: value for key, value in manifest["config"].items() if key != "family"}
    return {**defaults, **arguments, **transformers}


def write_upstream(
    folder: Path, *, name: str = "internimage_tiny_l", shards: int = 1, suffix: str = "safetensors"
) -> Path:
    folder.mkdir()
    state = {f"model.{n.replace('gamma', 'layer_scale')}": tensor for n, tensor in original_state(name).items()}
    (folder / "config.json").write_text(json.dumps(upstream_config(read_manifest(name))))
    preprocessor = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 96, "crop_size": 80, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, weight_map = list(state), {}
    for i in range(shards):
        part = {n: state[n] for n in names[i::shards]}
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def converted(tmp_path: Path, name: str = "internimage_tiny_h", **kwargs) -> tuple[Path, Path, dict]:
    """The source, the converted folder and the report."""
    source, config = write_original(tmp_path, read_manifest(name))
    report = convert(source, tmp_path / "out", original_config=config, progress=False, **kwargs)
    return source, tmp_path / "out", report


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def convert_state(tmp_path: Path, name: str, state, **kwargs) -> dict:
    """Convert a state dict, or whatever a checkpoint of that model holds."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(read_manifest(name)["config"]))
    torch.save(state, tmp_path / "checkpoint.pth")
    output = tmp_path / "out"
    return convert(tmp_path / "checkpoint.pth", output, original_config=config, progress=False, **kwargs)
