"""Detection checkpoints convert completely and compute what the originals computed."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoBackbone,
    AutoImageProcessor,
    AutoModelForInstanceSegmentation,
    AutoModelForObjectDetection,
    PreTrainedConfig,
)
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.conversion import convert
from hf_models.conversion.convert import _image_processor
from hf_models.conversion.export import export
from hf_models.conversion.plan import make_plan
from hf_models.conversion.reading.checkpoint import Checkpoint
from hf_models.conversion.reading.source import Source
from hf_models.errors import InputError
from hf_models.model_cards import render_card
from hf_models.modeling_smt import SMTBackbone

from ..harness.conversion_tester import read_manifest, write_original
from ..harness.detection_originals import (
    FIXTURES,
    MANIFESTS,
    golden,
    golden_checkpoint,
    in_strips,
    opened,
    shapes_of,
    small_checkpoint,
)
from ..harness.segmentation_tester import checkpoint as segmenter
from ..harness.segmentation_tester import write_checkpoint

INITIAL = {f"dino_4scale_cbinternimage_h_objects365_{classes}classes" for classes in (80, 20)}


def test_all_manifests_are_here():
    """Two files of LVIS and two of PASCAL VOC have the same names and shapes; two configs have no published file."""
    assert len(MANIFESTS) == 38
    published = {entry["published"] for entry in MANIFESTS.values()} - {None}
    assert set(zoo.list_models(task="object-detection")) == published | INITIAL


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_checkpoint_maps_exactly_onto_its_model(name, tmp_path):
    entry, config = MANIFESTS[name], tmp_path / "config.json"
    config.write_text(json.dumps(entry["config"]))
    plan = make_plan(opened(name, "mine.pth"), None, config)
    assert plan.key_map.sources | plan.key_map.dropped.keys() == shapes_of(name).keys()
    assert plan.key_map.origins.keys() == plan.expected.keys()
    assert not plan.key_map.dropped
    parameters = sum(t.numel() for key, t in plan.expected.items() if key not in plan.buffers)
    assert parameters == entry["parameters"]
    if entry["published"]:
        # the authors' arguments and the zoo agree, also in what the weights do not show
        published = zoo.find_checkpoint(entry["published"])
        assert parameters == published.parameters and zoo.find_checkpoint(name) is published
        ours, theirs = (json.loads(c.to_json_string(use_diff=False)) for c in (plan.config, published.config()))
        for key in ("id2label", "label2id"):
            ours.pop(key, None), theirs.pop(key, None)
        ours["backbone_config"].pop("reparameterized", None), theirs["backbone_config"].pop("reparameterized", None)
        assert ours == theirs


# --- the goldens, by public names alone


def command(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def convert_by_command(folder: Path, state: dict, config: dict, *options: str) -> Path:
    source, original = write_checkpoint(folder, state, config)
    command("convert", source, folder / "out", "--original-config", original, *options)
    return folder / "out"


def loaded(folder: Path, name: str):
    """The model of a golden, and its processor at the size of the golden's images."""
    long, short = golden(name)[0]["test_pipeline"]["img_scale"]
    processor = AutoImageProcessor.from_pretrained(folder, size={"shortest_edge": short, "longest_edge": long})
    return AutoModelForObjectDetection.from_pretrained(folder).eval(), processor


def check_detections(found: dict, boxes: torch.Tensor, labels: torch.Tensor) -> None:
    """Hold detections against the original's (N, 5) boxes with scores and (N,) labels."""
    assert torch.equal(found["labels"], labels)
    assert (found["boxes"] - boxes[:, :4]).abs().max() <= 0.01
    assert (found["scores"] - boxes[:, 4]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["mask_rcnn_t_like", "dino_t_like"])
def test_golden(name, tmp_path):
    model, processor = loaded(convert_by_command(tmp_path, *golden_checkpoint(name)), name)
    tensors = golden(name)[1]
    for i in range(2):
        image = tensors[f"{i}.image"].numpy()
        inputs = processor(images=[image], return_tensors="pt")
        assert torch.equal(inputs["pixel_values"], tensors[f"{i}.pixel_values"])
        with torch.inference_mode():
            outputs = model(**inputs)
        (found,) = processor.post_process_object_detection(outputs, 0.0, [image.shape[:2]])
        check_detections(found, tensors[f"{i}.det_bboxes"], tensors[f"{i}.det_labels"])
        if f"{i}.masks" in tensors:
            (found,) = processor.post_process_instance_segmentation(
                outputs, 0.0, target_sizes=[image.shape[:2]], return_binary_maps=True
            )
            assert (found["segmentation"] != tensors[f"{i}.masks"].bool()).sum() <= 5


