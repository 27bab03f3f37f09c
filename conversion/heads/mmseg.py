"""What the heads of mmseg share: the `model` dict of its configs, and the recipe of the test that it holds."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import BaseImageProcessor, PreTrainedConfig

from hf_models.errors import InputError
from hf_models.zoo.segmentation import stock_image_processor
from hf_models.zoo.segmentation_recipe import SegmentationRecipe

from ..mapping.arguments import flat
from .head import Head

# what only training looks at
TRAINING = re.compile(
    r"(^|\.)(loss_\w+|train_cfg|test_cfg|init_cfg|pretrained|sampler|dropout_ratio|requires_grad)(\.|$)"
)
SEGMENTERS = ("EncoderDecoder", "EncoderDecoderMask2Former", "EncoderDecoderMask2FormerAug")


@dataclass(frozen=True, kw_only=True)
class SegmentationHead(Head):
    """A head of mmseg; what is not said here is as in [`Head`].

    Args:
        build_config: Builds the config from mmseg's `model` dict, flat (`"decode_head.channels"`) and without the
            backbone, and from the arguments that every config takes: `backbone_config` and `segmentation_recipe`.
    """

    build_config: Callable[[dict, dict], PreTrainedConfig]

    def check_original(self, original: dict) -> None:
        if not isinstance(original.get("backbone"), dict) or not isinstance(original.get("decode_head"), dict):
            raise InputError("backbone or decode_head is missing. Give the model dict of the mmseg config.")
        if original.get("type", SEGMENTERS[0]) not in SEGMENTERS:
            raise InputError(f"type={original['type']!r} is not supported, only {', '.join(SEGMENTERS)} are.")

    def config_from_original(
        self, original: dict, backbone_config: PreTrainedConfig, image_statistics: dict[str, list[float]]
    ) -> PreTrainedConfig:
        # a recipe calls `image_mean` and `image_std` just mean and std
        statistics = {name.removeprefix("image_"): tuple(values) for name, values in image_statistics.items()}
        recipe = replace(_recipe(original.get("test_cfg")), **statistics)
        shared = {"backbone_config": backbone_config, "segmentation_recipe": recipe.to_dict()}
        return self.build_config(flat(original, TRAINING), shared)

    def image_processor(self, config: PreTrainedConfig, stated: dict | None) -> BaseImageProcessor:
        return stock_image_processor(SegmentationRecipe.from_dict(config.segmentation_recipe), config.model_type)

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        recipe = config.segmentation_recipe
        return f"short side {recipe['short_edge']} pixels, both sides to multiples of {recipe['size_divisor']}"


def _recipe(test_cfg: dict | None) -> SegmentationRecipe:
    if not isinstance(test_cfg, dict | None):
        raise InputError(f"test_cfg={test_cfg!r} is not supported: it is the dict of the mmseg config.")
    test_cfg = test_cfg or {}
    mode = test_cfg.get("mode", "whole")
    if mode == "whole":
        return SegmentationRecipe()
    if mode != "slide" or not all(isinstance(test_cfg.get(name), list) for name in ("crop_size", "stride")):
        raise InputError(f"test_cfg={test_cfg!r} is not supported: mode is whole, or slide with crop_size and stride.")
    return SegmentationRecipe(crop_size=tuple(test_cfg["crop_size"]), stride=tuple(test_cfg["stride"]))
