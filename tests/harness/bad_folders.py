"""Bad converted folders and models: `hf-models verify DIR`, `classify --model DIR`, `segment --model DIR`."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .bad_input_case import Bomb, Case, both, changing, saving, writing

CONFIG, REPORT, WEIGHTS = "model/config.json", "model/conversion_report.json", "model/model.safetensors"
CLASSIFY = ("classify", "image.png", "--model", "model")
SEGMENT = ("segment", "image.png", "--model", "segmenter", "--out", "overlay.png")


def verified(build, message: str) -> Case:
    return Case(build, ("verify", "model"), "model", message)


def classified(build, message: str) -> Case:
    return Case(build, CLASSIFY, "model", message)


def weights(**changes):
    """A builder that replaces tensors; `...` takes one away."""

    def build() -> None:
        tensors = load_file(WEIGHTS) | changes
        save_file({name: t for name, t in tensors.items() if t is not ...}, WEIGHTS, metadata={"format": "pt"})

    return build


def cut() -> None:
    Path(WEIGHTS).write_bytes(Path(WEIGHTS).read_bytes()[:-100])


def remove(path: str):
    return lambda: Path(path).unlink()


def escape() -> None:
    """The weights lie outside, where the index says."""
    Path(WEIGHTS).rename("outside.safetensors")
    names = json.loads(Path(REPORT).read_text())["written"]
    index = {"weight_map": dict.fromkeys(names, "../outside.safetensors")}
    Path("model/model.safetensors.index.json").write_text(json.dumps(index))


def pickled(content):
    return both(remove(WEIGHTS), saving(content, "model/pytorch_model.bin"))


def in_both(name: str, message: str, **changes) -> dict[str, Case]:
    """A field of config.json, for both commands that read it."""
    build = changing(CONFIG, **changes)
    return {f"verify: {name}": verified(build, message), f"classify: {name}": classified(build, message)}


BIAS = torch.zeros(10)
CASES = {
    "changed value": verified(weights(**{"classifier.bias": BIAS}), "model.safetensors changed since the conversion"),
    "NaN": verified(weights(**{"classifier.bias": BIAS / 0}), "classifier.bias: 10 of 10 values are NaN"),
    "missing tensor": verified(weights(**{"classifier.bias": ...}), "superfluous for its config: classifier.bias"),
    "superfluous tensor": verified(weights(extra=BIAS), "missing or superfluous for its config: extra"),
    "truncated weights": verified(cut, "truncated"),
    "other depths": verified(changing(CONFIG, depths=[1, 1, 3, 1]), "missing or superfluous"),
    "weights outside": verified(escape, 'shard "../outside.safetensors" leaves the folder'),
    "no report": verified(remove(REPORT), "conversion_report.json: no such file"),
    "no weights": verified(remove(WEIGHTS), "holds neither"),
    "weights that are text": verified(writing(b"404: Not Found", WEIGHTS), "neither a PyTorch checkpoint nor"),
    "weights that are a pickle": verified(saving({"a": Bomb()}, WEIGHTS), "not a safetensors file"),
    "other model": verified(writing('{"model_type": "vit"}', CONFIG), "model_type 'vit' is not one of"),
    "model_type that is a list": verified(changing(CONFIG, model_type=["internimage"]), "is not one of"),
    "half a config": verified(writing("{", CONFIG), "not readable as JSON"),
    "report without a dtype": verified(
        changing(REPORT, dtype=...), "config.json or conversion_report.json is damaged"
    ),
    "report with a list of files": verified(changing(REPORT, files=[]), "is damaged (files is no object)"),
    "report of other files": verified(changing(REPORT, files={"a\nb": "0"}), "a\\nb, model.safetensors changed since"),
    "a billion layers": verified(changing(CONFIG, depths=[10**9] * 4), "depths is [1000000000, "),
    "a billion classes": verified(changing(CONFIG, num_labels=10**9), "num_labels is 1000000000, beyond"),
    **in_both("depths as text", "depths", depths="1, 1, 2, 1"),
    **in_both("channels as text", "hidden_sizes", hidden_sizes=["16", "32", "64", "128"]),
    **in_both("negative channels", "hidden_sizes must be positive", hidden_sizes=[-16, 32, 64, 128]),
    **in_both(
        "groups that do not divide", "hidden_sizes must be a positive multiple of groups (3)", groups=[3, 6, 12, 24]
    ),
    **in_both("depths without groups", "must have one value for each of the 5 stages", depths=[1] * 5),
    **in_both("ratio of zero", "mlp_ratio must lie in (0, 1000], got 0.0", mlp_ratio=0.0),
    **in_both("unknown activation", "hidden_act must be an activation that transformers knows", hidden_act="nope"),
    **in_both("unknown feature", "stage9", out_features=["stage9"]),
    "classify: no folder": Case(
        lambda: None, (*CLASSIFY[:3], "./none"), "./none", "cannot be loaded as an image class"
    ),
    "classify: long name": Case(
        lambda: None, (*CLASSIFY[:3], "m" * 5000), "mmm", "cannot be looked up (File name too"
    ),
    "classify: unknown model_type": classified(
        changing(CONFIG, model_type="resnext\x1b"), "cannot be loaded as an image"
    ),
    "classify: unknown model_type with code": classified(
        both(
            changing(CONFIG, model_type="mine", auto_map={"AutoConfig": "code.C", "AutoModel": "code.M"}),
            writing("import os\nos.mkdir('bomb went off')\n", "model/code.py"),
        ),
        "contains custom code which must be executed",
    ),
    "classify: half a config": classified(writing("{", CONFIG), "cannot be loaded as an image classifier"),
    "classify: missing weights": classified(
        weights(**{"classifier.bias": ...}), "1 weights are missing, such as class"
    ),
    "classify: other shape": classified(
        weights(**{"classifier.bias": torch.zeros(9)}), "1 weights are of another shape"
    ),
    "classify: truncated weights": classified(cut, "cannot be loaded as an image classifier"),
    "classify: weights outside": classified(escape, 'shard "../outside.safetensors" leaves the folder'),
    "classify: pickle with code": classified(
        pickled({"a": Bomb()}),
        "cannot be loaded as an image classifier (its weights are a pickle that would call posix.",
    ),
    "classify: NaN": classified(weights(**{"classifier.bias": BIAS / 0}), "its scores are not finite"),
    "classify: names without classes": classified(
        changing(CONFIG, id2label={str(i + 1): "a" for i in range(10)}), "id2label"
    ),
    "segment: recipe": Case(
        changing("segmenter/config.json", segmentation_recipe={"short_edge": "64"}),
        SEGMENT,
        "segmenter",
        "sides must be",
    ),
    "segment: recipe beyond floats": Case(
        changing("segmenter/config.json", segmentation_recipe={"mean": [10**400, 0, 0]}), SEGMENT, "segmenter", "mean"
    ),
    "segment: unknown recipe": Case(
        changing("segmenter/config.json", segmentation_recipe={"a\nb": 1}), SEGMENT, "segmenter", "unknown a b"
    ),
    "segment: half a config": Case(
        writing("{", "segmenter/config.json"), SEGMENT, "segmenter", "a segmentation model"
    ),
    "segment: no overlay": Case(lambda: None, (*SEGMENT[:-1], "none/o.png"), "none/o.png", "there is no folder none"),
}
