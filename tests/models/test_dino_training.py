"""DINO learns: its loss by plain arithmetic, what its queries see, what each part teaches, and what it finds."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForObjectDetection, Trainer, TrainingArguments
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss

from hf_models import dino_loss, modeling_dino_detector
from hf_models.boxes import corner_boxes
from hf_models.configuration_dino_detector import DinoDetectorConfig
from hf_models.contrastive_denoising import attention_mask, noisy_objects
from hf_models.dino_loss import Prediction, dino_losses
from hf_models.modeling_dino_detector import DinoDetectorForObjectDetection

from ..harness.detection_scenes import average_precision, batch_of, scenes
from .test_dino_detector import FIXTURES, STAGES, images, random_model, tiny_backbone, tiny_config

CPU = torch.device("cpu")
SIZES = ((101, 72), (64, 96))  # width and height of two images
# what mmdetection's own code made of so many objects in the first and in the second one
ORIGINAL = json.loads((FIXTURES / "det_dino_losses.json").read_text())["losses"]


def learner(**kwargs) -> DinoDetectorForObjectDetection:
    return random_model(backbone_config=tiny_backbone(drop_path_rate=0.0), **kwargs).train()


def objects(*counts, num_labels=7, seed=0) -> list[dict]:
    """Random objects, so many for each image."""
    random = torch.Generator().manual_seed(seed)
    labels = []
    for count in counts:
        sizes = 0.1 + 0.3 * torch.rand(count, 2, generator=random)
        centres = sizes / 2 + (1 - sizes) * torch.rand(count, 2, generator=random)
        classes = torch.randint(num_labels, (count,), generator=random)
        labels.append({"class_labels": classes, "boxes": torch.cat((centres, sizes), dim=1)})
    return labels


# --- the loss


def predictions(layers: int, queries: int, seed=0) -> list[Prediction]:
    """Of two images, in float64."""
    random = torch.Generator().manual_seed(seed)
    return [
        Prediction(
            2 * torch.randn(2, queries, 7, generator=random, dtype=torch.float64),
            torch.rand(2, queries, 4, generator=random, dtype=torch.float64) * 0.5 + 0.1,
        )
        for _ in range(layers)
    ]


def doubled(labels):
    return [{name: tensor.double() if name == "boxes" else tensor for name, tensor in one.items()} for one in labels]


def focal(logit: float, wanted: bool) -> float:
    probability = 1 / (1 + math.exp(-logit))
    if wanted:
        return -0.25 * (1 - probability) ** 2 * math.log(probability)
    return -0.75 * probability**2 * math.log(1 - probability)


def giou(box, other, size) -> float:
    """Of boxes as in DETR, in an image of a size."""
    (left, top, right, bottom), (left_, top_, right_, bottom_) = (
        [(x - w / 2) * size[0], (y - h / 2) * size[1], (x + w / 2) * size[0], (y + h / 2) * size[1]]
        for x, y, w, h in (box, other)
    )
    both = max(min(right, right_) - max(left, left_), 0) * max(min(bottom, bottom_) - max(top, top_), 0)
    either = (right - left) * (bottom - top) + (right_ - left_) * (bottom_ - top_) - both
    hull = (max(right, right_) - min(left, left_)) * (max(bottom, bottom_) - min(top, top_))
    return both / either - (hull - either) / hull


def plain_matches(logits, boxes, classes, targets, size) -> list[tuple[int, int]]:
    """By trying all assignments."""

    def cost(query, found):
        label = classes[found]
        distance = sum(abs(a - b) for a, b in zip(boxes[query], targets[found], strict=True))
        of_class = focal(logits[query][label], True) - focal(logits[query][label], False)
        return 2 * of_class + 5 * distance - 2 * giou(boxes[query], targets[found], size)

    found = range(len(targets))
    assignments = [
        list(zip(queries, found, strict=True)) for queries in itertools.permutations(range(len(boxes)), len(targets))
    ]
    return min(assignments, key=lambda pairs: sum(cost(*pair) for pair in pairs))


def plain_parts(prediction, matches, labels, sizes) -> tuple[float, float, float]:
    ce = bbox = overlap = count = 0.0
    for logits, boxes, pairs, one, size in zip(
        *(part.tolist() for part in prediction), matches, labels, sizes.tolist(), strict=True
    ):
        classes, targets = one["class_labels"].tolist(), one["boxes"].tolist()
        finds = dict(pairs)
        for query, row in enumerate(logits):
            for label, logit in enumerate(row):
                ce += focal(logit, query in finds and classes[finds[query]] == label)
        for query, found in pairs:
            count += 1
            bbox += 5 * sum(abs(a - b) for a, b in zip(boxes[query], targets[found], strict=True))
            overlap += 2 * (1 - giou(boxes[query], targets[found], size))
    return tuple(part / max(count, 1) for part in (ce, bbox, overlap))


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)])
def test_the_loss_is_plain_arithmetic(counts):
    config, labels = DinoDetectorConfig(num_labels=7, num_denoising=2), doubled(objects(*counts))
    sizes = torch.tensor([[96.0, 64], [50, 70]], dtype=torch.float64)
    noisy = noisy_objects(labels, config, CPU)
    layers, (proposed,) = predictions(3, 5 + len(noisy.group)), predictions(1, 5, seed=1)
    losses = dino_losses(proposed, layers, noisy, labels, sizes, config)

    expected = {}
    own, known = zip(*(layer.split(5) for layer in layers), strict=True)
    for suffix, prediction in (("", own[2]), ("_0", own[0]), ("_1", own[1]), ("_enc", proposed)):
        matches = [
            plain_matches(logits, boxes, one["class_labels"].tolist(), one["boxes"].tolist(), size)
            for logits, boxes, one, size in zip(
                *(part.tolist() for part in prediction), labels, sizes.tolist(), strict=True
            )
        ]
        expected[suffix] = plain_parts(prediction, matches, labels, sizes)
    matches = [list(zip(*(part.tolist() for part in pairs), strict=True)) for pairs in noisy.matches]
    for i, prediction in enumerate(known):
        expected[f"_dn_{i}"] = plain_parts(prediction, matches, labels, sizes)
    assert losses.keys() == {f"loss_{part}{suffix}" for part in ("ce", "bbox", "giou") for suffix in expected}
    for suffix, parts in expected.items():
        for part, value in zip(("ce", "bbox", "giou"), parts, strict=True):
            assert losses[f"loss_{part}{suffix}"].item() == pytest.approx(value, rel=1e-12, abs=1e-12), part + suffix


def test_the_loss_is_deformable_detrs():
    """Of the decoder's own queries, where all images are squares."""
    config, labels = DinoDetectorConfig(num_labels=7), doubled(objects(3, 2))
    layers, (proposed,) = predictions(3, 6), predictions(1, 6, seed=1)
    losses = dino_losses(proposed, layers, None, labels, torch.ones(2, 2), config)
    fields = ("class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient", "focal_alpha")
    theirs = SimpleNamespace(
        **{name: getattr(config, name) for name in fields}, num_labels=7, auxiliary_loss=True, decoder_layers=3
    )
    logits, boxes = (torch.stack(parts) for parts in zip(*layers, strict=True))
    expected, *_ = DeformableDetrForObjectDetectionLoss(logits[-1], labels, CPU, boxes[-1], theirs, logits, boxes)
    torch.testing.assert_close(sum(loss for name, loss in losses.items() if not name.endswith("_enc")), expected)


