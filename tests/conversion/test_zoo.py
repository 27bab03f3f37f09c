"""Every entry of the zoo is complete, builds its config and its image processor, and is found by its names."""

import dataclasses
import json
from collections import Counter

import pytest
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor

from hf_models.errors import InputError
from hf_models.zoo import (
    LABEL_FILES,
    detection_names,
    find_checkpoint,
    get_model,
    label_names,
    list_models,
    wnid_names,
)
from hf_models.zoo.segmentation_labels import class_colours, head_names, palette, voc_colour
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

NAMES = list_models()
CLASSIFIERS = list_models(task="image-classification")
SEGMENTERS = list_models(task="image-segmentation")
DETECTORS = list_models(task="object-detection")
BACKBONES = list_models(task="image-feature-extraction")
SIZES = {"imagenet-1k": 1_000, "imagenet-22k": 21_841}

# Not stored in the weights, so that no conversion can notice a mistake here: (offset_scale, intermediate_norm_layers).
UNSEEN_IN_WEIGHTS = {
    "internimage_t_1k_224": (1.0, ()),
    "internimage_b_1k_224": (1.0, ()),
    "internimage_l_22kto1k_384": (2.0, ()),
    "internimage_xl_22k_192to384": (2.0, ()),
    "internimage_h_22kto1k_640": (1.0, (5, 11, 17, 23, 29)),
    "internimage_h_22ktoinat18_384": (1.0, (5, 11, 17, 23, 29)),
    "internimage_g_22kto1k_512": (1.0, (5, 11, 17, 23, 29, 35, 41, 47)),
    "flash_intern_image_t_1k_224": (1.0, None),
    "flash_intern_image_s_1k_224": (1.0, None),
    "flash_intern_image_b_1k_224": (0.5, None),
    "flash_internimage_l_22kto1k_384": (2.0, None),
    "upernet_internimage_b_512_160k_ade20k": (1.0, ()),
    "segformer_internimage_xl_512x1024_80k_mapillary": (2.0, ()),
    "mask2former_internimage_h_480_40k_nyu": (1.0, (5, 11, 17, 23, 29)),
    "upernet_flash_internimage_b_512_160k_ade20k": (0.5, None),
    "mask2former_flash_internimage_l_640_160k_ade20k_ss": (2.0, None),
    "mask_rcnn_flash_internimage_b_fpn_1x_coco": (0.5, None),
    "cascade_internimage_xl_fpn_3x_coco": (2.0, ()),
    "dino_4scale_internimage_g_objects365_coco": (1.0, (5, 11, 17, 23, 29, 35, 41, 47)),
    "dino_4scale_cbinternimage_h_objects365_lvis": (1.0, (5, 11, 17, 23, 29)),
}


def test_every_published_checkpoint_is_listed():
    def counts(names):
        return Counter(find_checkpoint(name).family for name in names)

    assert counts(CLASSIFIERS) == {"flash_internimage": 5, "internimage": 12, "replknet": 11, "smt": 6}
    assert counts(SEGMENTERS) == {"flash_internimage": 8, "internimage": 26, "replknet": 5}
    # 36 results of the authors, and two starting points of training
    assert counts(DETECTORS) == {"flash_internimage": 12, "internimage": 21, "replknet": 5}
    assert counts(BACKBONES) == {"internimage": 3}
    assert set(CLASSIFIERS) | set(SEGMENTERS) | set(DETECTORS) | set(BACKBONES) == set(NAMES)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_config(name, tmp_path):
    model = find_checkpoint(name)
    config = model.config()
    assert config.model_type == model.family
    assert config.image_size == model.preprocessing.size
    assert "drop_path_rate" in model.config_kwargs
    defaults = type(config)()
    for key, value in model.config_kwargs.items():
        assert getattr(config, key) == value
        assert key == "drop_path_rate" or value != getattr(defaults, key), f"{key} repeats the default"

    assert config.num_labels == len(config.label2id) == (model.num_labels or 0)
    if model.label_set is not None:
        assert SIZES[model.label_set] == model.num_labels
    assert all(config.label2id[label] == index for index, label in config.id2label.items())

    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()


