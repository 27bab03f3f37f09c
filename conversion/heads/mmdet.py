"""What the heads of mmdet 2 share: the `model` dict of its configs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import BaseImageProcessor, PreTrainedConfig

from hf_models.errors import InputError
from hf_models.image_processing_detection import DetectionImageProcessor

from ..mapping.arguments import arguments, flat
from ..mapping.key_map import Rule
from .head import Head

# what changes nothing in a test, some of which `ModelDict.told` asks for; of `loss_cls`, two entries say how scores
# come about
TRAINING = re.compile(
    r"(^|\.)(train_cfg|init_cfg|pretrained|dn_cfg|stage_loss_weights|reg_decoded_bbox|sync_cls_avg_factor"
    r"|loss_(?!cls)\w+|loss_cls\.(?!type$|use_sigmoid$)\w+"
    r"|with_cp|use_checkpoint|requires_grad|inplace|dropout|ffn_drop|ffn_dropout|return_intermediate)(\.|$)"
)
NOTHING_LEFT_OUT = re.compile(r"(?!)")
MMDET_3 = ("data_preprocessor", "_scope_")  # entries of its `model` dict that mmdet 2 has not
# what several detectors have in common
FPN_RULES = (
    Rule(r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral_convs.\1."),
    Rule(r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output_convs.\1."),
)
FPN = {
    "end_level": (-1,),
    "no_norm_on_lateral": (False,),
    "conv_cfg": (None,),
    "act_cfg": (None,),
    "norm_cfg": (None,),
    "upsample_cfg.mode": ("nearest",),
}
NMS = {"nms.type": ("nms",), "nms.class_agnostic": (False,), "min_bbox_size": (0,)}
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class DetectionHead(Head):
    """A detector of mmdet; what is not said here is as in [`Head`].

    Args:
        detectors: Names of its class in the originals.
        build_config: Builds the config from mmdet's `model` dict, without the backbone, and from that of the backbone.
    """

    takes_preprocessing = True

    detectors: tuple[str, ...]
    build_config: Callable[["ModelDict", PreTrainedConfig], PreTrainedConfig]

    def check_original(self, original: dict) -> None:
        if found := [name for name in MMDET_3 if name in original]:
            raise InputError(
                f"{found[0]} belongs to a config of mmdet 3, which is not read. Give the model dict of mmdet 2."
            )
        if missing := [name for name in ("type", "backbone", "neck", "test_cfg") if not original.get(name)]:
            raise InputError(f"{', '.join(missing)} is missing. Give the model dict of the mmdet config.")
        if not isinstance(original["backbone"], dict):
            raise InputError(f"backbone={original['backbone']!r} is not the dict of the mmdet config.")
        if original["type"] not in self.detectors:
            raise InputError(f"type={original['type']!r} is not supported, only {', '.join(self.detectors)} are.")

    def config_from_original(
        self, original: dict, backbone_config: PreTrainedConfig, image_statistics: dict[str, list[float]]
    ) -> PreTrainedConfig:
        model = ModelDict(original)
        config = self.build_config(model, backbone_config)
        model.check_used_up()
        return config

    def image_processor(self, config: PreTrainedConfig, stated: dict | None) -> BaseImageProcessor:
        return DetectionImageProcessor(**(stated or {}))

    def assumed_preprocessing(self, config: PreTrainedConfig) -> str:
        size = DetectionImageProcessor().size
        return f"short side {size['shortest_edge']} pixels, long side at most {size['longest_edge']}"


class ModelDict:
    """The `model` dict of an mmdet config, out of which sections are taken until nothing is left."""

    def __init__(self, original: dict):
        self.left = flat(original, TRAINING)
        self.all = flat(original, NOTHING_LEFT_OUT)

    def told(self, name: str, kind: type, zero: bool = False) -> Any:
        """What the config says of training, `None` if nothing that could be used: a model detects without it.

        Args:
            name: Dotted.
            kind: Of the value; a number is positive, and a list is one of such numbers.
            zero: Whether 0 is a number that can be used, too.
        """
        value = self.all.get(name)
        if kind is float and type(value) is int:
            value = float(value)
        numbers = {int: [value], float: [value], list: value}.get(kind, [])
        if type(value) is not kind or not all(
            type(number) in (int, float) and (number > 0 or (zero and number == 0)) for number in numbers
        ):
            return None
        return value

    def sections(self, path: str) -> list[str]:
        """The sections of a list, or the one section in its place, or none."""
        names = [name.removeprefix(path) for name in self.left if name.startswith(path)]
        numbers = sorted({int(match[1]) for name in names if (match := re.match(r"(\d+)\.", name))})
        return [f"{path}{number}." for number in numbers] or ([path] if names else [])

    def take(
        self,
        path: str,
        *,
        required: Mapping[str, type] = NOTHING,
        defaults: Mapping[str, Any] = NOTHING,
        only: Mapping[str, tuple] = NOTHING,
        ignored: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Take a section out, as [`arguments`] does, by the names inside of it.

        Raises:
            InputError: As there.
        """
        inside = {name: self.left.pop(name) for name in list(self.left) if name.startswith(path)}
        given = arguments(
            inside,
            required={path + name: kind for name, kind in required.items()},
            defaults={path + name: value for name, value in defaults.items()},
            only={path + name: values for name, values in only.items()},
            ignored=tuple(path + name for name in ignored),
        )
        return {name.removeprefix(path): value for name, value in given.items()}

    def take_equal(self, path: str, **tables: Any) -> dict[str, Any]:
        """Take the sections of a list out, or the one section in its place, all of which must say the same.

        Raises:
            InputError: They do not, or as in [`arguments`].
        """
        paths = self.sections(path) or [path]
        first, *others = [self.take(at, **tables) for at in paths]
        for other, at in zip(others, paths[1:], strict=True):
            if differing := next((name for name, value in first.items() if other[name] != value), None):
                raise InputError(
                    f"{at}{differing}={other[differing]!r} is not supported beside the others, "
                    f"only {first[differing]!r} is."
                )
        return first

    def leave(self, path: str) -> None:
        """Take a section out that has no meaning here, whatever it says."""
        self.left = {name: value for name, value in self.left.items() if not name.startswith(path)}

    def check_used_up(self) -> None:
        """Refuse what no section was.

        Raises:
            InputError: Something is left.
        """
        if self.left:
            first, *others = self.left
            more = f" and {len(others)} more" if others else ""
            raise InputError(f"unknown argument {first}{more}: no such part of a detector can be converted.")
