"""What users bring by mistake: one line that says what is wrong and what to do, exit status 2, nothing written."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from hf_models.cli import app

from .conversion_tester import original_state, read_manifest, upstream_config

NAME = "internimage_tiny_l"
BOMB = "bomb went off"


class Bomb:
    """Unpickled without care, it makes a folder where the test looks."""

    def __reduce__(self):
        return os.mkdir, (BOMB,)


def state(**changes) -> dict[str, torch.Tensor]:
    return original_state(NAME) | changes


def nan_in(name: str, value: float = float("nan")) -> dict[str, torch.Tensor]:
    tensor = original_state(NAME)[name].clone()
    tensor.flatten()[:3] = value
    return {name: tensor}


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state().items() if name not in names}


def safetensors_bytes(folder: Path) -> bytes:
    save_file(state(), folder / "whole")
    content = (folder / "whole").read_bytes()
    (folder / "whole").unlink()
    return content


def torch_bytes(folder: Path) -> bytes:
    torch.save(state(), folder / "whole")
    content = (folder / "whole").read_bytes()
    (folder / "whole").unlink()
    return content


def torchscript(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 120000000\n"
# file name, what to write (bytes, a function of the folder that returns bytes, or what torch.save saves), message
FILES = {
    "pickle with code": ("x.pth", {"model": Bomb()}, "refused, it would call posix.mkdir"),
    "old pickle with code": ("x.pth", ("old", {"model": Bomb()}), "refused, it would call posix.mkdir"),
    "plain pickle with code": ("x.pkl", lambda _: pickle.dumps(Bomb()), "refused, it would call posix.mkdir"),
    "plain pickle of protocol 2": ("x.pkl", lambda _: pickle.dumps(Bomb(), 2), "refused, it would call posix.mkdir"),
    "plain pickle of arrays": ("x.pkl", lambda _: pickle.dumps({"a": np.zeros(2)}), "refused, it would call numpy"),
    "whole module": (
        "x.pt",
        {"model": torch.nn.Linear(2, 2)},
        "refused, it would call torch.nn.modules.linear.Linear",
    ),
    "torchscript": ("x.pt", torchscript, "a TorchScript program, not weights"),
    "empty file": ("x.pth", b"", "empty file (0 bytes). The download failed; fetch it again."),
    "web page": ("x.pth", b"\n<!DOCTYPE html><title>Drive</title>", 'this is a web page ("<!DOCTYPE html"), not'),
    "web page as safetensors": ("x.safetensors", b"<html><body>log in</body></html>", "this is a web page"),
    "git-LFS pointer": ("x.safetensors", LFS, "a git-LFS pointer to 120 MB that was never fetched"),
    "text": ("x.pth", b"404: Not Found", "neither a PyTorch checkpoint nor safetensors"),
    "truncated zip": ("x.pth", lambda folder: torch_bytes(folder)[:5000], "truncated: 5,000 bytes"),
    "truncated safetensors": ("x.safetensors", lambda folder: safetensors_bytes(folder)[:-7], "bytes, "),
    "truncated safetensors header": ("x.safetensors", lambda folder: safetensors_bytes(folder)[:500], "truncated"),
    "damaged safetensors header": ("x.safetensors", b"\x08\0\0\0\0\0\0\0{notjson", "damaged"),
    "other zip": ("x.pth", lambda folder: other_zip(folder), "not written by torch.save"),
    "list": ("x.pth", [torch.zeros(2)], "holds a list, not a dictionary of tensors"),
    "no weights": ("x.pth", {"optimizer": {}, "epoch": 3}, "none of model, state_dict, module"),
    "empty state dict": ("x.pth", {"model": {}}, "holds no tensors"),
    "model and ema": (
        "x.pth",
        {"model": state(), "model_ema": state()},
        "holds model and model_ema. Choose --weights",
    ),
    "model and state_dict": ("x.pth", {"model": state(), "state_dict": state()}, "holds model and state_dict"),
    "another model": (
        "x.pth",
        {"layer1.0.conv1.weight": torch.zeros(2)},
        "not a checkpoint of internimage, flash_int",
    ),
    "other family": ("x.pth", original_state("smt_tiny_like"), "looks like smt, not internimage"),
    "other size": ("x.pth", original_state("internimage_tiny_t"), "layer_scale is false in the weights, true in"),
    "other classes": (
        "x.pth",
        state(**{"head.weight": torch.zeros(7, 192), "head.bias": torch.zeros(7)}),
        "num_classes is 7 in the weights, 10 in",
    ),
    "left-over keys": (
        "x.pth",
        state(**{"extra.weight": torch.zeros(2)}),
        "1 checkpoint keys were not used: extra.weight",
    ),
    "missing keys": ("x.pth", without("head.bias", "levels.1.blocks.0.mlp.fc2.bias"), "2 parameters not filled"),
    "stale rule": (
        "x.pth",
        {name: tensor for name, tensor in state().items() if not name.startswith("patch_embed.norm")},
        "matched no key: wrong checkpoint or stale rule",
    ),
    "two keys to one": ("x.pth", state(**{"levels.0.blocks.0.layer_scale1": torch.zeros(16)}), "both become"),
    "wrong shape": ("x.pth", state(**{"levels.3.norm1.0.weight": torch.zeros(1)}), "were not used"),
    "one wrong shape": ("x.pth", state(**{"head.bias": torch.zeros(9)}), "head.bias is (9,), expected (10,)"),
    "NaN": ("x.pth", state(**nan_in("head.weight")), "head.weight: 3 of 1920 values are NaN. Refused."),
    "infinity": ("x.pth", state(**nan_in("head.weight", float("inf"))), "head.weight: 3 of 1920 values are infinite"),
    "integer weights": ("x.pth", state(**{"head.bias": torch.zeros(10, dtype=torch.int8)}), "head.bias is torch.int8"),
    "complex weights": ("x.pth", state(**{"head.bias": torch.zeros(10, dtype=torch.cfloat)}), "head.bias is a"),
    "sparse weights": ("x.pth", state(**{"head.bias": torch.zeros(10).to_sparse()}), "head.bias is a sparse"),
}


def other_zip(folder: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(folder / "whole", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    content = (folder / "whole").read_bytes()
    (folder / "whole").unlink()
    return content


def write(path: Path, content) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is torchscript:
        torchscript(path)
    elif callable(content):
        path.write_bytes(content(path.parent))
    elif isinstance(content, tuple):
        torch.save(content[1], path, _use_new_zipfile_serialization=False)
    else:
        torch.save(content, path)


def refused(folder: Path, *arguments: str, path: str | None = None, message: str) -> None:
    """Run `hf-models convert` and hold the outcome against the house's form of a refusal."""
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(app, ["convert", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message in line
    assert path is None or path in line
    assert len(line) < 600
    assert sorted(folder.rglob("*")) == before
    assert not Path(BOMB).exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, with the arguments of the tiny model beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments.json").write_text(json.dumps(read_manifest(NAME)["config"]))
    return tmp_path


@pytest.mark.parametrize("case", FILES)
def test_file(case, here):
    name, content, message = FILES[case]
    write(here / name, content)
    refused(here, name, "out", "--original-config", "arguments.json", path=name, message=message)


def changed(**changes) -> dict:
    config = read_manifest(NAME)["config"] | changes
    return {key: value for key, value in config.items() if value != "absent"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(channels=-16), "hidden_sizes must be positive"),
        (changed(channels="16"), "channels must be of type int, got '16'"),
        (changed(groups=[3, 6, 12, 24]), "multiple of groups"),
        (changed(depths=[1, 1]), "groups must have one value for each"),
        (changed(layer_scale="1e-5"), "layer_scale_init_value"),
        (changed(depths="absent"), "argument depths is missing"),
        (changed(chanels=16), "unknown argument chanels"),
        (changed(remove_center=True), "remove_center=True is not supported"),
        (changed(norm_layer="BN"), "norm_layer='BN' is not supported, only 'LN' is"),
        (changed(core_op="DCNv4"), "core_op='DCNv4' is not supported"),
        (changed(res_post_norm=True), "res_post_norm=True is not supported beside post_norm"),
        (changed(channels=32), "channels is [16, 32, 64, 128] in the weights, [32, 64, 128, 256] in arguments.json"),
        (changed(depths=[1, 1, 3, 1]), "depths is [1, 1, 2, 1] in the weights, [1, 1, 3, 1] in"),
        (changed(groups=[1, 2, 4, 8]), "groups is [2, 4, 8, 16] in the weights, [1, 2, 4, 8] in"),
        (changed(dw_kernel_size=5), "dw_kernel_size is 3 in the weights, 5 in"),
        (changed(post_norm=False), "level norms is false in the weights, true in"),
        (changed(family="smt"), "looks like internimage, not smt. Correct family in arguments.json"),
    ],
)
def test_original_arguments(arguments, message, here):
    torch.save(state(), "x.pth")
    Path("arguments.json").write_text(json.dumps(arguments))
    refused(here, "x.pth", "out", "--original-config", "arguments.json", path="arguments.json", message=message)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_original_config_that_is_no_json_object(content, here):
    torch.save(state(), "x.pth")
    Path("arguments.json").write_text(content, encoding="latin-1")
    refused(here, "x.pth", "out", "--original-config", "arguments.json", path="arguments.json", message="JSON")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "../x"], "../x: no such model in the zoo"),
        (["--name", "internimage_t_1k"], "Did you mean internimage_t_1k_224"),
        (
            ["--name", "internimage_t_1k_224"],
            "x.pth: looks different (channels [16, 32, 64, 128]), not like internimage_t",
        ),
        (["--name", "smt_tiny"], "x.pth: looks like internimage, not smt_tiny"),
        ([], "x.pth: not the name of a published file. Pass --name, or --original-config"),
        (["--name", "smt_tiny", "--original-config", "arguments.json"], "exclude each other"),
        (["--original-config", "missing.json"], "missing.json: no such file"),
        (
            ["--original-config", "arguments.json", "--weights", "best"],
            "--weights must be one of: model, ema; got best",
        ),
        (["--original-config", "arguments.json", "--weights", "ema"], "x.pth: holds no model_ema"),
        (
            ["--original-config", "arguments.json", "--dtype", "int8"],
            "--dtype must be one of: float32, float16, bfloat16",
        ),
        (["--original-config", "arguments.json", "--max-shard-size", "big"], "--max-shard-size big"),
    ],
)
def test_options(arguments, message, here):
    torch.save(state(), "x.pth")
    refused(here, "x.pth", "out", *arguments, message=message)


