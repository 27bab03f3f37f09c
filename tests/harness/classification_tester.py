"""A small classifier, and folders of images for it."""

import io

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageClassification

from hf_models.image_processing_imagenet import ImageNetImageProcessor
from hf_models.zoo import wnid_names

WNIDS = list(wnid_names())
CLASSES = WNIDS[:6]
PER_CLASS = 8


def make_model(folder, names, **kwargs):
    torch.manual_seed(0)
    config = AutoConfig.for_model("smt", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], mlp_ratios=[1, 1, 1, 1])
    config.num_attention_heads = [4, 4, 1, 1]
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    model = AutoModelForImageClassification.from_config(config)
    with torch.no_grad():  # random weights answer the same to everything; this spreads the answers
        model.classifier.weight.normal_()
    model.save_pretrained(folder)
    ImageNetImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def jpeg(seed):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    size = tuple(random.integers(20, 60, 2).tolist())
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(file, "JPEG")
    return file.getvalue()


def make_folder(root, classes=CLASSES, per_class=PER_CLASS):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            index = number * per_class + i
            (root / name / f"ILSVRC2012_val_{index + 1:08}.JPEG").write_bytes(jpeg(index))
    return root
