"""What a checkpoint becomes: its family, its config, and the name of every tensor. Decided before a value is read."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from hf_models.errors import InputError, reason
from hf_models.inference.files import read_json
from hf_models.zoo import ZooModel, get_model, list_models

from .backbones.family import Facts, Family, differences
from .heads.segmentation import SegmentationFamily
from .key_map import KeyMap
from .reading.checkpoint import Checkpoint, some
from .registry import checkpoint_key_map, family_of, find_family, model_tensors

# published checkpoints of which no conversion would compute the same; their weights do not show it
REFUSED = {
    "mask2former_flash_internimage_s_640_160k_ade20k_ss_nsmx": "its deformable attention has no softmax "
    "(use_softmax=False), and that of transformers always has one: the weights would load and compute something else"
}
# what transformers adds to upstream's config.json
TRANSFORMERS_FIELDS = {"architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version"}


@dataclass
class Plan:
    """The result.

    Args:
        family: The family.
        config: Config of the converted model.
        zoo_model: The published checkpoint that it is, if it is one.
        config_from: Where the config comes from, in words.
        key_map: Where every tensor of the model comes from.
        constants: Those that the checkpoint does not hold.
        expected: Our name -> tensor on the meta device, with the shape and the type that the model has.
        buffers: Names of those that are no parameters.
    """

    family: Family | SegmentationFamily
    config: PreTrainedConfig
    zoo_model: ZooModel | None
    config_from: str
    key_map: KeyMap
    constants: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]
    buffers: set[str]


def make_plan(checkpoint: Checkpoint, name: str | None, original_config: str | Path | None) -> Plan:
    """Decide what a checkpoint becomes.

    Args:
        checkpoint: The opened checkpoint.
        name: Published name to take the config from. By default the name of the source, if it is a published one.
        original_config: JSON file with the original constructor's arguments, instead.

    Raises:
        InputError: The config cannot be known, or checkpoint and config do not fit each other.
    """
    label = checkpoint.source.given
    for candidate in (name, Path(label).stem):
        if candidate in REFUSED:
            raise InputError(f"{candidate}: cannot be converted: {REFUSED[candidate]}.")
    family = find_family(checkpoint)
    key_map = checkpoint_key_map(family, checkpoint)
    shown = family.facts(key_map.shapes({name: tensor.shape for name, tensor in checkpoint.tensors.items()}))
    original, where = _original_arguments(checkpoint, family, original_config)
    zoo_model = None if original_config else _published(checkpoint, name)
    if zoo_model and not family.is_published_as(zoo_model):
        raise InputError(f"{label}: looks like {family.title}, not {zoo_model.name}.{_advice(family, shown)}")
    if not zoo_model and original is None:
        raise InputError(
            f"{label}: not the name of a published file. Pass --name, or --original-config with the arguments it was "
            f"trained with.{_advice(family, shown)}"
        )
    config = None if original is None else _config_from_original(family, original, shown, where)
    config_from = Path(where).name
    if zoo_model:
        published = zoo_model.config(shown["num_classes"] if zoo_model.weights_tell_num_labels else None)
        _check_same_architecture(label, config, published)
        config, config_from = published, f"published checkpoint {zoo_model.name}"
    family.adopt(config, shown)
    family = family_of(config)
    if wrong := differences(shown, family.facts_of_config(config)):
        raise InputError(_mismatch(label, family, shown, wrong, zoo_model, where))
    expected, buffers = model_tensors(family, config)
    constants = family.constants(config)
    _check_tensors(label, checkpoint, key_map, expected, constants)
    return Plan(family, config, zoo_model, config_from, key_map, constants, expected, buffers)


def _original_arguments(
    checkpoint: Checkpoint, family: Family | SegmentationFamily, original_config: str | Path | None
) -> tuple[dict | None, str]:
    """The original constructor's arguments, from a file or upstream's config.json, and where they are."""
    label, original = checkpoint.source.given, checkpoint.source.original
    if original_config:
        original = read_json(Path(original_config))
        if original.get("family", family.model_type) != family.model_type:
            stated = original["family"]
            raise InputError(
                f"{label}: looks like {family.model_type}, not {stated}. Correct family in {original_config}."
            )
        return original, str(original_config)
    if original is not None:
        generic = TRANSFORMERS_FIELDS | PreTrainedConfig().to_dict().keys()
        original = {k: v for k, v in original.items() if k not in generic and not k.startswith("_")}
    return original, str(Path(label) / "config.json")


def _config_from_original(
    family: Family | SegmentationFamily, original: dict, shown: Facts, where: str
) -> PreTrainedConfig:
    try:
        return family.config_from_original(original, shown)
    except (StrictDataclassError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: {reason(error)}") from error


def _published(checkpoint: Checkpoint, name: str | None) -> ZooModel | None:
    """The published checkpoint that the user names, or that the source is named after."""
    if name is not None:
        return get_model(name)
    given = checkpoint.source.given
    for candidate in (given, Path(given).name, Path(given).stem):
        try:
            return get_model(candidate)
        except InputError:
            continue
    return None


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
    label, family: Family | SegmentationFamily, shown: Facts, wrong: dict, zoo_model: ZooModel | None, where: str
) -> str:
    fact, (weights, config) = next(iter(wrong.items()))
    others = f" (also different: {', '.join(list(wrong)[1:])})" if len(wrong) > 1 else ""
    if zoo_model is None:
        both = f"{json.dumps(weights)} in the weights, {json.dumps(config)} in {where}"
        return f"{label}: {fact} is {both}{others}. Correct it."
    fitting = _fitting(family, shown)
    looks = f"like {fitting[0]}" if fitting else "different"
    return (
        f"{label}: looks {looks} ({fact} {json.dumps(weights)}), not like {zoo_model.name} ({json.dumps(config)})"
        f"{others}.{_advice(family, shown) or ' Pass --original-config with the arguments it was trained with.'}"
    )


def _fitting(family: Family | SegmentationFamily, shown: Facts) -> list[str]:
    """The published checkpoints that show the same facts."""
    models = [model for name in list_models() if family.is_published_as(model := get_model(name))]
    fitting = []
    for model in models:
        config = model.config(shown["num_classes"] if model.weights_tell_num_labels else None)
        if not differences(shown, family.facts_of_config(config)):
            fitting.append(model.name)
    return fitting


def _advice(family: Family | SegmentationFamily, shown: Facts) -> str:
    names = _fitting(family, shown)
    return f" Did you mean --name {' or '.join(names[:3])}?" if names else ""


def _check_tensors(label: str, checkpoint: Checkpoint, key_map: KeyMap, expected: dict, constants: dict) -> None:
    source_of = key_map.source_of
    unused = [source for name, source in source_of.items() if name not in expected]
    unfilled = [name for name in expected if name not in source_of and name not in constants]
    if unused or unfilled:
        parts = [f"{len(unused)} checkpoint keys were not used: {some(unused)}"] if unused else []
        parts += [f"{len(unfilled)} parameters not filled: {some(unfilled)}"] if unfilled else []
        raise InputError(f"{label}: {'; '.join(parts)}. Nothing was written.")
    for name, source in source_of.items():
        found, tensor, parts = checkpoint.tensors[source], expected[name], key_map.parts.get(name, (0, 1))[1]
        shape = (parts * tensor.shape[0], *tensor.shape[1:]) if parts > 1 else tuple(tensor.shape)
        if found.shape != shape:
            raise InputError(f"{label}: {source} is {tuple(found.shape)}, expected {shape}. Refused.")
        if found.dtype != tensor.dtype and not (found.is_floating_point() and tensor.is_floating_point()):
            raise InputError(f"{label}: {source} is {found.dtype}, expected {tensor.dtype}. Refused.")
