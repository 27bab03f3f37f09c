"""Published networks of which only the backbone can be had here: those for driving."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .checkpoint import PublishedCheckpoint

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class PublishedBackbone(PublishedCheckpoint):
    """One published network with a backbone of ours; what is not said here is as in [`PublishedCheckpoint`].

    Args:
        first_stage: The first stage of the backbone whose feature map the rest of the network sees.
        parameters: Exact number, of the backbone.
        reported: Nothing: what the authors report is about the whole, and is among `notes`.
    """

    section: ClassVar = "backbones"
    metrics: ClassVar = {}
    hub_metric: ClassVar = ""
    part: ClassVar = "img_backbone"

    first_stage: int = 1

    @classmethod
    def from_json(cls, entry: dict[str, Any], preprocessing: dict[str, Any]) -> "PublishedBackbone":
        return cls(**{"test_set": entry["training_data"][-1]} | entry)

    @property
    def network(self) -> tuple[str, ...]:
        return (self.family, self.part)

    def config(self, num_labels: int | None = None) -> "PreTrainedConfig":
        """The config of the backbone; it has no classes."""
        from transformers import AutoBackbone, AutoConfig

        config = AutoConfig.for_model(self.family, **self.config_kwargs)
        config.out_features = config.stage_names[self.first_stage :]
        config.architectures = [AutoBackbone._model_mapping[type(config)].__name__]
        return config

    def image_processor(self) -> "BaseImageProcessor":
        """An image processor that normalises images as the authors do, and leaves their size."""
        from ..image_processing_imagenet import ImageNetImageProcessor

        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        return ImageNetImageProcessor(do_resize=False, do_center_crop=False, image_mean=mean, image_std=std)

    def how_to_convert(self) -> str:
        """What a user does to get the backbone, in one sentence."""
        return f"{super().how_to_convert().removesuffix('`.')} --part {self.part}`."