@pytest.mark.parametrize("name", ["mask_rcnn_t_like", "dino_t_like"])
def test_two_images_as_a_batch(name, tmp_path):
    model, processor = loaded(convert_by_command(tmp_path, *golden_checkpoint(name)), name)
    expected = load_file(FIXTURES / "det_batch.safetensors")
    images = [golden(name)[1][f"{i}.image"].numpy() for i in range(2)]
    inputs = processor(images=images, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], expected[f"det_{name}.pixel_values"])
    with torch.inference_mode():
        outputs = model(**inputs)
    sizes = [image.shape[:2] for image in images]
    for i, found in enumerate(processor.post_process_object_detection(outputs, 0.0, sizes)):
        check_detections(found, *(expected[f"det_{name}.{i}.{what}"] for what in ("det_bboxes", "det_labels")))
    if model.config.model_type == "backbone_rcnn":
        masks = processor.post_process_instance_segmentation(outputs, 0.0, target_sizes=sizes, return_binary_maps=True)
        for i, found in enumerate(masks):
            assert (found["segmentation"] != expected[f"det_{name}.{i}.masks"].bool()).sum() <= 5


def test_feed_forward_networks_in_strips_are_joined(tmp_path):
    """InternImage-G's, in any order: the model is that of the whole networks."""
    state, config = golden_checkpoint("dino_t_like")
    whole = convert_by_command(tmp_path, state, config)
    (tmp_path / "strips").mkdir()
    strips = in_strips(state, config)
    assert len(strips) > len(state)
    joined = convert_by_command(tmp_path / "strips", dict(reversed(strips.items())), config)
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, joined))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    report = json.loads((joined / "conversion_report.json").read_text())
    network = "bbox_head.transformer.encoder.layers.0.ffns.0"
    assert report["written"]["encoder.layers.0.mlp.fc2.weight"] == " + ".join(
        f"{network}.fc2_{i}.weight" for i in range(4)
    )
    command("verify", joined, "--source", tmp_path / "strips" / "original.pth")


# --- small checkpoints, all the way

KINDS = [
    ("internimage", "mask_rcnn"),
    ("flash_internimage", "mask_rcnn"),
    ("flash_internimage", "cascade_masks"),
    ("replknet", "cascade_masks"),
    ("internimage", "cascade"),
    ("internimage", "dino"),
    ("internimage_h", "dino_strips"),
    ("flash_internimage", "dino"),
    ("smt", "mask_rcnn"),
    ("cb_internimage_h", "dino"),
    ("replknet", "fcos"),
]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_small_checkpoint(family, kind, tmp_path):
    """Converted in shards, verified, loaded, pushed for show."""
    state, config = small_checkpoint(family, kind)
    state |= {"ema_" + name.replace(".", "_"): tensor for name, tensor in state.items() if name.startswith("neck.")}
    output = convert_by_command(tmp_path, state, config, "--max-shard-size", "300KB")
    report = json.loads((output / "conversion_report.json").read_text())
    assert len(report["files"]) > 1
    ema = {name for name in state if name.startswith("ema_")}
    assert report["dropped"].keys() == {"meta"} | ema
    assert all("running average" in report["dropped"][name] for name in ema)
    assert any(note.startswith("preprocessing is assumed: short side 800") for note in report["notes"])
    command("verify", output, "--source", tmp_path / "original.pth")

    model, info = AutoModelForObjectDetection.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()) and model.config.architectures == [type(model).__name__]
    assert report["parameters"] == model.num_parameters()
    processor = AutoImageProcessor.from_pretrained(output, size={"shortest_edge": 64, "longest_edge": 96})
    image = Image.new("RGB", (60, 40), "teal")
    with torch.inference_mode():
        outputs = model.eval()(**processor(images=[image], return_tensors="pt"))
    assert outputs.boxes.shape == (1, model.config.max_detections, 4) and outputs.boxes.isfinite().all()
    assert (outputs.masks is not None) == (kind in ("mask_rcnn", "cascade_masks"))
    if outputs.masks is not None:
        assert AutoModelForInstanceSegmentation._model_mapping[type(model.config)] is type(model)
    assert "not one that the authors" in (output / "README.md").read_text()
    pushed = command("push", output, "--repo", "me/detector", "--dry-run")
    assert "image_processing_detection.py" in pushed and f"modeling_{model.config.model_type}.py" in pushed


