"""What a checkpoint becomes: its network, its config, and the name of every tensor. Decided before a value is read."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from hf_models.errors import InputError, reason
from hf_models.zoo import PublishedCheckpoint

from .mapping.convertible import Convertible
from .mapping.facts import Facts, differences
from .mapping.key_map import KeyMap
from .matching import advice, check_not_refused, find_published, fitting, published_config
from .reading.checkpoint import Checkpoint
from .reading.containers import some
from .reading.original_config import read_original_config
from .registry import backbone_alone, recognise
from .writing.expected import model_tensors

# what transformers adds to upstream's config.json
TRANSFORMERS_FIELDS = {"architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version"}


@dataclass
class Plan:
    """The result.

    Args:
        convertible: What it is: family and head.
        checkpoint: The checkpoint, with its tensors by the names of the original network.
        config: Config of the converted model.
        part: What of the checkpoint it is, if not all.
        published: The published checkpoint that it is, if it is one.
        config_from: Where the config comes from, in words.
        preprocessing: What the original says of the preparation of images, if anything.
        key_map: Where every tensor of the model comes from.
        constants: Those that the checkpoint does not hold.
        expected: Our name -> tensor on the meta device, with the shape and the type that the model has.
        buffers: Names of those that are no parameters.
    """

    convertible: Convertible
    checkpoint: Checkpoint
    config: PreTrainedConfig
    part: str | None
    published: PublishedCheckpoint | None
    config_from: str
    preprocessing: dict | None
    key_map: KeyMap
    constants: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]
    buffers: set[str]

    @property
    def as_published(self) -> bool:
        """Whether it is what the zoo describes: the whole, or the part that an entry is of."""
        return self.published is not None and self.published.part == self.part

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return self.convertible.model_class_of(self.config)


def make_plan(
    checkpoint: Checkpoint, name: str | None, original_config: str | Path | None, part: str | None = None
) -> Plan:
    """Decide what a checkpoint becomes.

    Args:
        checkpoint: The opened checkpoint.
        name: Published name to take the config from. By default the name of the source, if it is a published one.
        original_config: JSON file with the original constructor's arguments, instead.
        part: `"backbone"` for that of a checkpoint with a head on it; the whole is looked at all the same.
            `"img_backbone"` for that of a driving network, of which nothing else is looked at.

    Raises:
        InputError: The config cannot be known, or checkpoint and config do not fit each other.
    """
    label = checkpoint.source.given
    check_not_refused(label, name)
    convertible, checkpoint = recognise(checkpoint, part)
    key_map = key_map_of(convertible, checkpoint)
    shown = convertible.facts(key_map.shapes({name: tensor.shape for name, tensor in checkpoint.tensors.items()}))
    original, where, preprocessing = _original_arguments(checkpoint, convertible, original_config)
    published = None if original_config else find_published(label, name)
    if published and published.network != convertible.network:
        raise InputError(f"{label}: looks like {convertible.title}, not {published.name}.{advice(convertible, shown)}")
    if not published and original is None:
        raise InputError(
            f"{label}: not the name of a published file. Pass --name, or --original-config with the arguments it was "
            f"trained with.{advice(convertible, shown)}"
        )
    config = None if original is None else _config_from_original(convertible, original, shown, where)
    config_from = Path(where).name
    if published:
        upstream, config = config, published_config(published, shown)
        _check_same_architecture(label, upstream, config)
        config_from = f"published checkpoint {published.name}"
    convertible.adopt(config, shown)
    if wrong := differences(shown, convertible.facts_of_config(config)):
        raise InputError(_mismatch(label, convertible, shown, wrong, published, where))
    if not published and len(names := checkpoint.class_names) == config.num_labels:
        config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    expected, buffers = model_tensors(convertible.model_class_of(config), config)
    constants = convertible.constants(config)
    _check_tensors(label, checkpoint, key_map, expected, constants)
    if part == "backbone":
        convertible, checkpoint = backbone_alone(convertible, checkpoint)
        config, key_map, constants = config.backbone_config, key_map_of(convertible, checkpoint), {}
        expected, buffers = model_tensors(convertible.model_class_of(config), config)
    return Plan(
        convertible,
        checkpoint,
        config,
        part,
        published,
        config_from,
        preprocessing,
        key_map,
        constants,
        expected,
        buffers,
    )


def key_map_of(convertible: Convertible, checkpoint: Checkpoint) -> KeyMap:
    """Where every tensor of the model lies in a checkpoint.

    Raises:
        InputError: The checkpoint's names are another network's.
    """
    try:
        return convertible.key_map(checkpoint.tensors)
    except InputError as error:
        raise InputError(f"{checkpoint.source.given}: {error}") from error


def _original_arguments(
    checkpoint: Checkpoint, convertible: Convertible, original_config: str | Path | None
) -> tuple[dict | None, str, dict | None]:
    """The original constructor's arguments, from a file or upstream's config.json; where they are; and what is known
    of the preparation of images."""
    label, original = checkpoint.source.given, checkpoint.source.original
    if original_config:
        original, preprocessing = read_original_config(Path(original_config))
        family = convertible.network[0]
        if (stated := original.get("family", family)) != family:
            raise InputError(f"{label}: looks like {family}, not {stated}. Correct family in {original_config}.")
        return original, str(original_config), preprocessing if convertible.takes_preprocessing else None
    if original is not None:
        generic = TRANSFORMERS_FIELDS | PreTrainedConfig().to_dict().keys()
        original = {k: v for k, v in original.items() if k not in generic and not k.startswith("_")}
    return original, str(Path(label) / "config.json"), checkpoint.source.preprocessor


def _config_from_original(convertible: Convertible, original: dict, shown: Facts, where: str) -> PreTrainedConfig:
    try:
        return convertible.config_from_original(original, shown)
    except (StrictDataclassError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: {reason(error)}") from error


def _check_same_architecture(label: str, upstream: PreTrainedConfig | None, published: PreTrainedConfig) -> None:
    """Hold what upstream's config.json says against the published config: weights cannot show `offset_scale`."""
    if upstream is None:
        return
    shared = {"drop_path_rate", "image_size", *(field.name for field in fields(PreTrainedConfig))}
    for field in fields(published):
        if field.name in shared or field.name.startswith("_"):
            continue
        theirs, ours = (_plain(getattr(config, field.name)) for config in (upstream, published))
        if theirs != ours:
            raise InputError(
                f"{label}: its config.json says {field.name} {theirs}, the published checkpoint has {ours}. "
                "Pass --original-config to say which holds."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _mismatch(
    label: str,
    convertible: Convertible,
    shown: Facts,
    wrong: dict,
    published: PublishedCheckpoint | None,
    where: str,
) -> str:
    fact, (weights, config) = next(iter(wrong.items()))
    others = f" (also different: {', '.join(list(wrong)[1:])})" if len(wrong) > 1 else ""
    if published is None:
        both = f"{json.dumps(weights)} in the weights, {json.dumps(config)} in {where}"
        return f"{label}: {fact} is {both}{others}. Correct it."
    alike = fitting(convertible, shown)
    looks = f"like {alike[0]}" if alike else "different"
    return (
        f"{label}: looks {looks} ({fact} {json.dumps(weights)}), not like {published.name} ({json.dumps(config)})"
        f"{others}.{advice(convertible, shown) or ' Pass --original-config with the arguments it was trained with.'}"
    )


def _check_tensors(label: str, checkpoint: Checkpoint, key_map: KeyMap, expected: dict, constants: dict) -> None:
    unused = [source for name, origin in key_map.origins.items() if name not in expected for source in origin.names]
    unfilled = [name for name in expected if name not in key_map.origins and name not in constants]
    if unused or unfilled:
        parts = [f"{len(unused)} checkpoint keys were not used: {some(unused)}"] if unused else []
        parts += [f"{len(unfilled)} parameters not filled: {some(unfilled)}"] if unfilled else []
        raise InputError(f"{label}: {'; '.join(parts)}. Nothing was written.")
    for name, origin in key_map.origins.items():
        tensor = expected[name]
        shape = origin.shape_there(tuple(tensor.shape))
        for source in origin.names:
            found = checkpoint.tensors[source]
            if found.shape != shape:
                raise InputError(f"{label}: {source} is {tuple(found.shape)}, expected {shape}. Refused.")
            if found.dtype != tensor.dtype and not (found.is_floating_point() and tensor.is_floating_point()):
                raise InputError(f"{label}: {source} is {found.dtype}, expected {tensor.dtype}. Refused.")
