"""Mask R-CNN and Cascade Mask R-CNN: against the original's stored steps, and against plain loops."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForObjectDetection

from hf_models.configuration_backbone_rcnn import BackboneRCNNConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.conversion.backbones.internimage import FAMILY
from hf_models.modeling_backbone_rcnn import level_of

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
GOLDEN = load_file(FIXTURES / "det_mask_rcnn_t_like.safetensors")
ABOUT = json.loads((FIXTURES / "det_mask_rcnn_t_like.json").read_text())
IMAGES = (0, 1)
NAMES = {
    r"^neck\.lateral_convs\.(\d)\.conv": r"neck.lateral_convs.\1",
    r"^neck\.fpn_convs\.(\d)\.conv": r"neck.output_convs.\1",
    r"^rpn_head\.rpn_conv": "rpn.conv",
    r"^rpn_head\.rpn_cls": "rpn.objectness",
    r"^rpn_head\.rpn_reg": "rpn.deltas",
    r"^roi_head\.bbox_head\.shared_fcs": "box_heads.0.fcs",
    r"^roi_head\.bbox_head\.fc_cls": "box_heads.0.classifier",
    r"^roi_head\.bbox_head\.fc_reg": "box_heads.0.deltas",
    r"^roi_head\.mask_head\.convs\.(\d)\.conv": r"mask_heads.0.convs.\1",
    r"^roi_head\.mask_head\.upsample": "mask_heads.0.upsample",
    r"^roi_head\.mask_head\.conv_logits": "mask_heads.0.classifier",
}


def original_model():
    """The model of the golden, with its weights."""
    backbone = InternImageConfig(
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 2, 1, 1],
        groups=[1, 2, 4, 8],
        mlp_ratio=2.0,
        layer_scale_init_value=1.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = BackboneRCNNConfig(
        backbone_config=backbone,
        num_labels=5,
        fpn_channels=16,
        rpn_pre_nms=150,
        rpn_post_nms=60,
        roi_finest_scale=14,
        box_hidden_size=32,
        max_detections=12,
    )
    weights = {name.removeprefix("weights."): v for name, v in GOLDEN.items() if name.startswith("weights.")}
    inside = FAMILY.rename(name.removeprefix("backbone.") for name in weights if name.startswith("backbone."))
    state = {f"backbone.{new}": weights[f"backbone.{old}"] for old, new in inside.items()}
    for old, tensor in weights.items():
        for pattern, replacement in NAMES.items():
            if re.search(pattern, old):
                state[re.sub(pattern, replacement, old)] = tensor
    model = AutoModelForObjectDetection.from_config(config).eval()
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def original():
    return original_model()


@pytest.fixture(params=IMAGES)
def stored(request):
    """What the original computed for one image, step by step, with the size of the image in the padding."""
    prefix = f"{request.param}."
    steps = {name.removeprefix(prefix): tensor for name, tensor in GOLDEN.items() if name.startswith(prefix)}
    about = ABOUT["images"][request.param]
    height, width, _ = about["img_shape"]
    return steps | {
        "size": torch.tensor([width, height], dtype=torch.float32),
        "scale": torch.tensor(about["scale_factor"]),
    }


def levels(stored):
    return [stored[f"fpn{level}"] for level in range(5)]


def check(found, expected, tolerance=1e-5):
    """Equal within a part of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


class TestStoredSteps:
    """Each step of the original from its stored inputs."""

    @pytest.fixture(autouse=True)
    def without_gradients(self):
        with torch.no_grad():
            yield

    def test_pyramid(self, original, stored):
        for found, expected in zip(
            original.neck([stored[f"feat{i}"] for i in range(1, 5)]), levels(stored), strict=True
        ):
            check(found, expected)

    def test_region_proposal_head(self, original, stored):
        objectness, deltas = original.rpn(levels(stored))
        for level in range(5):
            check(objectness[level], stored[f"rpn_cls{level}"])
            check(deltas[level], stored[f"rpn_reg{level}"])

    def test_candidates_and_proposals(self, original, stored):
        head = [[stored[f"rpn_{name}{level}"] for level in range(5)] for name in ("cls", "reg")]
        boxes, scores, of_level = original.candidates(*head, stored["size"][None])
        exists = (boxes[0, :, 2:] > boxes[0, :, :2]).all(dim=1)
        check(boxes[0, exists], stored["rpn_candidates"][:, :4])
        check(scores[0, exists], stored["rpn_candidates"][:, 4])
        assert torch.equal(of_level[exists], stored["rpn_candidate_levels"])
        (proposals,) = original.proposals(*head, stored["size"][None])
        check(proposals, stored["proposals"][:, :4])

    def test_box_head(self, original, stored):
        proposals = stored["proposals"][:, :4]
        assert torch.equal(level_of(proposals, 14, 4), stored["roi_levels0"])
        pooled = original.pool(levels(stored)[:4], proposals, 7)
        check(pooled[:16], stored["roi_feats0"])
        logits, deltas = original.box_heads[0](pooled)
        check(logits, stored["cls_score0"])
        check(deltas.flatten(1), stored["bbox_pred0"])

    def test_scores_and_boxes(self, original, stored):
        scores, boxes = original.classified(levels(stored)[:4], stored["proposals"][:, :4], stored["size"])
        region, label = (scores > 0.05).nonzero(as_tuple=True)
        assert torch.equal(label, stored["candidate_labels"])
        check(boxes[region, label] / stored["scale"], stored["candidates"][:, :4])
        check(scores[region, label], stored["candidates"][:, 4])

    def test_detections(self, original, stored):
        scores, labels, boxes, masks = original.detect(levels(stored)[:4], stored["proposals"][:, :4], stored["size"])
        assert torch.equal(labels, stored["det_labels"])
        check(scores, stored["det_bboxes"][:, 4])
        check(boxes * stored["size"].repeat(2) / stored["scale"], stored["det_bboxes"][:, :4])
        check(masks, stored["mask_logits0"].sigmoid())

    def test_masks(self, original, stored):
        regions = stored["mask_rois"][:, 1:]
        pooled = original.pool(levels(stored)[:4], regions, 14)
        check(pooled[:6], stored["mask_feats0"])
        logits = original.mask_heads[0](pooled)[torch.arange(12), stored["det_labels"]]
        check(logits, stored["mask_logits0"])
        check(original.masks(levels(stored)[:4], regions, stored["det_labels"]), logits.sigmoid())

    def test_from_pixels(self, original, stored):
        width, height = stored["size"].int().tolist()
        pixel_mask = torch.zeros(1, *stored["pixel_values"].shape[2:], dtype=torch.long)
        pixel_mask[:, :height, :width] = 1
        output = original(stored["pixel_values"], pixel_mask)
        assert torch.equal(output.labels[0], stored["det_labels"])
        torch.testing.assert_close(output.scores[0], stored["det_bboxes"][:, 4], rtol=0, atol=1e-4)
        boxes = output.boxes[0] * stored["size"].repeat(2) / stored["scale"]
        torch.testing.assert_close(boxes, stored["det_bboxes"][:, :4], rtol=0, atol=0.01)
        torch.testing.assert_close(output.masks[0], stored["mask_logits0"].sigmoid(), rtol=0, atol=1e-3)
