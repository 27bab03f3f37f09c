"""The embedded default checkpoint, and classification of image files."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)
from typer.testing import CliRunner

import hf_models
from hf_models.cli import app
from hf_models.errors import InputError
from hf_models.inference import classify_images, load_classifier
from hf_models.inference.classify import best_labels

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


@pytest.mark.parametrize(
    ("problem_type", "num_labels"), [("multi_label_classification", 3), ("regression", 1), (None, 1), (None, 3)]
)
def test_scores_are_those_of_the_pipeline(problem_type, num_labels, tmp_path):
    source = hf_models.default_checkpoint()
    AutoModelForImageClassification.from_pretrained(
        source,
        num_labels=num_labels,
        problem_type=problem_type,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    ).save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(source).save_pretrained(tmp_path)
    (ours,) = classify_images([SAMPLE], model=tmp_path, top_k=3)
    stock = pipeline("image-classification", model=str(tmp_path))(str(SAMPLE), top_k=num_labels)
    assert [entry["label"] for entry in ours] == [entry["label"] for entry in stock]
    for entry, other in zip(ours, stock, strict=True):
        assert entry["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize(("problem_type", "printed"), [("regression", "  0.3712"), (None, "   59.2%")])
def test_a_regression_is_no_percentage(problem_type, printed, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(
        hf_models.default_checkpoint(), num_labels=1, problem_type=problem_type, ignore_mismatched_sizes=True
    )
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(0.3712)
    model.float().save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(hf_models.default_checkpoint()).save_pretrained(tmp_path)
    result = CliRunner().invoke(app, ["classify", str(SAMPLE), "--model", str(tmp_path)])
    assert result.stdout.splitlines()[1:] == [f"{printed}  LABEL_0"]


def test_soft_labels_make_a_model_of_many_labels(tmp_path):
    """transformers decides by the type of the labels, and keeps it in the config: mixup needs a loss of its own."""
    source = hf_models.default_checkpoint()
    model = AutoModelForImageClassification.from_pretrained(
        source, num_labels=3, ignore_mismatched_sizes=True, dtype=torch.float32
    ).eval()
    pixel_values, soft = torch.randn(2, 3, 64, 64), torch.tensor([[0.7, 0.3, 0], [0, 0.5, 0.5]])

    # the loss that mixup wants: the model sees no labels, and stays what it is
    logits = model(pixel_values=pixel_values).logits
    wanted = F.cross_entropy(logits, soft)
    assert model.config.problem_type is None

    # labels of the model: another loss, and from now on another meaning of the scores
    loss = model(pixel_values=pixel_values, labels=soft).loss
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, soft))
    assert abs(loss - wanted) > 0.05 and model.config.problem_type == "multi_label_classification"
    model.save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(source).save_pretrained(tmp_path)
    (ours,) = classify_images([SAMPLE], model=tmp_path, top_k=3)
    assert abs(sum(entry["score"] for entry in ours) - 1) > 0.05

    # the config said before training, they are refused; written afterwards, it makes the scores probabilities again
    model.config.problem_type = "single_label_classification"
    with pytest.raises((ValueError, RuntimeError)):
        model(pixel_values=pixel_values, labels=soft)
    model.save_pretrained(tmp_path)
    (ours,) = classify_images([SAMPLE], model=tmp_path, top_k=3)
    assert sum(entry["score"] for entry in ours) == pytest.approx(1, abs=1e-5)


def test_the_trainer_keeps_soft_labels_from_the_model(tmp_path):
    """As docs/evaluation.md advises, with `compute_loss_func`."""
    model = AutoModelForImageClassification.from_pretrained(
        hf_models.default_checkpoint(), num_labels=3, ignore_mismatched_sizes=True, dtype=torch.float32
    )
    rows = [{"pixel_values": torch.randn(3, 64, 64), "labels": torch.tensor([0.7, 0.3, 0])} for _ in range(2)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, report_to=[], use_cpu=True, remove_unused_columns=False, disable_tqdm=True
    )

    def loss(outputs, labels, num_items_in_batch=None):
        return F.cross_entropy(outputs.logits, labels)

    Trainer(model, arguments, train_dataset=rows, compute_loss_func=loss).train()
    assert model.config.problem_type is None


def test_the_best_of_equal_scores_does_not_depend_on_how_many_are_asked_for(monkeypatch):
    """PyTorch sorts the largest 5 of 202 in another way than the largest 1."""
    _, classifier = load_classifier()
    logits = torch.zeros(1, 202)
    logits[0, [67, 134]] = 1
    monkeypatch.setattr(classifier, "forward", lambda *args, **kwargs: SimpleNamespace(logits=logits))
    for top_k in (1, 5, 202):
        labels = best_labels(classifier, torch.zeros(1, 3, 64, 64), top_k)
        assert len(labels) == top_k
        assert labels[0]["label"] == classifier.config.id2label[67]
