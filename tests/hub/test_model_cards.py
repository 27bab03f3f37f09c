"""Cards render for every checkpoint, the Hub can read their metadata, and every number says whose it is.

    python tests/hub/test_model_cards.py

renders the committed cards anew: those in `model_cards/cards`, and that of the embedded checkpoint.
"""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoConfig

import hf_models
from hf_models.evaluate.accuracy_table import measured_rows
from hf_models.evaluate.results import ACCURACY
from hf_models.model_cards import render_card, render_default_card
from hf_models.zoo import find_checkpoint, list_models

CONVERSION = {"source": "internimage_t_1k_224.pth", "sha256": "0123abcd" * 8}
UNKNOWN = AutoConfig.for_model("smt", num_labels=10)


def card_of(name: str, **kwargs) -> ModelCard:
    model = find_checkpoint(name)
    return ModelCard(render_card(model, model.config(), **kwargs))


@pytest.mark.parametrize("name", list_models())
def test_card(name):
    model, card = find_checkpoint(name), card_of(name, conversion=CONVERSION)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == model.task
    assert card.data.license == model.license
    assert model.family in card.data.tags
    reported = {result.metric_name: result for result in card.data.eval_results or []}
    assert {name: result.metric_value for name, result in reported.items()} == {
        f"{name} (reported by the authors)": model.reported[key]
        for key, name in model.metrics.items()
        if key in model.reported
    }
    for result in reported.values():
        assert result.source_url == model.repository
        assert "reported by the authors" in result.metric_name and "not measured" in result.source_name

    text = card.text
    for needed in (
        "from hf_models" if model.part else "import hf_models",
        model.url,
        CONVERSION["sha256"],
        model.citation,
        *model.training_data,
    ):
        assert needed in text
    for note in model.notes:
        assert note in text
    assert "This project has not measured" in text
    assert "{{" not in text and "{%" not in text and "None" not in text and "\n\n\n" not in text


def test_metadata_is_plain_yaml():
    text = str(card_of("smt_tiny"))
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["datasets"] == ["imagenet-1k"]
    (index,) = metadata["model-index"]
    assert index["name"] == "smt_tiny"
    assert [metric["value"] for metric in index["results"][0]["metrics"]] == [82.2, 96.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smt_tiny", ["short side is resized to 256 pixels (bicubic)", "central 224 x 224", "[0.485, 0.456, 0.406]"]),
        (
            "smt_large_22k_384_ft",
            ["Both sides are resized to 384 pixels", "Trained on ImageNet-22K, then ImageNet-1K"],
        ),
        ("RepLKNet-XL_MegData73M_ImageNet1K", ["mean [0.5, 0.5, 0.5]", "collected by Megvii", "335,435,752"]),
        ("RepLKNet-XL_MegData73M_pretrain", ["names of the classes are not published", "report no accuracy"]),
        ("internimage_t_1k_224", ["29,918,424 parameters", "| Top-1 accuracy | 83.5 % |", "MMPreTrain"]),
        (
            "internimage_h_22ktoinat18_384",
            [
                "8,142 classes, 1,096,197,516 parameters",
                "encode_metadata(month=6",
                "for iNaturalist 2018, validation",
                "| 92.6 % |",
                "classes of iNaturalist 2018 and nothing else, by number",
            ],
        ),
        (
            "upernet_internimage_t_512_160k_ade20k",
            [
                "segmentation with 150 classes",
                "resized to 512 pixels",
                "multiple of 32",
                "| mIoU, single scale | 47.9 % |",
            ],
        ),
        (
            "mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes",
            ["Windows of 1024 x 1024 pixels", "in steps of 512", 'subtask="semantic"', "for Cityscapes, validation"],
        ),
        (
            "RepLKNet-XL_MegData73M_upernet_160k_ade20k_640",
            ["mean [0.5, 0.5, 0.5]", "classes of ADE20K", "| 56.0 % |"],
        ),
        (
            "cascade_internimage_xl_fpn_3x_coco",
            [
                "object detection and instance segmentation with 80 classes, 387,448,974 parameters",
                "resized to 800 pixels, or less where the long side would exceed 1333",
                "| Box AP | 56.2 % |",
                "| Mask AP | 48.8 % |",
            ],
        ),
        (
            "dino_4scale_cbinternimage_h_objects365_voc0712",
            ["for PASCAL VOC 2007 and 2012, test", "| Box AP at IoU 0.5 on VOC 2012 | 97.2 % |", "exceed 2000"],
        ),
        (
            "dino_4scale_cbinternimage_h_objects365_20classes",
            ["Which class a number stands for is not published", "A starting point of training", "report no numbers"],
        ),
        ("segformer_internimage_l_512x1024_80k_mapillary", ["merged into the 19 of Cityscapes", "report no accuracy"]),
    ],
)
def test_text(name, words):
    text = card_of(name).text
    assert all(word in text for word in words), text


