"""FCOS against plain loops in float64, number by number."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForObjectDetection

from hf_models.configuration_backbone_fcos import BackboneFCOSConfig

from ..harness.hub_tester import pixels, run_client
from ..harness.plain_rcnn import plain_nms
from ..harness.rcnn_tester import BACKBONES, padded_images

SMALL = {"num_labels": 4, "fpn_channels": 8, "head_convs": 2, "group_norm_groups": 2, "max_detections": 12}
SMALL |= {"candidates_per_level": 30}


def small_config(backbone="replknet", **kwargs) -> BackboneFCOSConfig:
    stages = {
        "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage2", "stage3", "stage4"],
    }
    return BackboneFCOSConfig(
        backbone_config={"model_type": backbone, **stages, **BACKBONES[backbone]}, **SMALL | kwargs
    )


def small_model(backbone="replknet", seed=0, **kwargs):
    """Random weights, whose scores, centres and boxes differ from place to place and from level to level."""
    torch.manual_seed(seed)
    model = AutoModelForObjectDetection.from_config(small_config(backbone, **kwargs)).eval()
    for name, tensor in model.state_dict().items():
        if name.startswith("head.scales."):
            tensor.uniform_(0.5, 1.5)
        elif name.startswith("head.") and name.endswith("weight") and ".norms." not in name:
            tensor.normal_(std=2 * tensor[0].numel() ** -0.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    model.head.distances.bias.data += 2.5  # boxes of about 25 pixels
    return model


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


class PlainFCOS:
    """The detector of a config with the weights of a model, on the feature maps of one image."""

    def __init__(self, model):
        self.config = model.config
        self.weights = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def detections(self, feature_maps, size):
        """Scores, labels and boxes in pixels of an image of a size (width, height), the best first."""
        found = []
        for i, level in enumerate(self.pyramid([feature_map.double() for feature_map in feature_maps])):
            stride = 8 * 2**i
            of_class, of_box = self.tower("class_tower", level), self.tower("box_tower", level)
            classes = self.conv("head.classifier", of_class)[0].sigmoid()
            centreness = self.conv("head.centreness", of_class)[0, 0].sigmoid()
            distances = (self.conv("head.distances", of_box)[0] * self.weights[f"head.scales.{i}"]).exp()
            candidates = []
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    left, top, right, bottom = distances[:, row, column].tolist()
                    edges = (x - left, y - top, x + right, y + bottom)
                    box = [min(max(edge, 0), limit) for edge, limit in zip(edges, (*size, *size), strict=True)]
                    for label in range(self.config.num_labels):
                        if (score := classes[label, row, column].item()) > self.config.score_threshold:
                            candidates.append((score, centreness[row, column].item(), label, box))
            candidates.sort(key=lambda candidate: -candidate[0])
            found += candidates[: self.config.candidates_per_level]
        scores = [score * centre for score, centre, _, _ in found]
        labels, boxes = [label for _, _, label, _ in found], [box for _, _, _, box in found]
        kept = plain_nms(boxes, scores, self.config.nms_threshold, labels)[: self.config.max_detections]
        return [scores[i] for i in kept], [labels[i] for i in kept], [boxes[i] for i in kept], len(found)

    def pyramid(self, feature_maps):
        laterals = [self.conv(f"neck.lateral_convs.{i}", x, padding=0) for i, x in enumerate(feature_maps)]
        for i in (1, 0):
            height, width = laterals[i].shape[2:]
            rows = [row * laterals[i + 1].shape[2] // height for row in range(height)]
            columns = [column * laterals[i + 1].shape[3] // width for column in range(width)]
            laterals[i] = laterals[i] + laterals[i + 1][:, :, rows][:, :, :, columns]
        levels = [self.conv(f"neck.output_convs.{i}", x) for i, x in enumerate(laterals)]
        p6 = self.conv("neck.output_convs.3", levels[2], stride=2)
        return [*levels, p6, self.conv("neck.output_convs.4", p6.clamp(min=0), stride=2)]

    def tower(self, name, x):
        for i in range(self.config.head_convs):
            x = self.conv(f"head.{name}.convs.{i}", x)
            groups = x.unflatten(1, (self.config.group_norm_groups, -1))
            mean = groups.mean((2, 3, 4), keepdim=True)
            variance = groups.var((2, 3, 4), keepdim=True, correction=0)
            x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
            weight, bias = (
                self.weights[f"head.{name}.norms.{i}.{leaf}"][:, None, None] for leaf in ("weight", "bias")
            )
            x = (x * weight + bias).clamp(min=0)
        return x

    def conv(self, name, x, padding=1, stride=1):
        bias = self.weights.get(f"{name}.bias")
        return F.conv2d(x, self.weights[f"{name}.weight"], bias, padding=padding, stride=stride)


@pytest.mark.parametrize("backbone", ["replknet", "internimage", "convnext"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_is_a_plain_loop(backbone, seed):
    model, size = small_model(backbone, seed), (121, 101)
    inputs = padded_images(size, seed=seed)
    feature_maps = model.backbone(inputs["pixel_values"]).feature_maps
    plain = PlainFCOS(model)
    for found, level in zip(model.neck(feature_maps), plain.pyramid([x.double() for x in feature_maps]), strict=True):
        torch.testing.assert_close(found, level.float(), rtol=0, atol=1e-5)
    scores, labels, boxes, candidates = plain.detections(feature_maps, size)
    assert candidates > model.config.candidates_per_level + 5 > len(scores) == 12, "everything that is cut is cut here"
    assert len(set(labels)) > 1 and any(
        0 < edge < limit for box in boxes for edge, limit in zip(box, size * 2, strict=True)
    )
    output = model(**inputs)
    assert output.labels[0].tolist() == labels and output.masks is None
    torch.testing.assert_close(output.scores[0], torch.tensor(scores), rtol=0, atol=1e-4)
    torch.testing.assert_close(output.boxes[0] * torch.tensor(size * 2), torch.tensor(boxes), rtol=0, atol=1e-2)


def test_detections_of_a_batch():
    model, sizes = small_model(), [(128, 64), (70, 50)]
    inputs = padded_images(*sizes)
    output = model(**inputs, output_hidden_states=True)
    assert output.scores.shape == output.labels.shape == (2, 12) and output.boxes.shape == (2, 12, 4)
    assert output.loss is None and len(output.hidden_states) == 5 and (output.scores.diff(dim=1) <= 0).all()
    assert (output.boxes >= 0).all() and (output.boxes <= 1).all()
    for i in range(2):
        alone = model(**{name: tensor[i : i + 1] for name, tensor in inputs.items()})
        torch.testing.assert_close(output.boxes[i], alone.boxes[0], rtol=0, atol=1e-4)
    model.config.score_threshold = 1.0
    output = model(**inputs)
    assert (output.labels == -1).all() and not output.scores.any() and not output.boxes.any()


def test_what_the_model_does_not_take_is_refused():
    model, inputs = small_model(), padded_images((64, 64))
    with pytest.raises(ValueError, match=r"pixel_mask: expected \(1, 64, 64\), got \(1, 64, 32\)"):
        model(inputs["pixel_values"], inputs["pixel_mask"][:, :, :32])
    with pytest.raises(ValueError, match="candidates_per_level must be positive, got 0"):
        small_config(candidates_per_level=0)
    with pytest.raises(ValueError, match='box_loss must be "iou" or "giou", got \'l1\''):
        small_config(box_loss="l1")


def test_the_default_is_the_published_detector(tmp_path):
    config = BackboneFCOSConfig(num_labels=80)
    with torch.device("meta"):
        model = AutoModelForObjectDetection.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 87_165_658
    assert config.level_strides == [8, 16, 32, 64, 128]
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())


def test_every_layer_is_initialised():
    torch.manual_seed(0)
    for name, tensor in AutoModelForObjectDetection.from_config(small_config()).state_dict().items():
        if name.startswith("head.scales.") or (".norms." in name and name.startswith("head.") and "weight" in name):
            assert (tensor == 1).all(), name
        elif name.startswith(("head.", "neck.")) and name.endswith("bias"):
            expected = 0.01 if name == "head.classifier.bias" else 0.5
            torch.testing.assert_close(tensor.sigmoid(), torch.full_like(tensor, expected), msg=name)
        elif name.startswith(("head.", "neck.")):
            xavier = math.sqrt(6 / sum(torch.nn.init._calculate_fan_in_and_fan_out(tensor)) / 3)
            assert 0.5 < tensor.std() / (0.01 if name.startswith("head.") else xavier) < 2, name


def test_new_classes_without_the_package(tmp_path):
    """A repository brings the code, and a new classifier starts small."""
    model = small_model()
    model.save_pretrained(tmp_path / "model")
    case = {"class": "AutoModelForObjectDetection", "id": str(tmp_path / "model")}
    case |= {"name": "fcos", "kwargs": {"trust_remote_code": True}}
    told, _ = run_client(tmp_path / "client", {"HF_HOME": str(tmp_path)}, [case], absent=["hf_models"])
    assert told["results"][0]["module"].startswith("transformers_modules.") and not told["results"][0]["problems"]
    new, info = AutoModelForObjectDetection.from_pretrained(
        tmp_path / "model", num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {name for name, *_ in info["mismatched_keys"]} == {"head.classifier.weight", "head.classifier.bias"}
    assert 0.005 < new.head.classifier.weight.std() < 0.02 and not info["missing_keys"]
    assert torch.equal(new.head.scales[3], model.head.scales[3])
    assert new(pixels()).labels.max() < 7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_places(dtype, tmp_path):
    small_model().save_pretrained(tmp_path)
    inputs = padded_images((96, 64))
    model = AutoModelForObjectDetection.from_pretrained(tmp_path, dtype=dtype, device_map="auto").eval()
    output = model(**inputs)
    assert output.scores.dtype == output.boxes.dtype == torch.float32
    assert (output.labels >= 0).any() and output.boxes.isfinite().all()


def test_the_dense_part_compiles_and_exports():
    model = small_model()
    feature_maps = model.backbone(padded_images((96, 64))["pixel_values"]).feature_maps
    levels = model.neck(feature_maps)
    for module, inputs in ((model.neck, feature_maps), (model.head, levels)):
        exported = torch.export.export(module, (inputs,)).module()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(exported(inputs), module(inputs))
        torch.testing.assert_close(compiled(inputs), module(inputs))
