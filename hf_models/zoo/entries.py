"""The registry of every published checkpoint that the families here can load: one JSON file a family in `zoo/`."""

import gzip
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig

DATA = Path(__file__).with_name("data")
LABEL_FILES = {"imagenet-1k": "imagenet-1k.txt", "imagenet-22k": "imagenet-22k.txt.gz"}


@dataclass(frozen=True)
class Preprocessing:
    """How the authors prepare an image to evaluate a model.

    Args:
        mode: `"shortest_edge"` makes the short side `resize` pixels long and cuts out the central square; `"warp"`
            resizes both sides to `size`, whatever the aspect ratio.
        size: Side in pixels of the square that the model sees.
        interpolation: A Pillow resampling filter, in lower case.
        mean: Mean of each channel, for values in [0, 1]; `std` likewise.
    """

    mode: str
    size: int
    interpolation: str
    mean: list[float]
    std: list[float]
    resize: int | None = None


@dataclass(frozen=True)
class ZooModel:
    """One published checkpoint: where it is, what it is, what its authors say of it.

    Args:
        name: Name of the published file without its extension; `aliases` are others for the same weights.
        family: `model_type` of the config.
        title: Name of the architecture in the paper.
        file: Name of the published file, `None` where the authors give only a link; `url` leads to it.
        repository: The authors' code; `reported` is from its README.
        license: Identifier that the Hub uses, for code and weights; `copyright` as the licence states it, if it does.
        config_kwargs: Where the config differs from the defaults of its class, and the stochastic depth in training.
        num_labels: Number of classes, `None` if not published; `label_set` is the key of their names, `None` where the
            zoo does not have them.
        training_data: Data sets that it was trained on, in order; the head is for the last one.
        parameters: Exact number of parameters (RepLKNet: before merging), `None` if not published.
        reported: The authors' numbers: `top1` and `top5` in percent, `gflops` for one image.
        remeasured: What others (`by`, `url`) measured with the same weights: `top1` and `top5` in percent.
        hub_repo: The authors' Hub repository of the same weights, in their own format.
        test_set: Data set on whose validation part `reported` was measured.
    """

    name: str
    family: str
    title: str
    task: str
    file: str | None
    url: str
    repository: str
    paper: str
    license: str
    copyright: str | None
    citation: str
    config_kwargs: dict[str, Any]
    num_labels: int | None
    label_set: str | None
    preprocessing: Preprocessing
    training_data: list[str]
    parameters: int | None
    reported: dict[str, float]
    remeasured: list[dict[str, Any]] = field(default_factory=list)
    hub_repo: str | None = None
    test_set: str = "ImageNet-1K"
    aliases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of this checkpoint, with the names of its classes.

        Args:
            num_labels: Number of classes instead of the published one. Where neither is known the config has none.
        """
        from transformers import AutoConfig

        kwargs = {**self.config_kwargs, "image_size": self.preprocessing.size}
        if self.label_set and num_labels in (None, self.num_labels):
            id2label = dict(enumerate(label_names(self.label_set)))
            kwargs |= {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}
        else:
            kwargs["num_labels"] = num_labels or self.num_labels or 0
        return AutoConfig.for_model(self.family, **kwargs)

    @property
    def weights_tell_num_labels(self) -> bool:
        """Whether the number of classes is to be read from the weights."""
        return self.num_labels is None

    def image_processor(self) -> "BaseImageProcessor":
        """An image processor that prepares images as the authors do."""
        from PIL.Image import Resampling

        from ..image_processing_imagenet import ImageNetImageProcessor

        recipe = self.preprocessing
        square = {"height": recipe.size, "width": recipe.size}
        return ImageNetImageProcessor(
            size={"shortest_edge": recipe.resize} if recipe.mode == "shortest_edge" else square,
            do_center_crop=recipe.mode == "shortest_edge",
            crop_size=square,
            resample=Resampling[recipe.interpolation.upper()],
            image_mean=recipe.mean,
            image_std=recipe.std,
        )

    def known_as(self) -> set[str]:
        """Every name that `get_model` takes for this checkpoint."""
        hub_name = self.hub_repo and self.hub_repo.split("/")[1]
        return {self.name, *self.aliases} | ({self.file, self.hub_repo, hub_name} - {None})


def list_models(pattern: str | None = None, *, family: str | None = None, task: str | None = None) -> list[str]:
    """Names of the published checkpoints, by family and size.

    Args:
        pattern: Shell-style pattern for the name, such as `"*22k*"`; case does not matter.
        family: Only this family, such as `"internimage"`.
        task: Only this task, such as `"image-classification"`.

    Raises:
        InputError: The zoo has no such family or task.
    """
    models = _models()
    for what, value in (("family", family), ("task", task)):
        if value is not None and value not in (known := {getattr(model, what) for model in models}):
            raise InputError(f"{value}: no such {what}. Choose from {', '.join(sorted(known))}.")
    wanted = (pattern or "*").lower()
    return [
        model.name
        for model in models
        if fnmatchcase(model.name.lower(), wanted) and family in (None, model.family) and task in (None, model.task)
    ]


def get_model(name: str) -> ZooModel:
    """The published checkpoint of this name.

    Args:
        name: Name, file name or alias of a checkpoint, or id of the authors' Hub repository; case does not matter.

    Raises:
        InputError: The zoo has no such checkpoint; the message gives the nearest names.
    """
    by_name = {alias.lower(): model for model in _models() for alias in model.known_as()}
    if model := by_name.get(name.lower()):
        return model
    names = {model.name.lower(): model.name for model in _models()}
    nearest = " or ".join(names[match] for match in get_close_matches(name.lower(), names, cutoff=0.4))
    advice = f"Did you mean {nearest}?" if nearest else "`hf-models list` shows them all."
    raise InputError(f"{name}: no such model in the zoo. {advice}")


def label_names(label_set: str) -> list[str]:
    """Names of all classes of a label set, in the order of the heads; see [`wnid_names`]."""
    return list(wnid_names(label_set).values())


@cache
def wnid_names(label_set: str = "imagenet-1k") -> dict[str, str]:
    """WordNet id -> name of the class, in the order of the heads (the ids are sorted).

    WordNet gives some classes the same name: in ImageNet-1K 134 (a bird) and 517 (a machine) are both a "crane". The
    first class of a name keeps it, later ones carry their id, as in "crane (n03126707)", so that no class is lost when
    names are turned back into indices. All other names are those that transformers users know.

    Args:
        label_set: `"imagenet-1k"` (1,000 classes) or `"imagenet-22k"` (21,841 classes).
    """
    path = DATA / LABEL_FILES[label_set]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    names, taken = {}, set()
    for line in data.decode().splitlines():
        wnid, name = line.split("\t")
        names[wnid] = f"{name} ({wnid})" if name in taken else name
        taken.add(name)
    return names


@cache
def _models() -> tuple[ZooModel, ...]:
    from .segmentation import SegmentationModel  # which builds on this module
    from .segmentation_recipe import SegmentationRecipe

    models = []
    for path in sorted(DATA.glob("*.json")):
        # what the top level of a file states holds for each of its models that does not state otherwise
        family = json.loads(path.read_text(encoding="utf-8"))
        recipe, citation, entries = family.pop("preprocessing"), family.pop("citation"), family.pop("models")
        segmentation = family.pop("segmentation", ())
        for entry in entries:
            entry["config_kwargs"] = entry.pop("config")
            entry["preprocessing"] = Preprocessing(**recipe | entry["preprocessing"])
            models.append(ZooModel(citation="\n".join(citation), **family | entry))
        for entry in segmentation:
            entry["config_kwargs"] = entry.pop("config")
            entry["preprocessing"] = SegmentationRecipe.from_dict(entry["preprocessing"])
            # Mapillary Vistas with merged classes is tested on Cityscapes
            entry["test_set"] = "Cityscapes" if entry["label_set"] == "cityscapes" else entry["training_data"][-1]
            models.append(SegmentationModel(citation="\n".join(citation), **family | entry))
    return tuple(models)