CELLS = ["red", "white", "platelet", "other", "none"]


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": tuple(CELLS), "PALETTE": None}, CELLS),
        ({"dataset_meta": {"classes": CELLS}}, CELLS),  # since mmengine
        ({"CLASSES": ("cell",)}, None),  # another data set's, as those of a checkpoint that training began with
        ({"CLASSES": ("red", "red", "white", "other", "none")}, None),
        ({"CLASSES": ("red", 1, "white", "other", "none")}, None),
    ],
)
def test_classes_are_called_as_in_the_checkpoint(meta, names, tmp_path):
    state, config = golden_checkpoint("mask_rcnn_t_like")
    source, original = write_checkpoint(tmp_path, state, config)
    torch.save({"meta": meta, "state_dict": state}, source)
    command("convert", source, tmp_path / "out", "--original-config", original)
    config = AutoModelForObjectDetection.from_pretrained(tmp_path / "out").config
    assert [config.id2label[i] for i in range(5)] == (names or [f"LABEL_{i}" for i in range(5)])
    assert config.label2id == {name: i for i, name in config.id2label.items()}


# --- how it is trained


def training_of(kind: str, change: dict, tmp_path: Path) -> PreTrainedConfig:
    """Our config of a small checkpoint whose model dict has some entries, with dotted names, changed."""
    state, config = small_checkpoint("internimage", kind)
    for path, value in change.items():
        *parents, leaf = path.split(".")
        section = config
        for parent in parents:
            section = section[int(parent)] if parent.isdecimal() else section[parent]
        section[leaf] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    checkpoint = Checkpoint(Source("mine.pth", []), "model", shapes, {}, {}, [])
    return make_plan(checkpoint, None, tmp_path / "config.json").config


def test_training_is_what_the_config_says(tmp_path):
    stages = [{"assigner": {"pos_iou_thr": iou, "match_low_quality": True}} for iou in (0.4, 0.5, 0.7)]
    config = training_of(
        "cascade",
        {
            "train_cfg": {
                "rpn_proposal": {"nms_pre": 500, "max_per_img": 300},
                "rpn": {"allowed_border": -1, "sampler": {"num": 128}},
                "rcnn": [stage | {"sampler": {"num": 256}} for stage in stages],
            },
            "rpn_head.loss_bbox": {"type": "SmoothL1Loss", "beta": 0.5},
            "roi_head.stage_loss_weights": [1, 1, 0.5],
            **{f"roi_head.bbox_head.{i}.loss_bbox": {"type": "GIoULoss", "loss_weight": 5} for i in range(3)},
        },
        tmp_path,
    )
    assert (config.rpn_train_pre_nms, config.rpn_train_post_nms, config.rpn_samples) == (500, 300, 128)
    assert config.rpn_inside_anchors is False and config.rpn_loss_beta == 0.5 and config.box_best_matches
    assert config.box_ious == [0.4, 0.5, 0.7] and config.box_samples == 256 and config.stage_weights == [1, 1, 0.5]
    assert (config.box_loss, config.box_loss_weight) == ("giou", 5)
    fcos = {"bbox_head.loss_bbox": {"type": "GIoULoss"}, "bbox_head.center_sampling": True}
    config = training_of("fcos", fcos, tmp_path)
    assert (config.box_loss, config.centre_radius) == ("giou", 1.5)


def test_training_of_dino_is_what_the_config_says(tmp_path):
    costs = {"cls_cost": {"weight": 1.5}, "reg_cost": {"weight": 4}, "iou_cost": {"weight": 3.0}}
    denoising = {"noise_scale": {"label": 0.4, "box": 0.6}, "group_cfg": {"num_dn_queries": 50}}
    config = training_of(
        "dino",
        {
            "train_cfg": {"assigner": costs},
            "bbox_head.dn_cfg": denoising,
            "bbox_head.loss_bbox": {"loss_weight": 6},
            "bbox_head.loss_iou": {"loss_weight": 1.0},
            "bbox_head.loss_cls.alpha": 0.3,
        },
        tmp_path,
    )
    assert (config.class_cost, config.bbox_cost, config.giou_cost) == (1.5, 4, 3)
    assert (config.num_denoising, config.label_noise_ratio, config.box_noise_scale) == (50, 0.4, 0.6)
    assert (config.bbox_loss_coefficient, config.giou_loss_coefficient, config.focal_alpha) == (6, 1, 0.3)


