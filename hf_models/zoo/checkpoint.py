"""What every published checkpoint has, whatever its task; each task's own file adds the rest."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint(ABC):
    """One published checkpoint: where it is, what it is, what its authors say of it.

    Args:
        name: Name of the published file without its extension; `aliases` are others for the same weights.
        family: `model_type` of the backbone's config.
        title: Name of the architecture in the paper.
        task: Pipeline tag of the Hub, such as `"image-classification"`.
        file: Name of the published file, `None` where the authors give only a link; `url` leads to it.
        repository: The authors' code; `reported` is from its README.
        license: Identifier that the Hub uses, for code and weights; `copyright` as the licence states it, if it does.
        config_kwargs: Where the backbone's config differs from the defaults of its class, and the stochastic depth in
            training.
        num_labels: Number of classes, `None` if not published.
        label_set: Key of the classes' names, `None` where the zoo does not have them.
        training_data: Data sets that it was trained on, in order; the head is for the last one.
        test_set: Data set on which `reported` was measured; `test_split` is the part of it.
        parameters: Exact number of parameters, `None` if not published.
        reported: The authors' numbers: those of `metrics` in percent, and `gflops` for one image.
        remeasured: What others (`by`, `url`) measured with the same weights: keys of `metrics`, in percent.
        hub_repo: The authors' Hub repository of the same weights, in their own format.
    """

    # where the JSON file of a family lists the checkpoints of this class
    section: ClassVar[str]
    # what the authors report, the most important first: key of `reported` -> title
    metrics: ClassVar[Mapping[str, str]]
    # name of these metrics on the Hub
    hub_metric: ClassVar[str]
    # what of the file is converted, where it is not the whole: as `--part` has it
    part: ClassVar[str | None] = None

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
    training_data: list[str]
    test_set: str
    parameters: int | None
    reported: dict[str, float]
    test_split: str = "validation"
    remeasured: list[dict[str, Any]] = field(default_factory=list)
    hub_repo: str | None = None
    aliases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    @abstractmethod
    def from_json(cls, entry: dict[str, Any], preprocessing: dict[str, Any]) -> "PublishedCheckpoint":
        """An entry of a JSON file.

        Args:
            entry: Its fields, with those that all entries of the file share.
            preprocessing: What the file states for its classifiers.
        """

    @property
    @abstractmethod
    def network(self) -> tuple[str, ...]:
        """What the weights belong to: `family`, and the head where it is not a linear classifier."""

    @property
    def weights_tell_num_labels(self) -> bool:
        """Whether the number of classes is to be read from the weights."""
        return self.num_labels is None

    @abstractmethod
    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of this checkpoint, with the names of its classes.

        Args:
            num_labels: Number of classes instead of the published one.
        """

    @abstractmethod
    def image_processor(self) -> "BaseImageProcessor":
        """An image processor that prepares images as the authors do, or nearly."""

    def how_to_convert(self) -> str:
        """What a user does to get a model from this checkpoint, in one sentence."""
        if self.hub_repo:
            return f"Run `hf-models convert {self.hub_repo} FOLDER`, or download {self.url} and convert that."
        return f"Download {self.url}, then run `hf-models convert FILE FOLDER --name {self.name}`."

    def known_as(self) -> set[str]:
        """Every name that `find_checkpoint` takes for this checkpoint."""
        hub_name = self.hub_repo and self.hub_repo.split("/")[1]
        return {self.name, *self.aliases} | ({self.file, self.hub_repo, hub_name} - {None})


def labels_kwargs(names: Sequence[str]) -> dict[str, dict]:
    """The two fields of a config that name the classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
