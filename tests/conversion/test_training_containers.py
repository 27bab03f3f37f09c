"""Checkpoints as training frameworks write them around the original network's state dict."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_models.conversion import convert, verify
from hf_models.errors import InputError

from ..harness.conversion_tester import convert_state, original_state, read_manifest, tensors_of

NAME = "internimage_tiny_l"
STATE = original_state(NAME)
EMA = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def inside(part, after, state=STATE):
    """With the name of a wrapper after every `after`, as FSDP and torch.compile of a submodule leave it."""
    return {name.replace(f"{after}.", f"{after}.{part}."): tensor for name, tensor in state.items()}


LIGHTNING = {"pytorch-lightning_version": "2.5.0", "epoch": 3, "hyper_parameters": {"lr": 1e-3}, "loops": {}}
OPTIMIZER = {"state": {i: {"exp_avg": t, "exp_avg_sq": t} for i, t in enumerate(STATE.values())}, "param_groups": []}
MMPRETRAIN = {
    f"head.fc.{name[5:]}" if name.startswith("head.") else f"backbone.{name}": tensor for name, tensor in STATE.items()
}
FORMS = {
    "flat": STATE,
    "DDP": prefixed("module."),
    "torch.compile": {"model": prefixed("_orig_mod.")},
    "DDP around torch.compile": {"model": prefixed("module._orig_mod.")},
    "torch.compile around DDP": {"model": prefixed("_orig_mod.module.")},
    "torch.compile of blocks": inside("_orig_mod", "levels.0"),
    "FSDP": inside("_fsdp_wrapped_module", "levels.0", prefixed("_fsdp_wrapped_module.")),
    "activation checkpoints": inside("_checkpoint_wrapped_module", "levels.0"),
    "Lightning, model": {"state_dict": prefixed("model."), **LIGHTNING},
    "Lightning, net": {"state_dict": prefixed("net."), **LIGHTNING},
    "Lightning, backbone": {"state_dict": prefixed("backbone."), **LIGHTNING},
    "Lightning, an own name in a compiled module": {"state_dict": prefixed("_orig_mod.my_net.module."), **LIGHTNING},
    "Lightning with a weighted loss": {
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(3), "val_acc.total": torch.ones(())},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [OPTIMIZER],
        **LIGHTNING,
    },
    "Lightning, backbone and classifier": {
        "state_dict": {
            **prefixed("model.backbone.", {n: t for n, t in STATE.items() if not n.startswith("head.")}),
            **{f"model.classifier.{n[5:]}": t for n, t in STATE.items() if n.startswith("head.")},
        }
    },
    "a loss beside": {**STATE, "criterion.weight": torch.ones(3)},
    "mmpretrain": {"meta": {}, "state_dict": {**MMPRETRAIN, "data_preprocessor.mean": torch.zeros(3)}},
    "SWA": {"n_averaged": torch.tensor(7), **prefixed("module.")},
    "DeepSpeed": {"module": STATE, "buffer_names": [], "optimizer": OPTIMIZER, "ds_config": {}, "dp_world_size": 1},
    "an optimizer of names": {"model": STATE, "optimizer": {"state": {n: {"step": t} for n, t in STATE.items()}}},
    "nested": {"checkpoint": {"model_state": STATE, "step": 5}},
    "a loose tensor beside": {"state_dict": STATE, "epoch": torch.tensor(3)},
    **{f"own script, {key}": {key: STATE, "loss": 0.1} for key in ("model_state_dict", "net", "weights", "params")},
    "only the average": {"params_ema": STATE},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, tmp_path):
    report = convert_state(tmp_path, NAME, FORMS[form])
    written = tensors_of(tmp_path / "out")
    for ours, theirs in report["written"].items():
        assert torch.equal(written[ours], STATE[theirs])
    assert set(report["written"].values()) == STATE.keys()
    assert verify(tmp_path / "out", source=tmp_path / "checkpoint.pth", progress=False)["tensors"] == len(written)


def test_every_tensor_is_accounted_for(tmp_path):
    dropped = convert_state(tmp_path, NAME, FORMS["Lightning with a weighted loss"])["dropped"]
    assert dropped["criterion.weight"] == dropped["val_acc.total"] == "not in the network, which is model.*"
    assert dropped.keys() == {"criterion.weight", "val_acc.total", "callbacks", "optimizer_states", *LIGHTNING}


@pytest.mark.parametrize(
    ("content", "unasked"),
    [
        ({"model": STATE, "model_ema": EMA}, None),
        ({"params": STATE, "params_ema": EMA}, None),
        ({"net": STATE, "averaged_model": prefixed("module.", EMA)}, None),
        ({"state_dict": prefixed("model.") | prefixed("ema_model.module.", EMA)}, None),
        ({"state_dict": STATE, "state_dict_ema": EMA}, "ema"),  # as timm loads it
        ({"state_dict": STATE, "ema_state_dict": {**prefixed("module.", EMA), "steps": torch.tensor(5)}}, "model"),
        # this is how mmengine writes it: `state_dict` is the average, for use
        (
            {
                "meta": {"mmengine_version": "0.10.4"},
                "state_dict": EMA,
                "ema_state_dict": {**prefixed("module."), "steps": torch.tensor(5)},
            },
            "ema",
        ),
    ],
    ids=["original", "basicsr", "own", "lightning", "timm", "like mmengine", "mmengine"],
)
def test_a_second_set_of_weights(content, unasked, tmp_path):
    if unasked is None:
        with pytest.raises(InputError, match=r"holds .* and .*Choose --weights model or ema"):
            convert_state(tmp_path, NAME, content)
    for chosen in (unasked, "model", "ema"):
        if chosen is None:
            continue
        weights = None if chosen is unasked else chosen
        report = convert_state(tmp_path, NAME, content, weights=weights, overwrite=True)
        expected = EMA if (chosen or unasked) == "ema" else STATE
        assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], expected["head.weight"])
        assert report["source"]["weights"] == chosen
        reasons = [why for name, why in report["dropped"].items() if "ema" in name or name in ("net", "state_dict")]
        assert not any("not weights" in why for why in reasons)
        assert verify(tmp_path / "out", source=tmp_path / "checkpoint.pth", progress=False)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (OPTIMIZER, ", but the state of an optimizer"),
        ({"optimizer": OPTIMIZER, "epoch": 3}, ", but the state of an optimizer"),
        ({"generator": STATE, "critic": STATE}, "holds generator and critic, where one is wanted"),
        (prefixed("student.") | prefixed("teacher."), "holds student. and teacher., where one is wanted"),
        ({"base_model.model.levels.0.lora_A.weight": torch.ones(2)}, "but an adapter (LoRA): merge it"),
        ({"internimage.encoder.stages.0.weight": torch.ones(2)}, "but of a converted model: load it with AutoModel"),
        ({**STATE, **prefixed("module.")}, "twice, in a wrapper and outside"),
    ],
)
def test_the_message_says_what_the_file_looks_like(content, why, tmp_path):
    with pytest.raises(InputError) as caught:
        convert_state(tmp_path, NAME, content)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_there_cannot_be_chosen(tmp_path):
    for content in (STATE, {"model": STATE}, {"state_dict": prefixed("model.")}):
        with pytest.raises(InputError, match="holds no model_ema"):
            convert_state(tmp_path, NAME, content, weights="ema")
    with pytest.raises(InputError, match="nothing but a running average: it holds params_ema"):
        convert_state(tmp_path, NAME, {"params_ema": STATE}, weights="model")


def test_safetensors_with_wrappers(tmp_path):
    save_file(prefixed("model."), tmp_path / "model.safetensors")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(read_manifest(NAME)["config"]))
    convert(tmp_path / "model.safetensors", tmp_path / "out", original_config=config, progress=False)
    assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], STATE["head.weight"])
