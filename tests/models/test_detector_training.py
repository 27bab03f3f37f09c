"""Detectors learn: their losses are those of plain loops, ten images are learned by heart, Trainer trains them."""

import math

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForObjectDetection, Trainer, TrainingArguments

from hf_models.boxes import corner_boxes
from hf_models.conversion import convert
from hf_models.detector_labels import checked_labels

from ..harness.detection_scenes import average_precision, batch_of, scenes
from ..harness.loss_goldens import CASES, batch_of_case, losses_of_original, original_of
from ..harness.loss_goldens import SIZES as ORIGINAL_SIZES
from ..harness.plain_training import PlainRCNNTraining, plain_assign_point, plain_focal, plain_iou
from ..harness.rcnn_tester import CASCADE, padded_images
from ..harness.rcnn_tester import small_config as small_rcnn_config
from ..harness.rcnn_tester import small_model as small_rcnn
from ..harness.segmentation_tester import write_checkpoint
from .test_backbone_fcos import PlainFCOS
from .test_backbone_fcos import small_config as small_fcos_config
from .test_backbone_fcos import small_model as small_fcos

SIZES = [(93, 61), (64, 50)]  # width and height of the images
KINDS = {
    "fcos": (small_fcos, {}),
    "mask_rcnn": (small_rcnn, {}),
    "faster_rcnn": (small_rcnn, {"with_masks": False}),
    "cascade": (small_rcnn, CASCADE),
}

LEARNER = {"box_hidden_size": 64, "box_samples": 64, "rpn_train_pre_nms": 100, "rpn_train_post_nms": 60}
LEARNERS = {
    "fcos": ({}, 90),
    "mask_rcnn": (LEARNER, 50),
    "cascade": (LEARNER | CASCADE | {"with_masks": False, "box_convs": 1, "box_samples": 24}, 100),
}  # and the steps that they learn in


