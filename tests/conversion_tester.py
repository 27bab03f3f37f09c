"""Checkpoints in the originals' formats, small and reproducible, for the tests of the conversion."""

import json
from pathlib import Path

from .seeded_checkpoint import save_checkpoint, seeded_state_dict

MANIFESTS = Path(__file__).parent / "fixtures" / "parity" / "manifests"
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
