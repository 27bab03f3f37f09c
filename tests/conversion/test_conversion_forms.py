"""Forms of checkpoints: containers, wrappers, dtypes, names of other code bases."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

from hf_models.conversion import convert, verify
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv

from ..harness.conversion_tester import (
    convert_state,
    converted,
    original_state,
    tensors_of,
)


def test_containers_and_wrappers(tmp_path):
    """Flat, nested, prefixed, in the old format, and as safetensors: the same result."""
    state = original_state("smt_tiny_like")
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    written = []
    for i, content in enumerate((state, {"state_dict": wrapped, "epoch": 3}, {"module": state})):
        folder = tmp_path / str(i)
        folder.mkdir()
        report = convert_state(folder, "smt_tiny_like", content)
        written.append(tensors_of(folder / "out"))
        assert report["dropped"] == ({"epoch": "not weights (int)"} if i == 1 else {})
    config = tmp_path / "0" / "config.json"
    torch.save({"model": state}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("old.bin", "new.safetensors"):
        convert(tmp_path / name, tmp_path / name[:3], original_config=config, progress=False)
        written.append(tensors_of(tmp_path / name[:3]))
    for other in written[1:]:
        assert other.keys() == written[0].keys()
        assert all(torch.equal(other[name], written[0][name]) for name in other)


def test_metadata_of_training_scripts_is_read_safely_and_dropped(tmp_path):
    yacs = pytest.importorskip("yacs.config")
    state = original_state("smt_tiny_like")
    extras = {"config": yacs.CfgNode({"MODEL": {"TYPE": "smt"}}), "args": argparse.Namespace(lr=1e-3), "optimizer": {}}
    report = convert_state(tmp_path, "smt_tiny_like", {"model": state, **extras})
    assert set(report["dropped"]) == set(extras)


def test_weights_chooses_between_model_and_ema(tmp_path):
    state = original_state("smt_tiny_like")
    ema = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    report = convert_state(tmp_path, "smt_tiny_like", {"model": state, "model_ema": ema}, weights="ema")
    assert report["source"]["weights"] == "ema" and report["dropped"] == {"model": "not chosen: --weights ema"}
    assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], ema["head.weight"])
    assert verify(tmp_path / "out", source=tmp_path / "checkpoint.pth", progress=False)


def test_strided_shared_and_double_tensors_are_copied_with_a_note(tmp_path):
    state = {name: t.double() if t.is_floating_point() else t for name, t in original_state("smt_tiny_like").items()}
    state["head.weight"] = state["head.weight"].t().contiguous().t()
    both = torch.cat((state["norm1.weight"], state["norm1.bias"]))
    state["norm1.weight"], state["norm1.bias"] = both.chunk(2)
    report = convert_state(tmp_path, "smt_tiny_like", state)
    assert report["dtype"] == "float32" and "values were cast from float64 to float32" in report["notes"]
    assert any("copied: norm1.weight, norm1.bias, head.weight" in note for note in report["notes"])
    assert torch.equal(tensors_of(tmp_path / "out")["classifier.weight"], state["head.weight"].float())


def test_smt_names_of_the_detection_code(tmp_path):
    state = {name.replace(".local_conv.", ".dw_conv."): t for name, t in original_state("smt_tiny_like").items()}
    assert any(".dw_conv." in name for name in state)
    convert_state(tmp_path, "smt_tiny_like", state)


def test_replknet_names_of_pretraining_files_and_of_openmmlab(tmp_path):
    state = original_state("replknet_31_like")
    pretraining = {name.replace("head.", "head.cls_22k."): tensor for name, tensor in state.items()}
    openmmlab = {
        name.replace("head.", "head.fc.")
        if name.startswith("head.")
        else f"backbone.stages.3.{name}"
        if name.startswith("norm.")
        else f"backbone.{name}": tensor
        for name, tensor in state.items()
    }
    for i, variant in enumerate((pretraining, openmmlab)):
        folder = tmp_path / str(i)
        folder.mkdir()
        convert_state(folder, "replknet_31_like", variant)


@pytest.mark.parametrize("name", ["replknet_31_like", "replknet_xl_like"])
def test_merged_replknet_converts_and_equals_the_unmerged(name, tmp_path):
    """The form of the file decides, whatever the arguments say."""
    _, output, _ = converted(tmp_path, name)
    unmerged = AutoModelForImageClassification.from_pretrained(output).eval()
    merged = AutoModelForImageClassification.from_pretrained(output).eval()
    for module in merged.modules():
        if isinstance(module, ReparameterizableLargeKernelConv):
            module.merge()
    original = {}
    ours_to_theirs = json.loads((output / "conversion_report.json").read_text())["written"]
    for ours, tensor in merged.state_dict().items():
        if ".large_kernel.merged." in ours:
            branch, leaf = ours.split(".merged.")
            theirs = ours_to_theirs[f"{branch}.large.conv.weight"].replace(
                "lkb_origin.conv.weight", f"lkb_reparam.{leaf}"
            )
        else:
            theirs = ours_to_theirs[ours]
        original[theirs] = tensor
    (tmp_path / "merged").mkdir()
    convert_state(tmp_path / "merged", name, original)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "merged" / "out").eval()
    assert loaded.config.reparameterized
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixel_values).logits, unmerged(pixel_values).logits, rtol=1e-4, atol=1e-5)