def random_labels(sizes, num_labels=4, counts=(4, 2), seed=0):
    """Objects at random places of images of these sizes, whose masks are most of their boxes."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-max(size[axis] for size in sizes) // 32) * 32 for axis in (1, 0))
    labels = []
    for size, count in zip(sizes, counts, strict=True):
        sides = 0.2 + 0.3 * torch.rand(count, 2, generator=generator)
        centres = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=generator)
        boxes = torch.cat((centres, sides), dim=1)
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, corner_boxes(boxes, torch.tensor(size)), strict=True):
            mask[int(top) : int(bottom), int(left) : int(0.7 * right + 0.3 * left)] = 1
        classes = torch.randint(num_labels, (count,), generator=generator)
        labels.append({"class_labels": classes, "boxes": boxes, "masks": masks})
    return labels


def plain_objects(labels, sizes):
    """Classes and boxes in pixels, as numbers."""
    for objects, size in zip(labels, sizes, strict=True):
        yield objects["class_labels"].tolist(), corner_boxes(objects["boxes"], torch.tensor(size)).double().tolist()


def check_parts(output, expected):
    assert output.loss_dict.keys() == expected.keys()
    for name, value in expected.items():
        assert output.loss_dict[name].item() == pytest.approx(value, rel=1e-4), name
    assert output.loss.item() == pytest.approx(sum(expected.values()), rel=1e-4)


# --- the losses


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_the_original(case, tmp_path):
    """From the levels of the pyramid on; all is drawn, so that chance has no part in it."""
    source, original = write_checkpoint(tmp_path, *original_of(case))
    convert(source, tmp_path / "out", original_config=original, progress=False)
    model = AutoModelForObjectDetection.from_pretrained(tmp_path / "out").train()
    config, model.neck = model.config, torch.nn.Identity()
    levels, labels = batch_of_case(case, config.level_strides, config.fpn_channels, config.num_labels)
    pixel_mask = torch.zeros(2, 128, 128)
    for mask, (width, height) in zip(pixel_mask, ORIGINAL_SIZES, strict=True):
        mask[:height, :width] = 1
    losses = model.find(levels, pixel_mask, checked_labels(labels, 2, config.num_labels)).loss_dict
    expected = losses_of_original(case)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize(
    ("kwargs", "counts"),
    [
        ({}, (4, 2)),
        ({}, (0, 0)),
        (CASCADE, (3, 1)),
        ({"with_masks": False, "rpn_inside_anchors": True, "box_loss": "giou"}, (0, 3)),
    ],
    ids=["mask_rcnn", "nothing", "cascade", "faster_rcnn"],
)
def test_losses_of_rcnn_are_a_plain_loop(kwargs, counts):
    """All anchors and regions are drawn; the proposals are those of the test, as the model is in evaluation mode."""
    model = small_rcnn("convnext", rpn_samples=10**6, box_samples=10**6, **kwargs)
    inputs, labels = padded_images(*SIZES), random_labels(SIZES, counts=counts)
    with torch.no_grad():
        output = model(**inputs, labels=labels)
        feature_maps = model.backbone(inputs["pixel_values"]).feature_maps
    images = [
        ([feature_map[i : i + 1] for feature_map in feature_maps], size, classes, boxes, objects["masks"])
        for i, (size, objects, (classes, boxes)) in enumerate(
            zip(SIZES, labels, plain_objects(labels, SIZES), strict=True)
        )
    ]
    check_parts(output, PlainRCNNTraining(model).losses(images))
    assert output.scores.shape == (2, 10), "in evaluation mode there are detections too"


@pytest.mark.parametrize("kwargs", [{}, {"box_loss": "giou"}, {"centre_radius": 1.5}], ids=str)
def test_losses_of_fcos_are_a_plain_loop(kwargs):
    model = small_fcos("convnext", **kwargs)
    inputs, labels = padded_images(*SIZES), random_labels(SIZES)
    with torch.no_grad():
        output = model(**inputs, labels=labels)
        feature_maps = model.backbone(inputs["pixel_values"]).feature_maps
    plain = PlainFCOS(model)
    sums = {"loss_cls": 0.0, "loss_bbox": 0.0, "loss_centreness": 0.0}
    found, centred = 0, 0.0
    for image, (classes, objects) in enumerate(plain_objects(labels, SIZES)):
        for i, level in enumerate(
            plain.pyramid([feature_map[image : image + 1].double() for feature_map in feature_maps])
        ):
            of_class, of_box = plain.tower("class_tower", level), plain.tower("box_tower", level)
            logits = plain.conv("head.classifier", of_class)[0]
            centreness = plain.conv("head.centreness", of_class)[0, 0]
            distances = (plain.conv("head.distances", of_box)[0] * plain.weights[f"head.scales.{i}"]).exp()
            stride = 8 * 2**i
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    index = plain_assign_point(stride, x, y, objects, model.config.centre_radius, 8, 128)
                    for label, logit in enumerate(logits[:, row, column].tolist()):
                        sums["loss_cls"] += plain_focal(logit, index >= 0 and label == classes[index])
                    if index < 0:
                        continue
                    left, top, right, bottom = objects[index]
                    share = min(x - left, right - x) / max(x - left, right - x)
                    share = math.sqrt(share * min(y - top, bottom - y) / max(y - top, bottom - y))
                    before, above, after, below = distances[:, row, column].tolist()
                    box = [x - before, y - above, x + after, y + below]
                    p = centreness[row, column].sigmoid().item()
                    sums["loss_centreness"] -= share * math.log(p) + (1 - share) * math.log(1 - p)
                    if model.config.box_loss == "giou":
                        hull = [min(box[0], left), min(box[1], top), max(box[2], right), max(box[3], bottom)]
                        area = (hull[2] - hull[0]) * (hull[3] - hull[1])
                        areas = (box[2] - box[0]) * (box[3] - box[1]) + (right - left) * (bottom - top)
                        iou = plain_iou(box, objects[index])
                        error = 1 - iou + 1 - areas / (1 + iou) / area
                    else:
                        error = -math.log(plain_iou(box, objects[index]))
                    sums["loss_bbox"] += share * error
                    found, centred = found + 1, centred + share
    assert found > 20
    check_parts(
        output,
        {
            "loss_cls": sums["loss_cls"] / found,
            "loss_bbox": sums["loss_bbox"] / centred,
            "loss_centreness": sums["loss_centreness"] / found,
        },
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind):
    """Even where there is nothing to find: DDP waits for all of them. The loss is the sum of its parts."""
    make, kwargs = KINDS[kind]
    model = make("internimage", **kwargs).train()
    model.gradient_checkpointing_enable()
    for counts in ((4, 2), (0, 3), (0, 0)):
        model.zero_grad()
        output = model(**padded_images(*SIZES), labels=random_labels(SIZES, counts=counts))
        assert output.scores is None and output.to_tuple()[0] is output.loss, "in training there are losses alone"
        torch.testing.assert_close(output.loss, sum(output.loss_dict.values()))
        output.loss.backward()
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not without and all(parameter.grad.isfinite().all() for parameter in model.parameters())
        trains = model.box_heads[0].deltas if kind != "fcos" else model.head.distances
        assert trains.weight.grad.any() == (sum(counts) > 0)


@pytest.mark.parametrize("kind", ["fcos", "cascade"])
def test_two_processes_learn_what_one_does(kind, monkeypatch):
    """Each has one of two images, and knows from the other what it has counted."""
    make, kwargs = KINDS[kind]
    if kind == "cascade":
        kwargs = kwargs | {"rpn_samples": 10**6, "box_samples": 10**6}
    model = make("convnext", **kwargs).eval()
    inputs, labels = padded_images(*SIZES), random_labels(SIZES)

    def gradient(images):
        model.zero_grad()
        model(**{name: tensor[images] for name, tensor in inputs.items()}, labels=labels[images]).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    expected, counts = gradient(slice(0, 2)), {}
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for image in range(2):
        counts[image] = []
        monkeypatch.setattr(dist, "all_reduce", lambda count, image=image: counts[image].append(count.clone()))
        gradient(slice(image, image + 1))
    parts = []
    for image in range(2):
        others = iter(counts[1 - image])
        monkeypatch.setattr(dist, "all_reduce", lambda count, others=others: count.add_(next(others)))
        parts.append(gradient(slice(image, image + 1)))
    torch.testing.assert_close(sum(parts) / 2, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_in_half_precision(kind):
    make, kwargs = KINDS[kind]
    model, inputs, labels = make("convnext", **kwargs).train(), padded_images(*SIZES), random_labels(SIZES)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(model(**inputs, labels=labels).loss)
    assert losses[1].dtype == torch.float32 and losses[1].item() == pytest.approx(losses[0].item(), rel=0.1)
    losses[1].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# --- what cannot be learned from


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_labels": torch.tensor([1, 4])},
            r"labels\[0\]\['class_labels'\]: 4 is no class of the model, which has 4",
        ),
        ({"class_labels": torch.tensor([-1, 0])}, r"-1 is no class of the model, which has 4, from 0 to 3"),
        (
            {"class_labels": torch.tensor([1])},
            r"labels\[0\]: expected `class_labels` \(n,\) .* got \(1,\) and \(2, 4\)",
        ),
        ({"boxes": torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0, 0.2]])}, r"\[0.5, 0.5, 0.0, 0.2.*\] has no area"),
        ({"boxes": torch.tensor([[50.0, 50, 10, 10], [0.5, 0.5, 0.1, 0.1]])}, r"\[50.0.*\] is not a box in fractions"),
        (
            {"boxes": torch.full((2, 4), 0.5).bfloat16()},
            r"in torch.bfloat16, which rounds them by pixels. Give float32",
        ),
        ({"boxes": torch.full((2, 4), math.nan)}, r"\[nan.*\] is not a box in fractions"),
        ({"masks": torch.zeros(2, 64, 60)}, r"labels\[0\]\['masks'\]: expected \(2, 64, 96\), got \(2, 64, 60\)"),
        ({"masks": None}, r"labels\[0\]: `masks` is missing, and the model has mask heads.*with_masks=False"),
    ],
)
def test_labels_that_cannot_be_learned_from_are_refused(change, message):
    objects = {"class_labels": torch.tensor([0, 1]), "boxes": torch.full((2, 4), 0.5), "masks": torch.ones(2, 64, 96)}
    model, inputs = small_rcnn("convnext"), padded_images((96, 64))
    assert model(**inputs, labels=[objects]).loss > 0
    with pytest.raises(ValueError, match=message) as error:
        model(**inputs, labels=[objects | change])
    assert "\n" not in str(error.value)


def test_a_batch_has_a_list_of_labels():
    model, inputs = small_fcos("convnext"), padded_images((96, 64))
    objects = {"class_labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5)}
    for labels, message in (
        ([objects] * 2, "one for each of 1 images, got 2 of them"),
        (objects, "expected a list of dictionaries, one for each of 1 images, got dict"),
        ([{"boxes": objects["boxes"]}], r"labels\[0\]: expected `class_labels` and `boxes`, class_labels missing"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs, labels=labels)
    with pytest.raises(ValueError, match="nothing to learn from a batch without images"):
        model(**{name: tensor[:0] for name, tensor in inputs.items()}, labels=[])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_images(kind):
    make, kwargs = KINDS[kind]
    with torch.no_grad():
        output = make("convnext", **kwargs)(torch.zeros(0, 3, 64, 64))
    assert output.scores.shape[0] == output.labels.shape[0] == 0 and output.boxes.shape[::2] == (0, 4)


# --- learning


def learner(kind: str, backbone: str = "convnext"):
    """A detector that is large enough for ten small scenes of two classes."""
    torch.manual_seed(0)
    make = small_fcos_config if kind == "fcos" else small_rcnn_config
    config = make(backbone, **{"num_labels": 2, "fpn_channels": 24, "max_detections": 20} | LEARNERS[kind][0])
    return AutoModelForObjectDetection.from_config(config)


@pytest.mark.parametrize("kind", LEARNERS)
def test_ten_images_are_learned_by_heart(kind):
    examples, model = scenes(10), learner(kind).train()
    with_masks = getattr(model.config, "with_masks", False)
    batch = batch_of(examples, with_masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(LEARNERS[kind][1]):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    for measured in ("box", "mask")[: 1 + with_masks]:
        assert average_precision(model, examples, measured) >= 0.95


def test_trainer_trains_a_detector(tmp_path):
    """Images and annotations as they are, the loss and the detections of the evaluation, gradients of two batches."""
    pytest.importorskip("accelerate")
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        max_steps=3,
        learning_rate=1e-3,
        bf16=True,
        eval_do_concat_batches=False,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
    )
    examples = scenes(4)
    trainer = Trainer(
        model=learner("mask_rcnn", "internimage"),
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,
        data_collator=lambda batch: batch_of(batch, with_masks=True),
        compute_metrics=lambda evaluated: {
            "batches": len(evaluated.predictions),
            "images": len(evaluated.label_ids[0]),
        },
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_batches"] == after["eval_images"] == 2 and 0 < after["eval_loss"] < before["eval_loss"]