def test_a_zero_is_told(tmp_path):
    denoising = {"noise_scale": {"label": 0, "box": 0.0}, "group_cfg": {"num_dn_queries": 0}}
    config = training_of("dino", {"bbox_head.dn_cfg": denoising}, tmp_path)
    assert (config.num_denoising, config.label_noise_ratio, config.box_noise_scale) == (0, 0, 0)


def test_training_that_is_not_known_is_as_published(tmp_path):
    """A detector converts whatever it was trained with."""
    change = {
        "train_cfg": {
            "rpn_proposal": {"nms_pre": -1, "max_per_img": "all"},
            "rpn": {"allowed_border": None, "sampler": None},
            "rcnn": [{"assigner": {"pos_iou_thr": {"stage": 1}}}],
        },
        "roi_head.stage_loss_weights": [1],
        "rpn_head.loss_bbox": {"type": "GIoULoss"},
        "roi_head.bbox_head.loss_bbox": {"type": "BalancedL1Loss", "loss_weight": 3.0},
    }
    told, untold = (training_of("mask_rcnn", given, tmp_path) for given in (change, {}))
    assert told.to_dict() == untold.to_dict()
    assert untold.box_loss == "l1" and untold.box_ious == [0.5] and untold.stage_weights == [1.0]


# --- the backbone alone


@pytest.mark.parametrize(
    ("family", "kind"), [("internimage", "dino"), ("replknet", "fcos"), ("cb_internimage_h", "dino")]
)
def test_the_backbone_alone(family, kind, tmp_path):
    state, config = small_checkpoint(family, kind)
    whole = AutoModelForObjectDetection.from_pretrained(convert_by_command(tmp_path, state, config))
    (tmp_path / "part").mkdir()
    output = convert_by_command(tmp_path / "part", state, config, "--part", "backbone")
    report = json.loads((output / "conversion_report.json").read_text())
    assert report["part"] == "backbone"
    others = {name for name in state if not name.startswith("backbone.")}
    assert report["dropped"] == {"meta": "not weights (dict)"} | dict.fromkeys(others, "outside of the backbone")
    command("verify", output, "--source", tmp_path / "part" / "original.pth")
    command("push", output, "--repo", "me/backbone", "--dry-run")

    backbone, info = type(whole.backbone).from_pretrained(output, output_loading_info=True)
    assert not any(info.values()) and backbone.config.out_features == ["stage2", "stage3", "stage4"]
    assert AutoBackbone._model_mapping[type(backbone.config)] is type(backbone)
    inputs = AutoImageProcessor.from_pretrained(output)(Image.new("RGB", (60, 40), "teal"), return_tensors="pt")
    with torch.inference_mode():
        alone, inside = backbone.eval()(**inputs).feature_maps, whole.backbone.eval()(**inputs).feature_maps
    assert all(torch.equal(*pair) for pair in zip(alone, inside, strict=True))
    card = ModelCard.load(output / "README.md")
    assert "the backbone alone" in card.text and card.data.pipeline_tag == "image-feature-extraction"


def test_the_backbone_of_a_published_detector():
    """Preprocessing and card are made of what is known of the whole."""
    name = "RepLKNet-XL_MegData73Mpretrain_cascade_mask_rcnn_3x_coco"
    plan = make_plan(opened(name), name, None, "backbone")
    assert plan.config.model_type == "replknet" and plan.config.normalize_features
    assert plan.model_class.__name__ == "RepLKNetBackbone" and plan.key_map.origins.keys() == plan.expected.keys()
    assert tuple(_image_processor(plan).image_mean) == (0.5, 0.5, 0.5)
    plan.config.architectures = [plan.model_class.__name__]
    card = render_card(plan.published, plan.config)
    assert f"It is the backbone of {name}, without the head." in card and "55.5" not in card
    assert "MegData-73M" in card and "classes of COCO, is not here" in card


def test_the_backbone_of_a_segmentation_model(tmp_path):
    state, config = segmenter("smt", "upernet")
    output = convert_by_command(tmp_path, state, config, "--part", "backbone")
    _, info = SMTBackbone.from_pretrained(output, output_loading_info=True)
    assert not any(info.values())


