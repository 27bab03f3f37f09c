"""Every entry of the zoo is complete, builds its config and its image processor, and is found by its names."""

import dataclasses
import json

import pytest
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor

from hf_models.errors import InputError
from hf_models.zoo import LABEL_FILES, get_model, label_names, list_models, wnid_names

NAMES = list_models()
SIZES = {"imagenet-1k": 1_000, "imagenet-22k": 21_841}

# Not stored in the weights, so that no conversion can notice a mistake here: (offset_scale, intermediate_norm_layers).
UNSEEN_IN_WEIGHTS = {
    "internimage_t_1k_224": (1.0, ()),
    "internimage_b_1k_224": (1.0, ()),
    "internimage_l_22kto1k_384": (2.0, ()),
    "internimage_xl_22k_192to384": (2.0, ()),
    "internimage_h_22kto1k_640": (1.0, (5, 11, 17, 23, 29)),
    "internimage_g_22kto1k_512": (1.0, (5, 11, 17, 23, 29, 35, 41, 47)),
    "flash_intern_image_t_1k_224": (1.0, None),
    "flash_intern_image_s_1k_224": (1.0, None),
    "flash_intern_image_b_1k_224": (0.5, None),
    "flash_internimage_l_22kto1k_384": (2.0, None),
}


def test_every_published_checkpoint_is_listed():
    counts = {family: len(list_models(family=family)) for family in sorted({get_model(n).family for n in NAMES})}
    assert counts == {"flash_internimage": 5, "internimage": 11, "replknet": 11, "smt": 6}
    assert list_models(task="image-classification") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_config(name, tmp_path):
    model = get_model(name)
    config = model.config()
    assert config.model_type == model.family
    assert config.image_size == model.preprocessing.size
    assert "drop_path_rate" in model.config_kwargs
    defaults = type(config)()
    for key, value in model.config_kwargs.items():
        assert getattr(config, key) == value
        assert key == "drop_path_rate" or value != getattr(defaults, key), f"{key} repeats the default"

    assert config.num_labels == len(config.label2id) == (model.num_labels or 0)
    assert SIZES.get(model.label_set) == model.num_labels
    assert all(config.label2id[label] == index for index, label in config.id2label.items())

    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_complete(name):
    model = get_model(name)
    json.dumps(dataclasses.asdict(model))
    assert model.file is None or model.file.rsplit(".", 1)[0] == name
    assert model.url.startswith("https://") and model.repository.startswith("https://github.com/")
    assert model.paper.startswith("https://arxiv.org/abs/") and model.license and model.training_data
    assert model.citation.startswith("@") and model.citation.count("{") == model.citation.count("}")
    assert (model.parameters is None) == (model.num_labels is None)
    assert model.reported.keys() <= {"top1", "top5", "gflops"}
    for numbers in (model.reported, *model.remeasured):
        assert 80 < numbers.get("top1", 81) < numbers.get("top5", 95) < 100


@pytest.mark.parametrize("name", NAMES)
def test_image_processor(name, tmp_path):
    model = get_model(name)
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


@pytest.mark.parametrize("name", UNSEEN_IN_WEIGHTS)
def test_what_weights_cannot_show(name):
    offset_scale, norm_layers = UNSEEN_IN_WEIGHTS[name]
    config = get_model(name).config()
    assert config.offset_scale == offset_scale
    if norm_layers is not None:
        assert tuple(config.intermediate_norm_layers) == norm_layers


def test_number_of_classes_can_be_read_from_the_weights():
    pretrained = get_model("RepLKNet-XL_MegData73M_pretrain")
    assert pretrained.config().num_labels == 0
    assert pretrained.config(num_labels=73_000).num_labels == 73_000
    assert get_model("smt_tiny").config(num_labels=10).id2label[9] == "LABEL_9"
    assert get_model("smt_tiny").config(num_labels=1000).id2label[0] == "tench, Tinca tinca"


def test_names_are_unique():
    aliases = [alias.lower() for name in NAMES for alias in get_model(name).known_as()]
    assert len(set(aliases)) == len(aliases)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("internimage_t_1k_224.pth", "internimage_t_1k_224"),
        ("OpenGVLab/internimage_l_22k_384", "internimage_l_22k_192to384"),
        ("internimage_g_jointto22k_384", "internimage_g_pretrainto22k_384"),
        ("flash_intern_image_l_22kto1k_384", "flash_internimage_l_22kto1k_384"),
        ("replknet-31b_imagenet-1k_224", "RepLKNet-31B_ImageNet-1K_224"),
    ],
)
def test_aliases(alias, name):
    assert get_model(alias).name == name


def test_list_models_filters():
    assert list_models("smt_*") == list_models(family="smt")
    assert list_models("*REPLKNET-xl*") == ["RepLKNet-XL_MegData73M_pretrain", "RepLKNet-XL_MegData73M_ImageNet1K"]
    assert list_models("*_1k_*", family="smt") == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: get_model("internimage_t"), ["internimage_t: no such model", "internimage_t_1k_224"]),
        (lambda: get_model("smt_medium"), ["smt_medium: no such model", "smt_base"]),
        (lambda: get_model("../../etc/passwd"), ["../../etc/passwd: no such model", "hf-models list"]),
        (lambda: list_models(family="swin"), ["swin: no such family", "internimage"]),
        (lambda: list_models(task="object-detection"), ["object-detection: no such task", "image-classification"]),
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