@pytest.mark.parametrize("name", SEGMENTERS)
def test_config_of_a_segmenter(name, tmp_path):
    model = find_checkpoint(name)
    config = model.config()
    backbone = config.backbone_config
    assert backbone.model_type == model.family and "drop_path_rate" in model.config_kwargs
    for own, defaults, kwargs in (
        (backbone, type(backbone)(), model.config_kwargs),
        (config, type(config)(), model.head_kwargs),
    ):
        for key, value in kwargs.items():
            assert getattr(own, key) == value
            assert key == "drop_path_rate" or value != getattr(defaults, key), f"{key} repeats the default"
    assert backbone.out_features == ["stage1", "stage2", "stage3", "stage4"]
    assert SegmentationRecipe.from_dict(config.segmentation_recipe) == model.preprocessing

    assert config.num_labels == len(config.label2id) == model.num_labels
    known = [label for label in config.id2label.values() if not label.startswith("unused ")]
    assert known == list(class_colours(model.label_set))

    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()


@pytest.mark.parametrize("name", DETECTORS)
def test_config_of_a_detector(name, tmp_path):
    model = find_checkpoint(name)
    config = model.config()
    backbone = config.backbone_config
    assert (backbone.model_type, config.model_type) == model.network and "drop_path_rate" in model.config_kwargs
    for own, defaults, kwargs in (
        (backbone, type(backbone)(), model.config_kwargs),
        (config, type(config)(), model.head_kwargs),
    ):
        for key, value in kwargs.items():
            assert getattr(own, key) == value
            assert key == "drop_path_rate" or value != getattr(defaults, key), f"{key} repeats the default"
    first = 1 if config.model_type == "backbone_rcnn" else 2
    assert backbone.out_features == ["stage1", "stage2", "stage3", "stage4"][first - 1 :]
    assert config.num_labels == len(config.label2id) == model.num_labels
    if model.label_set:
        assert list(config.id2label.values()) == list(detection_names(model.label_set))
    assert model.config(num_labels=7).id2label[6] == "LABEL_6"

    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_complete(name):
    model = find_checkpoint(name)
    json.dumps(dataclasses.asdict(model))
    assert model.file is None or model.file.rsplit(".", 1)[0] == name
    assert model.url.startswith("https://") and model.repository.startswith("https://github.com/")
    assert model.paper.startswith("https://arxiv.org/abs/") and model.license and model.training_data
    assert model.citation.startswith("@") and model.citation.count("{") == model.citation.count("}")
    if name in BACKBONES:
        assert model.num_labels is None and not model.reported and len(model.notes) == 2
        return
    assert (model.parameters is None) == (model.num_labels is None)
    if name in SEGMENTERS:
        assert model.reported.keys() <= {"miou", "miou_ms"}
        assert 45 < model.reported.get("miou", 46) < model.reported.get("miou_ms", 90) < 91
        return
    if name in DETECTORS:
        assert model.reported.keys() <= model.metrics.keys() and bool(model.reported) != name.endswith("classes")
        assert all(42 < value < 98 for value in model.reported.values())
        assert model.reported.get("mask_ap", 0) < model.reported.get("box_ap", 1)
        return
    assert model.reported.keys() <= {"top1", "top5", "gflops"}
    for numbers in (model.reported, *model.remeasured):
        assert 80 < numbers.get("top1", 81) < numbers.get("top5", 95) < 100


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_image_processor(name, tmp_path):
    model = find_checkpoint(name)
    processor = model.image_processor()
    size = model.preprocessing.size
    pixel_values = processor(Image.new("RGB", (517, 390)), return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, 3, size, size)

    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "ImageNetImageProcessor"
    reloaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(reloaded) is type(processor)
    assert reloaded.to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    ("name", "size", "saved_type"),
    [
        ("upernet_internimage_t_512_160k_ade20k", (512, 678), "SegformerImageProcessor"),
        ("segformer_internimage_l_512x1024_80k_mapillary", (1024, 1357), "SegformerImageProcessor"),
        ("mask2former_flash_internimage_s_640_160k_ade20k_ss", (640, 864), "SemanticMask2FormerImageProcessor"),
    ],
)
def test_image_processor_of_a_segmenter(name, size, saved_type, tmp_path):
    processor = find_checkpoint(name).image_processor()
    assert processor(Image.new("RGB", (517, 390)), return_tensors="pt").pixel_values.shape == (1, 3, *size)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == saved_type
    assert AutoImageProcessor.from_pretrained(tmp_path, backend="pil").to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("mask_rcnn_internimage_t_fpn_1x_coco", (800, 1088), 0.485),  # 1060, and padding
        ("dino_4scale_internimage_g_objects365_coco", (1024, 1344), 0.485),
        ("RepLKNet-XL_MegData73Mpretrain_cascade_mask_rcnn_3x_coco", (800, 1088), 0.5),
    ],
)
def test_image_processor_of_a_detector(name, size, mean, tmp_path):
    processor = find_checkpoint(name).image_processor()
    assert processor(Image.new("RGB", (517, 390)), return_tensors="pt").pixel_values.shape == (1, 3, *size)
    assert processor.image_mean[0] == mean
    processor.save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()