# --- whole configs


@pytest.mark.parametrize(
    "around", [lambda steps: {"test_pipeline": steps}, lambda steps: {"data": {"test": {"pipeline": steps}}}]
)
def test_a_whole_config_says_how_images_are_prepared(tmp_path, around):
    state, model = golden_checkpoint("dino_t_like")
    normalize = {"type": "Normalize", "mean": [127.5] * 3, "std": [127.5] * 3, "to_rgb": True}
    inner = [{"type": "Resize", "keep_ratio": True}, normalize, {"type": "Pad", "size_divisor": 32}]
    augment = {"type": "MultiScaleFlipAug", "img_scale": [1400, 700], "flip": False, "transforms": inner}
    pipeline = [{"type": "LoadImageFromFile"}, augment]
    output = convert_by_command(tmp_path, state, {"model": model, "runner": {}, **around(pipeline)})
    processor = AutoImageProcessor.from_pretrained(output)
    assert tuple(processor.image_mean) == tuple(processor.image_std) == (0.5, 0.5, 0.5)
    assert dict(processor.size) == {"shortest_edge": 700, "longest_edge": 1400}
    assert json.loads((output / "conversion_report.json").read_text())["notes"] == []

    for step, name, value in ((augment, "flip", True), (normalize, "to_rgb", False)):
        step[name] = value
        (tmp_path / "other.json").write_text(json.dumps({"model": model, **around(pipeline)}))
        with pytest.raises(InputError, match=f"test_pipeline has {name}={value}, "):
            convert(
                tmp_path / "original.pth", tmp_path / "no", original_config=tmp_path / "other.json", progress=False
            )
        del step[name]


