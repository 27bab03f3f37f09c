"""The embedded default checkpoint, and classification of image files."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

import hf_models
from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.inference.classify import classify_images

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "sample.jpg"


def test_default_checkpoint_is_whole_and_small():
    folder = hf_models.default_checkpoint()
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert len(set(model.config.id2label.values())) == model.config.num_labels == 202
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6


def test_the_sample_photo_is_an_espresso():
    (labels,) = classify_images([SAMPLE])
    assert len(labels) == 5
    assert labels[0]["label"] == "espresso"
    scores = [entry["score"] for entry in labels]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1


def test_command_line_gives_the_same():
    result = CliRunner().invoke(app, ["classify", str(SAMPLE), "--top-k", "3"])
    assert result.exit_code == 0
    (labels,) = classify_images([SAMPLE], top_k=3)
    for line, entry in zip(result.stdout.splitlines()[1:], labels, strict=True):
        assert entry["label"] in line and f"{entry['score']:.1%}" in line


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_is_read(mode, tmp_path):
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    Image.open(SAMPLE).convert(mode).save(path)
    assert len(classify_images([path])[0]) == 5


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        classify_images([SAMPLE], model=tmp_path)