def drawn(counts) -> tuple[list[dict], list[Prediction], Prediction, int]:
    """Labels of two images, predictions of three layers and of the encoder, and the number of groups."""
    random, groups = np.random.RandomState(5), 20 // max(counts)  # its numbers are the same in every version of NumPy

    def boxes(*shape):
        sides = 0.1 + 0.4 * random.rand(*shape, 2)
        return torch.from_numpy(np.concatenate((sides / 2 + (1 - sides) * random.rand(*shape, 2), sides), -1)).float()

    def predicted(queries):
        return Prediction(torch.from_numpy(2 * random.randn(2, queries, 7) - 2).float(), boxes(2, queries))

    labels = [
        {"class_labels": torch.from_numpy(random.randint(7, size=count)), "boxes": boxes(count)} for count in counts
    ]
    return labels, [predicted(12 + 2 * groups * max(counts)) for _ in range(3)], predicted(12), groups


@pytest.mark.parametrize("counts", ORIGINAL)
def test_the_loss_is_the_originals(counts):
    """Matching, targets of known objects, what is divided by."""
    expected, counts = ORIGINAL[counts], [int(count) for count in counts.split("-")]
    labels, layers, proposed, groups = drawn(counts)
    noisy = noisy_objects(labels, DinoDetectorConfig(num_labels=7, num_denoising=20), CPU)
    assert len(noisy.group) == 2 * groups * max(counts)
    losses = dino_losses(
        proposed, layers, noisy, labels, torch.tensor(SIZES).float(), DinoDetectorConfig(num_labels=7)
    )
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5), name