# --- what cannot be converted


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("mask_rcnn", "data_preprocessor", {"type": "DetDataPreprocessor"}, "data_preprocessor belongs to .* mmdet 3"),
        ("mask_rcnn", "_scope_", "mmdet", "_scope_ belongs to a config of mmdet 3"),
        ("mask_rcnn", "type", "RetinaNet", "type='RetinaNet' is not supported"),
        ("mask_rcnn", "neck.num_outs", 6, "neck.num_outs=6 is not supported, only 5 is"),
        ("mask_rcnn", "neck.norm_cfg", {"type": "BN"}, "neck.norm_cfg.type='BN' is not supported"),
        ("mask_rcnn", "rpn_head.anchor_generator.ratios", [1.0], r"ratios=\[1.0\] is not supported"),
        ("mask_rcnn", "rpn_head.anchor_generator.scales", [4, 8], r"scales=\[4, 8\] is not supported, one scale is"),
        ("mask_rcnn", "rpn_head.anchor_generator.center_offset", 0.5, "center_offset=0.5 is not supported"),
        ("mask_rcnn", "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", 2, "sampling_ratio=2 is not supported"),
        ("mask_rcnn", "roi_head.mask_roi_extractor.finest_scale", 56, "finest_scale=56 is not supported, only 14 is"),
        ("mask_rcnn", "roi_head.bbox_head.reg_class_agnostic", True, "reg_class_agnostic=True is not supported"),
        ("mask_rcnn", "roi_head.bbox_head.loss_cls.type", "SeesawLoss", "loss_cls.type='SeesawLoss'"),
        ("mask_rcnn", "roi_head.mask_iou_head", {"type": "MaskIoUHead"}, "unknown argument roi_head.mask_iou_head"),
        ("mask_rcnn", "test_cfg.rcnn.nms.type", "soft_nms", "test_cfg.rcnn.nms.type='soft_nms' is not supported"),
        ("mask_rcnn", "test_cfg.rcnn.mask_thr_binary", 0.4, "mask_thr_binary=0.4 is not supported"),
        ("mask_rcnn", "test_cfg.rpn", None, "test_cfg.rpn.nms_pre, .* is missing"),
        ("mask_rcnn", "test_cfg", None, "test_cfg is missing. Give the model dict"),
        ("mask_rcnn", "roi_head.bbox_head.num_classes", 90, "num_classes=5 is not supported, only 90 is"),
        ("mask_rcnn", "backbone.out_indices", [1, 2, 3], r"out_indices=\[1, 2, 3\] is not supported"),
        ("mask_rcnn", "semantic_head", {"type": "FusedSemanticHead"}, "unknown argument semantic_head.type"),
        ("cascade_masks", "roi_head.num_stages", 2, "roi_head.num_stages=2 is not supported, only 3 is"),
        ("dino", "neck.act_cfg", {"type": "ReLU"}, "neck.act_cfg.type='ReLU' is not supported, only None is"),
        ("dino", "bbox_head.positional_encoding.temperature", 10000, "temperature=10000 is not supported, only 20 is"),
        ("dino", "bbox_head.as_two_stage", False, "as_two_stage=False is not supported"),
        ("dino", "bbox_head.num_query", 900, "two_stage_num_proposals=30 is not supported, only 900 is"),
        ("dino", "bbox_head.transformer.decoder.num_layers", 4, "decoder.num_layers is 3 in the weights, 4 in"),
        ("dino", "test_cfg.nms", {"type": "nms"}, "unknown argument test_cfg.nms.type"),
        ("fcos", "bbox_head.norm_on_bbox", True, "norm_on_bbox=True is not supported"),
        ("fcos", "bbox_head.centerness_on_reg", True, "centerness_on_reg=True is not supported"),
    ],
)
def test_what_no_model_here_computes_is_refused_by_name_and_value(kind, path, value, message, tmp_path):
    state, config = small_checkpoint("internimage", kind)
    *parents, leaf = path.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[leaf] = value
    source, original = write_checkpoint(tmp_path, state, config)
    with pytest.raises(InputError, match=message) as caught:
        convert(source, tmp_path / "out", original_config=original, progress=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_stages_that_differ_are_refused(tmp_path):
    state, config = small_checkpoint("internimage", "cascade")
    config["roi_head"]["bbox_head"][1]["fc_out_channels"] = 64
    source, original = write_checkpoint(tmp_path, state, config)
    with pytest.raises(
        InputError, match=r"bbox_head\.1\.fc_out_channels=64 is not supported beside the others, only 32"
    ):
        convert(source, tmp_path / "out", original_config=original, progress=False)


def test_boxes_of_all_classes_are_those_of_one_class():
    """CrowdHuman's head predicts one box for all classes; with its one class, that is the box of the class."""
    name = "cascade_internimage_xl_fpn_3x_crowd_human"
    assert MANIFESTS[name]["config"]["roi_head"]["bbox_head"][0]["reg_class_agnostic"]
    with pytest.raises(InputError, match=f"{name}.pth: not the name of a published file"):
        make_plan(opened(name), None, None)


def test_other_numbers_of_classes_are_refused():
    """A head for the 91 ids of COCO, under the name of a published file."""
    name = "mask_rcnn_internimage_t_fpn_1x_coco"
    checkpoint = opened(name)
    for key, rows in (("bbox_head.fc_cls", 92), ("bbox_head.fc_reg", 364), ("mask_head.conv_logits", 91)):
        for leaf in ("weight", "bias"):
            tensor = checkpoint.tensors[f"roi_head.{key}.{leaf}"]
            checkpoint.tensors[f"roi_head.{key}.{leaf}"] = tensor.new_empty((rows, *tensor.shape[1:]))
    with pytest.raises(
        InputError, match=r"looks different \(num_classes 91\), not like mask_rcnn_\w+ \(80\)"
    ) as caught:
        make_plan(checkpoint, None, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--original-config", "config.py"), "config.py: a program, which is not run. Write it as JSON"),
        (
            ("--original-config", "original.json", "--part", "neck"),
            "--part must be backbone or img_backbone, got neck.",
        ),
    ],
)
def test_bad_options(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path, *golden_checkpoint("dino_t_like"))
    Path("config.py").write_text("model = dict(type='DINO')\n")
    result = CliRunner().invoke(app, ["convert", "original.pth", "out", *arguments])
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_classifier_has_no_head_to_leave_out(tmp_path):
    source, original = write_original(tmp_path, read_manifest("internimage_tiny_l"))
    with pytest.raises(InputError, match="a classifier, whose backbone AutoBackbone loads from the whole"):
        convert(source, tmp_path / "out", original_config=original, part="backbone", progress=False)


def test_detectors_are_not_exported(tmp_path):
    output = convert_by_command(tmp_path, *golden_checkpoint("dino_t_like"))
    with pytest.raises(InputError, match=r"is for object-detection; only classifiers .* `hf-models detect`"):
        export(str(output), tmp_path / "exported")
