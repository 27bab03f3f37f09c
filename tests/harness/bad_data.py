"""Bad images and data sets: `hf-models classify`, `evaluate imagenet`, `evaluate ade20k`."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image

from hf_models.evaluate.journal import journal_line
from hf_models.inference.names import default_checkpoint
from hf_models.zoo import wnid_names

from .bad_input_case import Case, both, writing
from .evaluation_tester import make_folder

WNIDS = list(wnid_names())
# classes that the embedded checkpoint has
LABELS = json.loads((default_checkpoint() / "config.json").read_text())["id2label"].values()
KNOWN = [wnid for wnid, name in wnid_names().items() if name in LABELS][:2]
IMAGENET = ("evaluate", "imagenet", "--model", "default", "--data", "val", "--results", "imagenet.csv")
ADE20K = ("evaluate", "ade20k", "--model", "segmenter", "--data", "ADE", "--subset", "--results", "ade20k.csv")
MASKS, IMAGES = "ADE/annotations/validation/ADE_val_00000002.png", "ADE/images/validation/ADE_val_00000003.jpg"


def jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A whole PNG of 100 bytes."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    data = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


def picture(content, message: str) -> Case:
    build = content if callable(content) else writing(content, "x.png")
    return Case(build, ("classify", "x.png"), "x.png", message)


def image(mode: str, size: tuple[int, int] = (64, 64), **kwargs):
    kwargs.setdefault("format", "PNG")
    return lambda: Image.new(mode, size).save("x.png", **kwargs)


def postscript() -> bytes:
    """Pillow would call Ghostscript on it."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"


def classes(wnids, content: bytes = b"x", name: str = "a.JPEG"):
    def build() -> None:
        for wnid in wnids:
            writing(content, f"val/{wnid}/{name}")()

    return build


def data(build, path: str, message: str, *options: str) -> Case:
    return Case(build, (*IMAGENET, *options), path, message)


def link_to_nothing() -> None:
    os.symlink("nowhere", f"val/{KNOWN[1]}/b.JPEG")


def pipe() -> None:
    os.mkfifo(f"val/{KNOWN[1]}/b.JPEG")


def table(**columns):
    def build() -> None:
        Path("val").mkdir()
        Dataset.from_dict(columns).to_parquet("val/a.parquet")

    return build


def masks(
    message: str, *, pixels=None, mode: str = "L", size=(64, 64), cut: int | None = None, path: str = MASKS
) -> Case:
    """A data set of which one mask, or one image, is spoilt."""

    def build() -> None:
        make_folder(Path("ADE"))
        if pixels is not None:
            mask = np.zeros((64, 64), dtype=np.uint8)
            mask[3, 5] = pixels
            Image.fromarray(mask).save(path)
        elif cut:
            Path(path).write_bytes(Path(path).read_bytes()[:cut])
        else:
            Image.new(mode, size).save(path)

    return Case(build, ADE20K, Path(path).name, message)


