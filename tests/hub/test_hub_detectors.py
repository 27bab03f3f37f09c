"""Detectors that were pushed load by their id, with every Auto class, where this package is not installed."""

import pytest
import torch
from huggingface_hub import HfApi, constants
from transformers import AutoConfig, AutoModelForObjectDetection

from hf_models.conversion.publish import push_model
from hf_models.image_processing_detection import DetectionImageProcessor

from ..harness.hub_double import Hub
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import TINY, pixels, run_client

DETECTORS = {
    "backbone_rcnn": {"fpn_channels": 8, "box_hidden_size": 16, "mask_convs": 1, "score_threshold": 0.0},
    "backbone_fcos": {"fpn_channels": 8, "head_convs": 1, "group_norm_groups": 2, "score_threshold": 0.0},
    "dino_detector": {
        **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 8, "group_norm_groups": 2},
        "max_detections": 8,
    },
}


@pytest.mark.parametrize("name", DETECTORS)
def test_without_the_package(name, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    torch.manual_seed(0)
    stages = [f"stage{stage}" for stage in range(1 if name == "backbone_rcnn" else 2, 5)]
    backbone = AutoConfig.for_model("smt", **TINY["smt"], out_features=stages)
    config = AutoConfig.for_model(name, backbone_config=backbone, num_labels=3, **DETECTORS[name])
    model = AutoModelForObjectDetection.from_config(config).eval()
    model.save_pretrained(tmp_path / "model")
    DetectionImageProcessor().save_pretrained(tmp_path / "model")
    with torch.inference_mode():
        expected = model(pixels())
    with Hub() as hub:
        push_model(tmp_path / "model", f"acme/{name}", api=HfApi(endpoint=hub.url, token=TOKEN), progress=False)
        cases = [
            {"name": auto_class, "class": auto_class, "id": f"acme/{name}", "kwargs": {"trust_remote_code": True}}
            for auto_class in config.auto_classes
        ]
        told, outputs = run_client(
            tmp_path / "client", hub.environment(tmp_path / "home"), cases, absent=["hf_models"]
        )
    assert len(told["results"]) == len(cases) and not any(result["problems"] for result in told["results"])
    for auto_class in config.auto_classes:
        for key in ("scores", "boxes"):
            torch.testing.assert_close(outputs[f"{auto_class}/{key}"], expected[key], rtol=1e-4, atol=1e-4)