@pytest.mark.parametrize("name", UNSEEN_IN_WEIGHTS)
def test_what_weights_cannot_show(name):
    offset_scale, norm_layers = UNSEEN_IN_WEIGHTS[name]
    config = find_checkpoint(name).config()
    config = getattr(config, "backbone_config", config)
    assert config.offset_scale == offset_scale
    if norm_layers is not None:
        assert tuple(config.intermediate_norm_layers) == norm_layers


def test_number_of_classes_can_be_read_from_the_weights():
    pretrained = find_checkpoint("RepLKNet-XL_MegData73M_pretrain")
    assert pretrained.config().num_labels == 0
    assert pretrained.config(num_labels=73_000).num_labels == 73_000
    assert find_checkpoint("smt_tiny").config(num_labels=10).id2label[9] == "LABEL_9"
    assert find_checkpoint("smt_tiny").config(num_labels=1000).id2label[0] == "tench, Tinca tinca"


def test_names_are_unique():
    aliases = [alias.lower() for name in NAMES for alias in find_checkpoint(name).known_as()]
    assert len(set(aliases)) == len(aliases)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("internimage_t_1k_224.pth", "internimage_t_1k_224"),
        ("OpenGVLab/internimage_l_22k_384", "internimage_l_22k_192to384"),
        ("internimage_g_jointto22k_384", "internimage_g_pretrainto22k_384"),
        ("flash_intern_image_l_22kto1k_384", "flash_internimage_l_22kto1k_384"),
        ("replknet-31b_imagenet-1k_224", "RepLKNet-31B_ImageNet-1K_224"),
        ("dino_4scale_cbinternimage_h_objects365_voc12", "dino_4scale_cbinternimage_h_objects365_voc0712"),
        ("cascade_flash_intern_image_l_fpn_3x_coco", "cascade_flash_internimage_l_fpn_3x_coco"),
    ],
)
def test_aliases(alias, name):
    assert find_checkpoint(alias).name == name


def test_the_former_name_still_works():
    with pytest.warns(FutureWarning, match="get_model is now called find_checkpoint"):
        assert get_model("smt_tiny") is find_checkpoint("smt_tiny")


def test_list_models_filters():
    assert list_models("smt_*") == list_models(family="smt")
    pretrained = ["RepLKNet-XL_MegData73M_pretrain", "RepLKNet-XL_MegData73M_ImageNet1K"]
    assert list_models("*REPLKNET-xl*", task="image-classification") == pretrained
    assert list_models("*_1k_*", family="smt") == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_checkpoint("internimage_t"), ["internimage_t: no such model", "internimage_t_1k_224"]),
        (lambda: find_checkpoint("smt_medium"), ["smt_medium: no such model", "smt_base"]),
        (lambda: find_checkpoint("../../etc/passwd"), ["../../etc/passwd: no such model", "hf-models list"]),
        (lambda: list_models(family="swin"), ["swin: no such family", "internimage"]),
        (lambda: list_models(task="depth-estimation"), ["depth-estimation: no such task", "image-classification"]),
        (
            lambda: find_checkpoint("cascade_internimage_xl_fpn_3x_crowd_human"),
            ["cascade_internimage_xl_fpn_3x_crowd_human: no such model in the zoo", "fpn_3x_coco"],
        ),
    ],
)
def test_unknown_names(call, words):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize("label_set", LABEL_FILES)
def test_labels(label_set):
    names = wnid_names(label_set)
    assert len(names) == len(set(names.values())) == SIZES[label_set]
    assert list(names) == sorted(names), "the heads are in the order of the sorted WordNet ids"
    assert label_names(label_set) == list(names.values())