# --- the queries of known objects


def test_noise():
    """Groups, what is near and what is far, how many classes are replaced."""
    torch.manual_seed(0)
    config = DinoDetectorConfig(num_labels=10, num_denoising=4000, box_noise_scale=0.5)
    labels = objects(4, 2, 0, num_labels=10)
    noisy = noisy_objects(labels, config, CPU)
    assert (
        noisy.classes.shape == noisy.known.shape == (3, 1000 * 2 * 4) and noisy.group.bincount().tolist() == [8] * 1000
    )
    far = torch.arange(8000) % 8 >= 4
    for image, count in enumerate((4, 2, 0)):
        queries, found = noisy.matches[image]
        assert len(queries) == 1000 * count and not far[queries].any()
        assert noisy.known[image].sum() == 2 * len(queries) and noisy.known[image][queries].all()
        for is_far, chosen in ((False, queries), (True, queries + 4)):
            boxes, targets = noisy.boxes[image][chosen], labels[image]["boxes"][found]
            edges, there = (corner_boxes(either, torch.ones(2)) for either in (boxes, targets))
            steps = (edges - there).abs() / (targets[:, 2:].repeat(1, 2) / 2)
            free = ((edges > 1e-3) & (edges < 1 - 1e-3) & (boxes[:, 2:].repeat(1, 2) > 2e-3)).all(dim=1)
            if count:
                assert free.float().mean() > 0.3
                assert steps[free].min() >= 0.5 * is_far - 1e-5 and steps[free].max() <= 0.5 * (1 + is_far) + 1e-5
                replaced = noisy.classes[image][chosen] != labels[image]["class_labels"][found]
                assert replaced.float().mean() == pytest.approx(0.25 * 0.9, abs=0.03)
    assert (noisy.boxes >= 1e-3).all() and (noisy.boxes <= 1 - 1e-3).all()


@pytest.mark.parametrize(("number", "groups"), [(100, 33), (2, 1), (0, 0)])
def test_the_number_of_groups(number, groups):
    noisy = noisy_objects(objects(3, 1), DinoDetectorConfig(num_labels=7, num_denoising=number), CPU)
    assert noisy.classes.shape == (2, 6 * groups) and len(noisy.matches[1][0]) == groups


def test_nothing_to_learn_from():
    noisy = noisy_objects(objects(0, 0), DinoDetectorConfig(num_labels=7), CPU)
    assert noisy.boxes.shape == (2, 0, 4) and all(len(part) == 0 for pairs in noisy.matches for part in pairs)