def test_values_too_large_for_the_dtype(here):
    torch.save(state(**nan_in("head.weight", 1e6)), "x.pth")
    arguments = ["x.pth", "out", "--original-config", "arguments.json", "--dtype", "float16"]
    refused(here, *arguments, path="x.pth", message="head.weight: 3 of 1920 values are infinite in float16")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.pth", "missing.pth: no such file, folder or Hub id"),
        ("folder/missing.pth", "folder/missing.pth: no such file"),
        ("hf://broken", "hf://broken: no such file"),
        (".", "has no config.json"),
    ],
)
def test_sources_that_are_not_there(source, message, here):
    refused(here, source, "out", message=message)


@pytest.mark.parametrize("source", ["nobody/no-such-model", "hf://nobody/no-such-model/x.pth"])
def test_hub_that_cannot_be_reached(source, here, monkeypatch):
    def unreachable(**kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("hf_models.conversion.source.hf_hub_download", unreachable)
    monkeypatch.setattr("hf_models.conversion.source.snapshot_download", unreachable)
    refused(here, source, "out", path=source, message="cannot be downloaded (ConnectionError: no route to host)")


def test_output_that_must_not_be_touched(here):
    torch.save(state(), "x.pth")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    arguments = ["--original-config", "arguments.json"]
    refused(here, "x.pth", "full", *arguments, path="full", message="full/: not empty. Pass --overwrite.")
    refused(here, "x.pth", "full", *arguments, "--overwrite", path="full", message="not a model repository")
    refused(here, "x.pth", "x.pth", *arguments, path="x.pth", message="is a file")
    refused(here, "x.pth", "x.pth/out", *arguments, path="x.pth/out", message="cannot be written")


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "C:\\x.safetensors", "a\\..\\..\\x"])
def test_index_that_leaves_its_folder(shard, here):
    Path("upstream").mkdir()
    Path("upstream/config.json").write_text(json.dumps(upstream_config(read_manifest(NAME))))
    save_file(state(), "outside.safetensors")
    Path("upstream/model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state(), shard)}))
    refused(here, "upstream", "out", path="model.safetensors.index.json", message="leaves the folder. Refused.")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "missing.safetensors"}, 'shard "missing.safetensors" is missing'),
        ({"a": "model-1.safetensors", "b": "model-1.safetensors"}, "the index and the shards do not name the same"),
        ({"a": 1}, "has no weight_map of names"),
        (None, "has no weight_map of names"),
    ],
)
def test_index_that_is_wrong(weight_map, message, here):
    Path("upstream").mkdir()
    Path("upstream/config.json").write_text(json.dumps(upstream_config(read_manifest(NAME))))
    save_file({"a": torch.zeros(2)}, "upstream/model-1.safetensors")
    Path("upstream/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(here, "upstream", "out", path="upstream", message=message)


def test_folder_without_weights_or_already_converted(here):
    Path("upstream").mkdir()
    Path("upstream/config.json").write_text("{}")
    refused(here, "upstream", "out", path="upstream", message="holds neither model.safetensors nor pytorch_model.bin")
    Path("upstream/config.json").write_text('{"hidden_sizes": [64]}')
    refused(here, "upstream", "out", path="upstream", message="is converted already")


def test_refusal_in_a_process_of_its_own(here):
    """The installed program, with its real exit status and streams, and no way to the network."""
    torch.save({"model": Bomb()}, "x.pth")
    program = [sys.executable, "-I", "-m", "hf_models.cli", "convert", "x.pth", "out"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("x.pth: refused, it would call posix.mkdir") and not Path(BOMB).exists()
    assert sorted(path.name for path in here.iterdir()) == ["arguments.json", "x.pth"]
    done = subprocess.run([*program, "--verbose"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode != 0 and "Traceback" in done.stderr