def test_known_labels():
    labels = label_names("imagenet-1k")
    known = {0: "tench, Tinca tinca", 207: "golden retriever", 285: "Egyptian cat", 638: "maillot"}
    known |= {639: "maillot, tank suit", 999: "toilet tissue, toilet paper, bathroom tissue"}
    assert {index: labels[index] for index in known} == known
    # the one name that two classes share
    assert (labels[134], labels[517]) == ("crane", "crane (n03126707)")

    # rows of the originals' map from 22k to 1k
    order = list(wnid_names("imagenet-22k"))
    assert [order.index(wnid) for wnid in list(wnid_names())[:5]] == [359, 368, 460, 475, 486]
    assert order.index("n15075141") == 21_815


# --- classes of segmentation data sets


@pytest.mark.parametrize(
    ("label_set", "number", "known"),
    [
        ("ade20k", 150, {0: "wall", 2: "sky", 12: "person", 149: "flag"}),
        ("cityscapes", 19, {0: "road", 10: "sky", 18: "bicycle"}),
        ("coco-stuff", 171, {0: "person", 79: "toothbrush", 80: "banner", 170: "wood"}),
        ("mapillary-vistas", 66, {0: "Bird", 13: "Road", 65: "Unlabeled"}),
        ("nyu-depth-v2", 40, {0: "wall", 39: "otherprop"}),
        ("pascal-context-59", 59, {0: "aeroplane", 58: "wood"}),
        ("pascal-context-60", 60, {0: "background", 1: "aeroplane"}),
    ],
)
def test_classes_of_segmentation_data_sets(label_set, number, known):
    colours = class_colours(label_set)
    names = list(colours)
    assert len(names) == number and {index: names[index] for index in known} == known
    assert all(name == name.strip() and max(colour) < 256 for name, colour in colours.items())
    assert palette(names) == list(colours.values())
    assert head_names(label_set, number) == names


def test_heads_of_another_size_than_the_data_set():
    assert head_names("cityscapes", 150)[17:21] == ["motorcycle", "bicycle", "unused 19", "unused 20"]
    assert head_names("cityscapes", 18) is None
    assert head_names("mapillary-vistas", 65)[-1] == "Ego Vehicle"
    assert palette(head_names("cityscapes", 150))[:2] == [(128, 64, 128), (244, 35, 232)]
    config = find_checkpoint("upernet_internimage_t_512x1024_160k_cityscapes").config(num_labels=19)
    assert config.num_labels == 19 and config.id2label[18] == "bicycle"
    config = find_checkpoint("upernet_internimage_t_512_160k_ade20k").config(num_labels=7)
    assert config.num_labels == 7 and config.id2label[6] == "LABEL_6"


def test_colours_of_unknown_classes_are_those_of_pascal_voc():
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    voc += [(128, 128, 128), (64, 0, 0), (192, 0, 0)]
    assert [voc_colour(index) for index in range(10)] == voc
    assert palette(["cat", "dog"]) == [(128, 0, 0), (0, 128, 0)]


# --- classes of detection data sets


@pytest.mark.parametrize(
    ("label_set", "number", "known"),
    [
        ("coco", 80, {0: "person", 11: "stop sign", 79: "toothbrush"}),
        ("lvis", 1203, {0: "aerosol_can", 1202: "zucchini"}),
        ("open-images", 601, {0: "Tortoise", 600: "Helmet"}),
        ("pascal-voc", 20, {0: "aeroplane", 19: "tvmonitor"}),
    ],
)
def test_classes_of_detection_data_sets(label_set, number, known):
    names = detection_names(label_set)
    assert len(names) == len(set(names)) == number
    assert {index: names[index] for index in known} == known