TWO = classes(KNOWN, jpeg())
REAL = ("--subset", "--real", "real.json")
JOURNAL, RESUME = "imagenet.csv.progress-0.jsonl", ("--subset", "--resume")
LABEL = WNIDS.index(KNOWN[0])
PICTURES = {
    "image: missing": picture(lambda: None, "no such file"),
    "image: text": picture(b"no image", "not an image in a format of AVIF, BMP, GIF, JPEG"),
    "image: empty": picture(b"", "not an image"),
    "image: a folder": picture(lambda: Path("x.png").mkdir(), "a folder. Name its image files."),
    "image: truncated": picture(jpeg()[:2000], "cannot be read completely"),
    "image: 16 bits": picture(image("I;16"), "more than 8 bits per channel"),
    "image: floats": picture(image("F", format="TIFF"), "more than 8 bits per channel"),
    "image: narrow": picture(image("RGB", (5000, 3)), "aspect ratio 1667:1 exceeds 100:1"),
    "image: a billion pixels": picture(png_that_claims(40_000, 25_000), "more than 178,956,970 pixels"),
    "image: no pixels": picture(png_that_claims(64, 64), "cannot be read completely"),
    "image: a program": picture(postscript(), "not an image in a format of"),
    "image: name with escapes": Case(
        writing(b"", "a\x1b[2J\nb.png"), ("classify", "a\x1b[2J\nb.png"), "a\\x1b[2J\\nb.png", "not an image"
    ),
}
IMAGENET_FOLDERS = {
    "ImageNet: 998 classes": data(
        classes(WNIDS[2:]), "val", "998 classes (n01440764, n01443537 missing) and 998 images, 1000"
    ),
    "ImageNet: 49,999 images": data(
        both(*(lambda i=i: classes(WNIDS, name=f"{i}.JPEG")() for i in range(2))),
        "val",
        "1000 classes and 2,000 images",
    ),
    "ImageNet: empty class": data(
        both(TWO, lambda: Path("val", WNIDS[7]).mkdir()),
        WNIDS[7],
        "no images in this class folder. Nothing evaluated.",
    ),
    "ImageNet: flat folder": data(
        writing(jpeg(), "val/a.JPEG"), "val", "no class folders, parquet files or tar files"
    ),
    "ImageNet: nothing": data(lambda: Path("val").mkdir(), "val", "no class folders, parquet files or tar files"),
    "ImageNet: no folder": data(lambda: None, "val", "no such file or folder"),
    "ImageNet: other classes": data(
        classes(["cats", "dogs"], jpeg()), "val", "classes such as cats are not ImageNet-1K's"
    ),
    "ImageNet: truncated image": data(
        both(TWO, writing(jpeg()[:-300], f"val/{KNOWN[1]}/b.JPEG")), "b.JPEG", "cannot be read completely", "--subset"
    ),
    "ImageNet: truncated image, no threads": data(
        both(TWO, writing(jpeg()[:-300], f"val/{KNOWN[1]}/b.JPEG")),
        "b.JPEG",
        "cannot be read completely",
        "--subset",
        "--num-workers",
        "0",
    ),
    "ImageNet: link to nothing": data(
        both(TWO, link_to_nothing), "b.JPEG", "not a file, or a link to none", "--subset"
    ),
    "ImageNet: pipe": data(both(TWO, pipe), "b.JPEG", "not a file, or a link to none", "--subset"),
    "ImageNet: name of bytes": data(
        classes(KNOWN, b"", os.fsdecode(b"a\xff.JPEG")), "a\\udcff.JPEG", "not an image", "--subset"
    ),
    "ImageNet: broken parquet": data(writing(b"PAR1", "val/a.parquet"), "val", "cannot be read"),
    "ImageNet: broken tar": data(writing(b"x" * 1024, "val/a.tar"), "val", "cannot be read"),
    "ImageNet: column of numbers": data(table(image=[1], label=[LABEL]), "val", "holds no image", "--subset"),
    "ImageNet: names of files outside": data(
        table(image=[{"bytes": None, "path": "/etc/passwd"}], label=[LABEL]),
        "val",
        "or only the name of one",
        "--subset",
    ),
    "ImageNet: label 5000": data(
        table(image=[{"bytes": jpeg(), "path": "a"}], label=[5000]), "val", "label 5000 is no class", "--subset"
    ),
    "ReaL labels: no list": data(both(TWO, writing("{}", "real.json")), "real.json", "not the ReaL labels", *REAL),
    "ReaL labels: class 1000": data(
        both(TWO, writing("[[1000]]", "real.json")), "real.json", "not within 0 to 999", *REAL
    ),
    "ReaL labels: deep": data(both(TWO, writing("[" * 10**5, "real.json")), "real.json", "not the ReaL labels", *REAL),
    "results: other CSV": data(
        both(TWO, writing("a,b\n1,2\n", "imagenet.csv")), "imagenet.csv", "not a results file", "--subset"
    ),
    "results: bytes": data(
        both(TWO, writing(b"\xff\0\n", "imagenet.csv")), "imagenet.csv", "not a results file", "--subset"
    ),
    "journal: checksum": data(
        both(TWO, writing('["01234567",{"model":1}]\n', JOURNAL)), JOURNAL, "damaged. Delete it", *RESUME
    ),
    "journal: no time": data(
        both(TWO, writing(journal_line({}) + journal_line({"seconds": 1e10, "records": []}), JOURNAL)),
        JOURNAL,
        "damaged. Delete it",
        *RESUME,
    ),
    "journal: other evaluation": data(
        both(TWO, writing(journal_line({"model": 1}), JOURNAL)),
        JOURNAL,
        "belongs to another evaluation (evaluation, version, model, ",
        *RESUME,
    ),
    "journal: earlier version": data(
        both(TWO, writing('{"model":1}\n{"seconds":1,"counts":[[0,1]]}\n', JOURNAL)),
        JOURNAL,
        "written by an earlier version. Delete it",
        *RESUME,
    ),
}
ADE20K_FOLDERS = {
    "ADE20K: label 151": masks("label 151 outside 0..150 (0 = ignored)", pixels=151),
    "ADE20K: size of a mask": masks("64 x 63 pixels, the image has 64 x 64", size=(64, 63)),
    "ADE20K: truncated mask": masks("cannot be read completely", cut=60),
    "ADE20K: colour mask": masks("mode RGB, a mask has one channel", mode="RGB"),
    "ADE20K: truncated image": masks("cannot be read completely", cut=700, path=IMAGES),
}
SHAPE_BIAS = ("evaluate", "shape-bias", "--data", "stimuli", "--results", "shape_bias.csv")
STIMULUS = "stimuli/cat/cat1-dog1.jpg"
STIMULI = {
    "stimuli: other name": Case(
        writing(jpeg(), "stimuli/cat/photo.jpg"),
        SHAPE_BIAS,
        "stimuli/cat/photo.jpg",
        "not a stimulus. Their names are",
    ),
    "stimuli: categories missing": Case(
        writing(jpeg(), STIMULUS), SHAPE_BIAS, "stimuli", "1 stimuli (no airplane, bear, bicycle, "
    ),
    "stimuli: truncated": Case(
        writing(jpeg((224, 224))[:-300], STIMULUS), (*SHAPE_BIAS, "--subset"), STIMULUS, "cannot be read completely"
    ),
    "stimuli: other size": Case(
        writing(jpeg(), STIMULUS), (*SHAPE_BIAS, "--subset"), STIMULUS, "64 x 48 pixels, a stimulus has 224 x 224"
    ),
}
CASES = PICTURES | IMAGENET_FOLDERS | ADE20K_FOLDERS | STIMULI