def test_who_sees_whom():
    mask = attention_mask(torch.tensor([0, 0, 1, 1]), 2, 1, torch.float32)
    assert mask.shape == (1, 1, 6, 6) and set(mask.unique().tolist()) == {-torch.inf, 0.0}
    assert (mask[0, 0] == 0).int().tolist() == [
        *[[1, 1, 0, 0, 0, 0]] * 2,
        *[[1, 1, 1, 1, 0, 0]] * 2,
        *[[1, 1, 0, 0, 1, 1]] * 2,
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_group_learns_from_another(attention, monkeypatch):
    """Other boxes and classes in one group change what is predicted in that group, and nowhere else."""
    model = learner(num_denoising=6)
    model.set_attn_implementation({"": attention})
    labels = objects(3, 2)
    noisy = noisy_objects(labels, model.config, CPU)
    one = noisy.group == 0
    boxes, classes = noisy.boxes.clone(), noisy.classes.clone()
    boxes[:, one], classes[:, one] = boxes[:, one].flip(2), 6 - classes[:, one]
    other = noisy._replace(boxes=boxes, classes=classes)
    logits = []
    model.class_heads[-2].register_forward_hook(lambda module, inputs, output: logits.append(output))
    for known in (noisy_objects(objects(0, 0), model.config, CPU), noisy, other):
        monkeypatch.setattr(modeling_dino_detector, "noisy_objects", lambda *args, known=known: known)
        model(images(), labels=labels)
    own, (first, second) = logits[0], (both[:, 30:] for both in logits[1:])
    assert len(one) == 12 and own.shape[1] == 30
    for both in logits[1:]:
        torch.testing.assert_close(both[:, :30], own, rtol=0, atol=1e-5)
    torch.testing.assert_close(first[:, ~one], second[:, ~one], rtol=0, atol=1e-5)
    assert ((first - second)[0, one].abs().amax(-1) > 1e-3).all()


# --- what teaches whom


def test_everything_learns_and_checkpointing_changes_nothing():
    model, gradients = learner(), []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(0)
        output = model(images(), labels=objects(3, 1))
        output.loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None and gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(*gradients)


def test_images_without_objects():
    """They teach that nothing is there; no parameter is left out, which processes of a training would wait for."""
    model = learner()
    output = model(images(), labels=objects(0, 0))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    zero = {name for name, loss in output.loss_dict.items() if loss == 0}
    assert zero == {name for name in output.loss_dict if not name.startswith("loss_ce") or "_dn_" in name}


def test_look_forward_twice():
    """The boxes that a layer predicts teach this layer's head and that of the layer before, and no other head."""
    model = learner()
    boxes = []
    predict = model.predict
    model.predict = lambda *args: boxes.append(predict(*args)) or boxes[-1]
    output = model(images(), labels=objects(2, 2))
    heads = [head[-1].weight for head in model.box_heads]
    for i, prediction in enumerate(boxes):
        found = torch.autograd.grad(prediction.boxes.sum(), heads, retain_graph=True, allow_unused=True)
        assert [gradient is not None for gradient in found] == [head in (i - 1, i) for head in range(4)]
    proposed = sum(loss for name, loss in output.loss_dict.items() if name.endswith("_enc"))
    found = torch.autograd.grad(proposed, heads, retain_graph=True, allow_unused=True)
    assert [gradient is not None for gradient in found] == [False, False, False, True]


def test_validation():
    """With labels there is a loss, without denoising; all else is as without."""
    model, labels = random_model(), objects(3, 1)
    output, expected = model(images(), labels=labels), model(images())
    for name in ("scores", "labels", "boxes", "logits", "pred_boxes"):
        assert torch.equal(output[name], expected[name])
    assert len(output.loss_dict) == 3 * 4 and output.loss == sum(output.loss_dict.values())
    assert not any("_dn_" in name for name in output.loss_dict)
    assert model.train()(images(), labels=labels).loss_dict.keys() - output.loss_dict.keys() == {
        f"loss_{part}_dn_{i}" for part in ("ce", "bbox", "giou") for i in range(3)
    }


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision(autocast):
    model, labels = random_model(), objects(3, 1)
    expected = model(images(), labels=labels).loss
    if not autocast:
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert model(images(), labels=labels).loss.item() == pytest.approx(expected.item(), rel=0.05)
        loss = model.train()(images(), labels=labels).loss
    loss.backward()
    assert loss.dtype == torch.float32 and all(p.grad.isfinite().all() for p in model.parameters())


def test_two_processes_learn_what_one_does(monkeypatch):
    """Each has one of two images, and divides by the mean of what both of them count."""
    model, labels = random_model(), objects(3, 1)
    expected = model(images(), labels=labels).loss
    monkeypatch.setattr(dino_loss, "mean_over_processes", lambda count: torch.tensor(2.0))
    parts = [model(images()[i : i + 1], labels=labels[i : i + 1]).loss for i in range(2)]
    torch.testing.assert_close(sum(parts) / 2, expected)


# --- weights


def test_models_from_before_load(tmp_path, caplog):
    """Models that were converted before had no embedding of known objects; training makes a new one."""
    model = random_model()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["label_embedding.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = AutoModelForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not caplog.text
    assert 0.8 < loaded.label_embedding.weight.std() < 1.2
    assert torch.equal(loaded(images()).logits, model(images()).logits)


# --- learning


def small_learner() -> DinoDetectorForObjectDetection:
    """A detector that is large enough for ten small scenes of two classes."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "out_features": STAGES}
    small = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 20, "max_detections": 20, "num_denoising": 20}
    backbone = AutoConfig.for_model("convnext", **sizes)
    return DinoDetectorForObjectDetection(tiny_config(backbone_config=backbone, num_labels=2, **small))


def test_ten_images_are_learned_by_heart():
    examples, model, steps = scenes(10), small_learner().train(), 170
    batch = batch_of(examples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / steps))
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
    assert average_precision(model.eval(), examples, "box") >= 0.95


def test_trainer(tmp_path):
    pytest.importorskip("accelerate")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        max_steps=3,
        learning_rate=1e-3,
        bf16=True,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
    )
    examples = scenes(4)
    trainer = Trainer(
        model=small_learner(),
        args=arguments,
        data_collator=batch_of,
        train_dataset=examples,
        eval_dataset=examples,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert 0 < trainer.evaluate()["eval_loss"] < before
    AutoModelForObjectDetection.from_pretrained(tmp_path / "checkpoint-3")
