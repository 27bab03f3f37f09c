"""What an evaluation has to say for itself; `run` does what all of them have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_models.errors import InputError

from .checkpoint import Loaded
from .data.images import Sample, Selection


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Args:
        metrics: Name -> percentage; each is a row of the results.
        details: What else is worth showing, such as class -> IoU.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


class Evaluation(ABC):
    """What is particular to one evaluation: how an image is prepared and measured, and what the metrics are.

    Each image is measured once and leaves a record: the fewest bytes, of any number, from which `reduce` can compute
    its metrics together with those of all other images. Records are what a killed evaluation finds again on disk and
    what several processes send to the first. A new evaluation is a subclass, and a function that opens the data,
    loads the model and calls `run`.

    Args:
        loaded: The model.
        selection: The images.
        size: For tables: size of the images that the model sees.
        options: For tables: what else the metrics depend on.
        processor: For tables: what prepares the images, by default the model's image processor.
        depends_on: Option -> value, of all that a record depends on besides the model, the data and the dtype.
    """

    def __init__(
        self,
        loaded: Loaded,
        selection: Selection,
        *,
        size: str,
        options: str = "",
        processor: str | None = None,
        depends_on: dict[str, str] | None = None,
    ):
        self.loaded, self.model, self.selection = loaded, loaded.model, selection
        self.size, self.options, self.processor = size, options, processor or loaded.processor_name
        self.depends_on = depends_on or {}

    @abstractmethod
    def prepare(self, sample: Sample) -> Any:
        """Make an image ready for the model, with what it is labelled with; called in threads.

        Raises:
            InputError: The image or its label cannot be used.
        """

    @abstractmethod
    def measure(self, batch: list[Any]) -> list[bytes]:
        """Run the model on images that `prepare` made ready.

        Returns:
            A record for each.

        Raises:
            InputError: The model's outputs cannot be used.
        """

    @abstractmethod
    def reduce(self, records: list[bytes]) -> Outcome:
        """Compute the metrics.

        Args:
            records: Those of all images, in the order of the data set; at least one.

        Raises:
            InputError: They say nothing.
        """

    def check_finite(self, scores: torch.Tensor) -> None:
        """Refuse to measure predictions from NaN."""
        if not scores.isfinite().all():
            raise InputError(f"the model returns NaN or infinity in {self.loaded.dtype}. Pass another --dtype.")