def row_of(**values):
    return dict.fromkeys(ACCURACY.columns, "-") | {"dtype": "float32"} | values


def test_measured_rows():
    full = row_of(data="ImageNet-1K validation", metric="top-1", value="83.4720")
    card = card_of(
        "internimage_t_1k_224", measured=[full, row_of(data="val, 9 images", metric="subset top-1", value="9")]
    )
    assert "| metric | value | data | " in card.text
    assert "| top-1 | 83.4720 | ImageNet-1K validation | " in card.text
    assert "| subset top-1 | 9 | val, 9 images | " in card.text
    assert "has not measured" not in card.text
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {
        "Top-1 accuracy (reported by the authors)": 83.5,
        "Top-1 accuracy (measured, float32)": 83.472,
    }, "a subset's number is no result of ImageNet"


DEFAULT = hf_models.default_checkpoint()
CARDS = Path(__file__).resolve().parents[2] / "model_cards" / "cards"


def committed_cards() -> dict[Path, str]:
    """Each committed card and what it should say."""
    cards = {CARDS / f"{name}.md": str(card_of(name)) for name in list_models()}
    return cards | {DEFAULT / "README.md": render_default_card(AutoConfig.from_pretrained(DEFAULT))}


def test_committed_cards_are_what_they_are_rendered_from():
    cards = committed_cards()
    assert set(CARDS.iterdir()) == cards.keys() - {DEFAULT / "README.md"}
    for path, card in cards.items():
        assert path.read_text(encoding="utf-8") == card, f"{path}: run `python tests/hub/test_model_cards.py`"


def test_the_default_was_measured():
    accuracy = {"top-1", "top-5"}
    bias = {"shape bias", "shape bias, standard error", "answered with shape or texture"}
    measured = {row["metric"].removeprefix("subset "): row["value"] for row in measured_rows("embedded default")}
    assert measured.keys() == accuracy | bias
    top1 = f"[{float(measured['top-1']):.1f} %](docs/evaluation.md#results)"
    assert top1 in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_segmenter_that_the_zoo_does_not_know():
    config = find_checkpoint("upernet_internimage_t_512_160k_ade20k").config(num_labels=7)
    card = ModelCard(render_card(None, config))
    assert card.data.pipeline_tag == "image-segmentation" and "internimage" in card.data.tags
    assert "# InternImage, UperNet\n" in card.text and "sizes are assumed" in card.text


def test_checkpoint_that_the_zoo_does_not_know():
    card = ModelCard(render_card(None, UNKNOWN, conversion=CONVERSION))
    assert card.data.license is None and card.data.eval_results is None
    assert "# SMT\n" in card.text and "10 classes" in card.text and CONVERSION["sha256"] in card.text
    assert "not one that the authors of the architecture published" in card.text
    assert "Nothing is recorded" in ModelCard(render_card(None, UNKNOWN)).text


if __name__ == "__main__":
    CARDS.mkdir(exist_ok=True)
    for path in CARDS.iterdir():
        path.unlink()
    for path, card in committed_cards().items():
        path.write_text(card, encoding="utf-8")
