"""Data sets for `finetune.py`: folders, parquet files and the Hub, and the splits in them."""

import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np

from hf_models.errors import reason

# what the folders of splits may be called
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def load(data: str, stream: bool = False) -> datasets.DatasetDict:
    """The splits, `train` (unless it is streamed) and `validation` at least, with `image` and `label`."""
    try:
        splits = read_splits(data, stream)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        sys.exit(f"{data}: no folder of images, and no data set of the Hub that can be read ({reason(error)}).")
    if not stream and "train" not in splits:
        sys.exit(f"{data}: has the splits {', '.join(splits)}, and none to train on, which is called train.")
    names = {}
    features = next(iter(splits.values())).features
    for name, feature in features.items():
        kind = {datasets.Image: "image", datasets.ClassLabel: "label"}.get(type(feature))
        if kind not in (None, *names.values()):
            names[name] = kind
    if len(names) < 2:
        sys.exit(f"{data}: expected a column of images and one of class labels, got {features}.")
    splits = splits.select_columns(list(names)).rename_columns(names)
    if "validation" not in splits:
        splits |= split(splits["train"])
    if "test" in splits and min(splits["test"]["label"]) < 0:
        print(f"{data}: its test split has no labels, and the validation images are measured.", file=sys.stderr)
        del splits["test"]
    # read when they are needed, so that a damaged one can be named
    return datasets.DatasetDict(splits).cast_column("image", datasets.Image(decode=False))


def read_splits(data: str, stream: bool) -> datasets.DatasetDict:
    """What there is, with the columns as they are."""
    files = {split: [str(f) for f in Path(data).glob(f"{split}*.parquet")] for split in SPLITS}
    if stream and not files["validation"]:
        sys.exit(f"{data}: no validation*.parquet, which tells the classes of what is streamed.")
    if stream:
        del files["train"]
    if stream or files["train"]:
        return datasets.load_dataset("parquet", data_files={split: found for split, found in files.items() if found})
    if Path(data).is_dir():
        if left_out := [file for file in Path(data).rglob("*") if file.suffix.lower() in (".avif", ".heic")]:
            # by `datasets`, without a word
            sys.exit(f"{left_out[0]}: such photos are left out, {len(left_out)} in all. Save them as JPEG or WebP.")
        return datasets.load_dataset("imagefolder", data_dir=data, data_files=patterns(Path(data)))
    return datasets.load_dataset(data)


def patterns(folder: Path) -> dict[str, str]:
    """Split -> where its images are. A folder of a split holds class folders: one of images is a class of that name.

    Without patterns, `datasets` would take a class "train" or "test tube" for a split, and leave out the others.
    """
    found = {
        split: f"{name}/**"
        for split, names in SPLITS.items()
        for name in names
        if any(inside.is_dir() for inside in (folder / name).glob("*"))
    }
    return found if "train" in found else {"train": "**"}


def split(rows: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """A tenth of each class to validate on, and at least one image; a class of one image is only trained on."""
    labels = rows["label"]
    wanted = {label: max(1, round(count / 10)) if count > 1 else 0 for label, count in Counter(labels).items()}
    chosen = set()
    for index in np.random.default_rng(0).permutation(len(labels)).tolist():
        if wanted[labels[index]]:
            wanted[labels[index]] -= 1
            chosen.add(index)
    if not chosen:
        sys.exit("no class has two images: there is nothing to validate on.")
    rest = [index for index in range(len(labels)) if index not in chosen]
    return {"train": rows.select(rest), "validation": rows.select(sorted(chosen))}
