"""Bad checkpoints, arguments and options of `hf-models convert`."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from .bad_input_case import CONVERT, NAME, Bomb, Case, both, changing, saving, state, upstream, writing
from .conversion_tester import original_state

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 120000000\n"


def file(build, message: str, name: str = "x.pth") -> Case:
    """A checkpoint that cannot be converted."""
    return Case(build, ("convert", name, "out", *CONVERT[3:]), name, message)


def bad(message: str, **changes) -> Case:
    """A state dict that cannot be converted: `...` takes a tensor away."""

    def content() -> dict:
        return {name: tensor for name, tensor in state(**changes).items() if tensor is not ...}

    return file(saving(content), message)


def spoilt(name: str, value: float) -> dict[str, torch.Tensor]:
    tensor = original_state(NAME)[name].clone()
    tensor.flatten()[:3] = value
    return {name: tensor}


def cut(length: int, name: str = "x.pth"):
    def build() -> None:
        torch.save(state(), name) if name.endswith("pth") else save_file(state(), name)
        Path(name).write_bytes(Path(name).read_bytes()[:length])

    return build


def repacked(compression: int) -> None:
    """The same zip with its parts compressed: a bomb in all but size, and values read from the wrong bytes."""
    torch.save(state(), "whole.pth")
    with zipfile.ZipFile("whole.pth") as whole, zipfile.ZipFile("x.pth", "w", compression) as archive:
        for part in whole.namelist():
            archive.writestr(part, whole.read(part))
    Path("whole.pth").unlink()


def other_zip() -> None:
    with zipfile.ZipFile("x.pth", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")


def torchscript() -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save("x.pth")


def header(text: str) -> bytes:
    """The beginning of a safetensors file."""
    return len(text).to_bytes(8, "little") + text.encode()


def arguments(message: str, **changes) -> Case:
    build = both(saving(state), changing("arguments.json", **changes))
    return Case(build, CONVERT, "arguments.json", message)


def option(message: str, *options: str, path: str = "", source: str = "x.pth") -> Case:
    return Case(saving(state), ("convert", source, "out", *options), path, message)


def full_output() -> None:
    torch.save(state(), "x.pth")
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")


def shard(name: str) -> Case:
    index = upstream({"a": name})
    return Case(index, ("convert", "upstream", "out"), "model.safetensors.index.json", "leaves the folder. Refused.")


def folder(build, message: str) -> Case:
    return Case(build, ("convert", "upstream", "out"), "upstream", message)


HUGE = "9" * 5000
BYTE = '{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
OUTSIDE = ("../outside.safetensors", "/etc/passwd", "C:\\x.safetensors", "a\\..\\..\\x")
PICKLES = {
    "pickle with code": file(saving({"model": Bomb()}), "refused, it would call posix.mkdir"),
    "old pickle with code": file(
        saving({"model": Bomb()}, _use_new_zipfile_serialization=False), "refused, it would call posix.mkdir"
    ),
    "plain pickle with code": file(writing(pickle.dumps(Bomb())), "refused, it would call posix.mkdir"),
    "plain pickle of protocol 2": file(writing(pickle.dumps(Bomb(), 2)), "refused, it would call posix.mkdir"),
    "plain pickle of arrays": file(writing(pickle.dumps({"a": np.zeros(2)})), "refused, it would call numpy"),
    "whole module": file(saving({"model": torch.nn.Linear(2, 2)}), "refused, it would call torch.nn.modules.linear"),
    "pickle with code in a shard": folder(
        both(
            upstream({"a": "pytorch_model-1.bin"}),
            lambda: Path("upstream/model.safetensors.index.json").rename("upstream/pytorch_model.bin.index.json"),
            saving({"a": Bomb()}, "upstream/pytorch_model-1.bin"),
        ),
        "refused, it would call posix.mkdir",
    ),
    "damaged old pickle": file(writing(pickle.dumps({"a": [1, 2]})[:-3]), "damaged, or not written by torch.save"),
    "torchscript": file(torchscript, "a TorchScript program, not weights"),
    "list": file(saving([torch.zeros(2)]), "holds a list, not a dictionary of tensors"),
}
FILES = {
    "empty file": file(writing(b""), "empty file (0 bytes). The download failed; fetch it again."),
    "web page": file(writing(b"\n<!DOCTYPE html><title>Drive</title>"), 'this is a web page ("<!DOCTYPE html"), not'),
    "web page as safetensors": file(writing(b"<html>log in", "x.safetensors"), "a web page", "x.safetensors"),
    "git-LFS pointer": file(writing(LFS), "a git-LFS pointer to 120 MB that was never fetched"),
    "text": file(writing(b"404: Not Found"), "neither a PyTorch checkpoint nor safetensors"),
    "truncated zip": file(cut(5000), "truncated: 5,000 bytes"),
    "truncated safetensors": file(cut(-7, "x.safetensors"), "bytes, ", "x.safetensors"),
    "truncated safetensors header": file(cut(500, "x.safetensors"), "truncated", "x.safetensors"),
    "damaged safetensors header": file(writing(b"\x08\0\0\0\0\0\0\0{notjson"), "damaged"),
    "safetensors header that claims 100 GB": file(
        writing(header('{"a": {"dtype": "F32", "shape": [25000000000], "data_offsets": [0, 100000000000]}}')),
        "100,000,0",
    ),
    "safetensors header nested 100,000 deep": file(writing(header('{"a": ' + "[" * 10**5)), "damaged"),
    "safetensors with the same name twice": file(
        writing(header(f'{{"a": {BYTE}, "a": {BYTE}}}') + b"0"),
        "x.pth",
    ),
    "other zip": file(other_zip, "not written by torch.save"),
    "zip of compressed parts": file(lambda: repacked(zipfile.ZIP_DEFLATED), "is compressed, so not written by"),
    "zip of an unknown compression": file(
        both(saving(state), lambda: patch("x.pth", b"PK\x01\x02", 10, b"\x63")), "compressed"
    ),
    "zip on several disks": file(both(saving(state), lambda: patch("x.pth", b"PK\x06\x07", 16, b"\x02")), "damaged"),
}


def patch(path: str, mark: bytes, offset: int, value: bytes) -> None:
    """Change a byte some way behind a mark."""
    data = bytearray(Path(path).read_bytes())
    place = data.index(mark) + offset
    data[place : place + len(value)] = value
    Path(path).write_bytes(data)


CONTENTS = {
    "wrong sha256": file(saving(state, "x-01234567.pth"), "is not the published 01234567", "x-01234567.pth"),
    "no weights": file(saving({"optimizer": {}, "epoch": 3}), "none of model, state_dict, module"),
    "empty state dict": file(saving({"model": {}}), "holds no tensors"),
    "model and ema": file(
        saving(lambda: {"model": state(), "model_ema": state()}), "holds model and model_ema. Choose --weights"
    ),
    "model and state_dict": file(
        saving(lambda: {"model": state(), "state_dict": state()}), "holds model and state_dict"
    ),
    "another model": file(
        saving({"layer1.conv1.weight": torch.zeros(2)}), "not a checkpoint of internimage, flash_int"
    ),
    "other family": file(saving(lambda: original_state("smt_tiny_like")), "looks like smt, not internimage"),
    "other size": file(saving(lambda: original_state("internimage_tiny_t")), "layer_scale is false in the weights"),
    "other classes": bad(
        "num_classes is 7 in the weights", **{"head.weight": torch.zeros(7, 192), "head.bias": torch.zeros(7)}
    ),
    "left-over keys": bad("1 checkpoint keys were not used: extra.weight", **{"extra.weight": torch.zeros(2)}),
    "missing keys": bad("2 parameters not filled", **{"head.bias": ..., "levels.1.blocks.0.mlp.fc2.bias": ...}),
    "stale rule": bad(
        "matched no key: wrong checkpoint or stale rule",
        **{f"patch_embed.norm{i}.1.{kind}": ... for i in (1, 2) for kind in ("weight", "bias")},
    ),
    "two keys to one": bad("both become", **{"levels.0.blocks.0.layer_scale1": torch.zeros(16)}),
    "wrong shape": bad("were not used", **{"levels.3.norm1.0.weight": torch.zeros(1)}),
    "one wrong shape": bad("head.bias is (9,), expected (10,)", **{"head.bias": torch.zeros(9)}),
    "no shape": bad("head.weight is (), expected", **{"head.weight": torch.tensor(1.0)}),
    "NaN": bad("head.weight: 3 of 1920 values are NaN. Refused.", **spoilt("head.weight", float("nan"))),
    "infinity": bad("head.weight: 3 of 1920 values are infinite", **spoilt("head.weight", float("inf"))),
    "values too large for the dtype": Case(
        saving(lambda: state(**spoilt("head.weight", 1e6))),
        (*CONVERT, "--dtype", "float16"),
        "x.pth",
        "head.weight: 3 of 1920 values are infinite in float16",
    ),
    "integer weights": bad("head.bias is torch.int8", **{"head.bias": torch.zeros(10, dtype=torch.int8)}),
    "complex weights": bad("head.bias is a", **{"head.bias": torch.zeros(10, dtype=torch.cfloat)}),
    "sparse weights": bad("head.bias is a sparse", **{"head.bias": torch.zeros(10).to_sparse()}),
    "weights of 8 bits": bad(
        "head.bias is a strided float8", **{"head.bias": torch.zeros(10, dtype=torch.float8_e5m2)}
    ),
    "weights without values": bad("head.bias has no values", **{"head.bias": torch.zeros(10, device="meta")}),
    "4 TB of weights in 4 bytes": bad("with 4 bytes of values", **{"head.bias": torch.zeros(1).expand(10**6, 10**6)}),
    "a billion layers": bad(
        "no model here has a tensor", **{"levels.999999999.blocks.0.norm1.0.weight": torch.zeros(1)}
    ),
    "an index of 5000 digits": bad("no model here has a tensor", **{f"levels.{HUGE}.norm.0.bias": torch.zeros(1)}),
    "a name of two lines": bad("no model here has a tensor a\\nb\\x1b[31m", **{"a\nb\x1b[31m": torch.zeros(1)}),
    "names that are numbers": file(saving({10**5000: torch.zeros(1)}), "damaged, or not written by torch.save"),
    "20,001 tensors": file(saving(lambda: dict.fromkeys(map(str, range(20_001)), torch.zeros(1))), "20,001 tensors"),
}
ARGUMENTS = {
    "negative channels": arguments("hidden_sizes must be positive", channels=-16),
    "channels as text": arguments("channels must be of type int, got '16'", channels="16"),
    "groups that do not divide": arguments("multiple of groups", groups=[3, 6, 12, 24]),
    "depths without groups": arguments("groups must have one value for each", depths=[1, 1]),
    "no stages": arguments("must", depths=[], groups=[]),
    "layer scale as text": arguments("layer_scale_init_value", layer_scale="1e-5"),
    "missing argument": arguments("argument depths is missing", depths=...),
    "unknown argument": arguments("unknown argument chanels", chanels=16),
    "unknown argument of two lines": arguments("unknown argument a\\nb", **{"a\nb": 16}),
    "remove_center": arguments("remove_center=True is not supported", remove_center=True),
    "norm_layer": arguments("norm_layer='BN' is not supported, only 'LN' is", norm_layer="BN"),
    "core_op": arguments("core_op='DCNv4' is not supported", core_op="DCNv4"),
    "res_post_norm": arguments("res_post_norm=True is not supported beside post_norm", res_post_norm=True),
    "other channels": arguments("channels is [16, 32, 64, 128] in the weights, [32, 64, 128, 256] in", channels=32),
    "other depths": arguments("depths is [1, 1, 2, 1] in the weights, [1, 1, 3, 1] in", depths=[1, 1, 3, 1]),
    "other groups": arguments("groups is [2, 4, 8, 16] in the weights, [1, 2, 4, 8] in", groups=[1, 2, 4, 8]),
    "other kernel": arguments("dw_kernel_size is 3 in the weights, 5 in", dw_kernel_size=5),
    "other norms": arguments("level norms is false in the weights, true in", post_norm=False),
    "family": arguments("looks like internimage, not smt. Correct family in arguments.json", family="smt"),
    "a billion classes": arguments("num_classes is 1000000000, beyond any model here", num_classes=10**9),
    "10,000 stages": arguments("depths has 10,000 values", depths=[1] * 10**4),
    "ratio of zero": arguments("mlp_ratio must lie in (0, 1000]", mlp_ratio=0.0),
    "infinite ratio": arguments("not a finite number", mlp_ratio=float("inf")),
    **{
        f"arguments: {name}": Case(
            both(saving(state), writing(text, "arguments.json")), CONVERT, "arguments.json", words
        )
        for name, text, words in (
            ("nothing", "", "JSON"),
            ("half", "{", "JSON"),
            ("a list", "[1]", "holds a JSON list, an object is wanted"),
            ("Latin-1", b"\xff", "JSON"),
            ("NaN", '{"channels": NaN}', "NaN is not a finite number"),
            ("a key twice", '{"channels": 16, "channels": 32}', "'channels' is there twice"),
            ("nested 100,000 deep", '{"a":' * 10**5, "JSON"),
            ("a number of 5000 digits", f'{{"channels": {HUGE}}}', "JSON"),
        )
    },
}
OPTIONS = {
    "--name ../x": option("../x: no such model in the zoo", "--name", "../x"),
    "--name of two lines": option("x\\ny: no such model", "--name", "x\ny"),
    "--name, nearly": option("Did you mean internimage_t_1k_224", "--name", "internimage_t_1k"),
    "--name of another size": option(
        "x.pth: looks different (channels [16, 32, 64, 128]), not like internimage_t", "--name", "internimage_t_1k_224"
    ),
    "--name of another family": option("x.pth: looks like internimage, not smt_tiny", "--name", "smt_tiny"),
    "no --name": option("x.pth: not the name of a published file. Pass --name, or --original-config"),
    "--name and --original-config": option(
        "exclude each other", "--name", "smt_tiny", "--original-config", "arguments.json"
    ),
    "missing --original-config": option("missing.json: no such file", "--original-config", "missing.json"),
    "--weights best": option("--weights must be one of: model, ema; got best", *CONVERT[3:], "--weights", "best"),
    "--weights ema": option("x.pth: holds no model_ema", *CONVERT[3:], "--weights", "ema"),
    "--dtype": option("--dtype must be one of: float32, float16, bfloat16", *CONVERT[3:], "--dtype", "int8"),
    "--max-shard-size": option("--max-shard-size big", *CONVERT[3:], "--max-shard-size", "big"),
    "--max-shard-size infGB": option("--max-shard-size infGB", *CONVERT[3:], "--max-shard-size", "infGB"),
    "missing file": option("missing.pth: no such file, folder or Hub id", source="missing.pth"),
    "missing file in a folder": option("folder/missing.pth: no such file", source="folder/missing.pth"),
    "broken Hub file": option("hf://broken: no such file", source="hf://broken"),
    "folder without a config": option("has no config.json", source="."),
    "a name of 5000 characters": option("cannot be looked up (File name too long)", source="x" * 5000),
    "a name with escapes": option("\\x1b[31mx\\ny.pth: no such file", source="\x1b[31mx\ny.pth"),
    "output of 5000 characters": Case(saving(state), ("convert", "x.pth", "o" * 5000), "ooo", "File name too long"),
    "output that is not empty": Case(full_output, CONVERT, "out/", "not empty. Pass --overwrite."),
    "output that is no model": Case(full_output, (*CONVERT, "--overwrite"), "out/", "not a model repository"),
    "output that is a file": Case(saving(state, "out"), ("convert", "out", *CONVERT[2:]), "out", "is a file"),
    "output in a file": Case(saving(state), ("convert", "x.pth", "x.pth/out", *CONVERT[3:]), "x.pth/out", "cannot be"),
}
FOLDERS = {
    **{f"shard {name}": shard(name) for name in OUTSIDE},
    "shard that is missing": folder(upstream({"a": "missing.safetensors"}), 'shard "missing.safetensors" is missing'),
    "shard of two lines": folder(upstream({"a": "a\nb"}), 'shard "a\\nb" is missing'),
    "shard with NUL": folder(upstream({"a": "a\0b"}), "cannot be looked up (embedded null byte)"),
    "index of other tensors": folder(
        upstream(dict.fromkeys("ab", "model-1.safetensors")), "the index and the shards do not name the same"
    ),
    "index of numbers": folder(upstream({"a": 1}), "has no weight_map of names"),
    "index of nothing": folder(upstream(None), "has no weight_map of names"),
    "no weights in a folder": folder(
        writing("{}", "upstream/config.json"), "holds neither model.safetensors nor pyto"
    ),
    "converted already": folder(writing('{"hidden_sizes": [64]}', "upstream/config.json"), "is converted already"),
    "upstream's preprocessor": folder(
        both(
            upstream({"a": "model-1.safetensors"}),
            writing('{"size": {"shortest_edge": 224}}', "upstream/preprocessor_config.json"),
        ),
        "size cannot be {'shortest_edge': 224}",
    ),
}
CASES = PICKLES | FILES | CONTENTS | ARGUMENTS | OPTIONS | FOLDERS
