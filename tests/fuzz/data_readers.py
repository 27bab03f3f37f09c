"""Readers of images, data sets, results and recipes, for the fuzzer."""

import csv
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from mutate import mutate_bytes, mutate_json
from PIL import Image

from hf_models.evaluate.accuracy_table import accuracy_table
from hf_models.evaluate.coco_metrics import precision
from hf_models.evaluate.data.ade20k import read_mask
from hf_models.evaluate.data.coco import open_coco
from hf_models.evaluate.data.coco_objects import check_masks
from hf_models.evaluate.data.imagenet import check_labels
from hf_models.evaluate.data.images import Sample
from hf_models.evaluate.data.labelled import open_labelled
from hf_models.evaluate.imagenet import _real_labels
from hf_models.evaluate.journal import Journal, checked_line
from hf_models.evaluate.results import ACCURACY, read_results
from hf_models.inference.images import read_image
from hf_models.internimage_metadata import encode_metadata
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

Random = random.Random


def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    modes = {
        "JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "RGBA", "P", "L", "1", "I;16"], "WEBP": ["RGB", "RGBA"],
        "BMP": ["RGB", "P"], "PPM": ["RGB", "L"], "TIFF": ["RGB", "CMYK", "LAB"], "GIF": ["P"],
    }  # fmt: skip
    found = []
    for kind, names in modes.items():
        for mode in names:
            file = io.BytesIO()
            picture = Image.new(mode, (16, 12)) if mode in ("LAB", "I;16") else image.convert(mode)
            picture.save(file, kind, **({"compression": "tiff_lzw"} if (kind, mode) == ("TIFF", "RGB") else {}))
            found.append(file.getvalue())
    return found


def read_picture(data: bytes) -> None:
    Path("x.jpg").write_bytes(data)
    read_image("x.jpg")


def masks() -> list[bytes]:
    return [data for data in pictures() if data.startswith((b"\x89PNG", b"GIF", b"II"))]


def read_mask_file(data: bytes) -> None:
    Path("mask.png").write_bytes(data)
    read_mask(Sample(0, "x", b"", Path("mask.png")), (16, 12), True)


def tables_csv() -> list[bytes]:
    row = dict.fromkeys(ACCURACY.columns, "a, b") | {"n": "10", "seconds": "1.5", "value": "83.25"}
    row |= {"model": "smt_tiny", "data": "ImageNet-1K validation", "metric": "top-1"}
    file = io.StringIO()
    writer = csv.DictWriter(file, ACCURACY.columns)
    writer.writeheader()
    writer.writerows([row, row | {"model": "other"}])
    return [file.getvalue().encode()]


def read_csv(data: bytes) -> None:
    Path("x.csv").write_bytes(data)
    read_results(Path("x.csv"), ACCURACY)
    accuracy_table([Path("x.csv")])


def journals() -> list[list]:
    return [
        [
            {"model": "a", "data": "b"},
            {"seconds": 0.5, "records": [[0, "AQE="], [1, "AAE="]]},
            {"seconds": 1, "records": []},
        ]
    ]


def mutate_lines(lines: list, random: Random) -> bytes:
    chosen = random.randrange(len(lines))
    texts = [mutate_json(v, random) if i == chosen else json.dumps(v).encode() for i, v in enumerate(lines)]
    journal = b"".join(map(checked_line, texts))  # else hardly any would be read beyond its checksum
    return mutate_bytes(journal, random) if random.random() < 0.3 else journal


def read_journal(data: bytes) -> None:
    Path("x.csv.progress-0.jsonl").write_bytes(data)
    journal = Journal(Path("x.csv"), {"model": "a", "data": "b"}, resume=True)
    b"".join(journal.done[index] for index in sorted(journal.done)), f"{journal.seconds:.3f}"


def read_real(data: bytes) -> None:
    Path("real.json").write_bytes(data)
    labels = _real_labels(Path("real.json"))
    [range(1000)[index] for image in labels[:50] for index in image]


def annotations() -> list[dict]:
    """Of a photo of 16 x 12 pixels."""
    objects = {"image_id": 9, "category_id": 18, "bbox": [2, 3, 6, 4], "area": 24}
    masks = [[[2, 3, 8, 3, 8, 7]], {"size": [12, 16], "counts": [27, 3, 162]}, {"size": [12, 16], "counts": "k03R5"}]
    return [
        {
            "images": [{"id": 9, "file_name": "x.jpg", "width": 16, "height": 12}],
            "categories": [{"id": 18, "name": "dog"}],
            "annotations": [
                objects | {"id": number, "iscrowd": int(number == 2), "segmentation": mask}
                for number, mask in enumerate(masks, 1)
            ],
        }
    ]


def read_annotations(data: bytes) -> None:
    Path("x.jpg").write_bytes(pictures()[0])
    Path("x.json").write_bytes(data)
    selection = open_coco(".", "val2017", Path("x.json"))
    check_masks(selection.content, selection.path)
    whole = {"size": [12, 16], "counts": "0P6"}
    results = [{"image_id": 9, "category_id": 18, "score": 0.5, "bbox": [2, 3, 6, 4], "segmentation": whole}]
    for kind in ("box", "mask"):
        precision(selection.content, results if selection.content["images"][0]["id"] == 9 else [], kind)


def parquets() -> list[bytes]:
    images = [{"bytes": pictures()[0], "path": "a.jpg"}, {"bytes": pictures()[3], "path": None}]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["n01440764", "n01443537"])}
    )
    datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features).to_parquet("seed.parquet")
    return [Path("seed.parquet").read_bytes()]


def read_parquet(data: bytes, name: str = "x.parquet") -> None:
    Path(name).write_bytes(data)
    source = open_labelled(name)
    check_labels(source, True, None)
    for sample in source.samples():
        read_image(io.BytesIO(sample.image), sample.name)


def tars() -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("a.jpg", pictures()[0]), ("a.cls", b"0"), ("b.jpg", pictures()[1]), ("b.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [file.getvalue()]


def read_tar(data: bytes) -> None:
    read_parquet(data, "x.tar")


def read_metadata(value: Any) -> None:
    try:
        encoded = encode_metadata(*value) if isinstance(value, list) else torch.zeros(0)
    except (TypeError, ValueError):  # as documented: it is called from Python
        return
    assert encoded.isfinite().all()


def recipes() -> list[dict]:
    return [SegmentationRecipe(crop_size=(512, 512), stride=(341, 341)).to_dict()]


def read_recipe(value: Any) -> None:
    try:
        recipe = SegmentationRecipe.from_dict(value)
    except (TypeError, ValueError):  # as documented: whoever reads the config names it
        return
    json.dumps(recipe.to_dict(), allow_nan=False)
