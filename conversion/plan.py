"""What a checkpoint becomes: its family, its config, and the name of every tensor. Decided before a value is read."""

import json
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from hf_models.auto import FAMILIES as REGISTERED
from hf_models.errors import InputError
from hf_models.zoo import ZooModel, get_model, list_models

from .checkpoint import Checkpoint
from .family import Facts, Family, differences
from .source import read_json

# a registered family's part lies in the file named after its model_type
FAMILIES: dict[str, Family] = {
    config.model_type: import_module(f".{config.model_type}", __package__).FAMILY for config, *_ in REGISTERED
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
        source_of: Our name -> the checkpoint's name, for every tensor of the model.
        expected: Our name -> tensor on the meta device, with the shape and the type that the model has.
    """

    family: Family
    config: PreTrainedConfig
    zoo_model: ZooModel | None
    config_from: str
    source_of: dict[str, str]
    expected: dict[str, torch.Tensor]


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
    family = find_family(checkpoint)
    renamed = family_names(family, checkpoint)
    shown = family.facts_of_weights({new: tuple(checkpoint.tensors[old].shape) for old, new in renamed.items()})
    original, origin = _original_arguments(checkpoint, original_config)
    zoo_model = None if original_config else _published(checkpoint, name)
    if zoo_model and zoo_model.family != family.model_type:
        raise InputError(f"{label}: looks like {family.model_type}, not {zoo_model.name}.{_advice(family, shown)}")
    if not zoo_model and original is None:
        raise InputError(
            f"{label}: not the name of a published file. Pass --name, or --original-config with the arguments it was "
            f"trained with.{_advice(family, shown)}"
        )
    try:
        config = family.config_from_original(original, shown) if original is not None else None
        if zoo_model:
            upstream, config = config, zoo_model.config(None if zoo_model.num_labels else shown["num_classes"])
            _same_architecture(label, upstream, config)
            origin = f"published checkpoint {zoo_model.name}"
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError) and error.args[0].startswith(label):
            raise
        raise InputError(f"{origin}: {' '.join(str(error).split())}") from error
    family.adopt(config, shown)
    if wrong := differences(shown, family.facts_of_config(config)):
        raise InputError(_mismatch(label, family, shown, wrong, zoo_model, origin))
    expected = model_tensors(family, config)
    source_of = {family.full_name(new): old for old, new in renamed.items()}
    _check_tensors(label, checkpoint, source_of, expected)
    return Plan(family, config, zoo_model, origin, source_of, expected)


def find_family(checkpoint: Checkpoint) -> Family:
    """The family by whose signature a checkpoint can be told."""
    for family in FAMILIES.values():
        if any(name == family.signature or name.endswith(f".{family.signature}") for name in checkpoint.tensors):
            return family
    known = ", ".join(FAMILIES)
    raise InputError(
        f"{checkpoint.source.given}: not a checkpoint of {known}. Its first keys are "
        f"{', '.join(list(checkpoint.tensors)[:4])}."
    )


def family_names(family: Family, checkpoint: Checkpoint) -> dict[str, str]:
    """The checkpoint's names -> ours, without the base model's prefix."""
    try:
        return family.rename(checkpoint.tensors)
    except InputError as error:
        raise InputError(f"{checkpoint.source.given}: {error}") from error


def model_tensors(family: Family, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Names, shapes and types of a model's parameters and buffers, as tensors on the meta device."""
    with torch.device("meta"):
        return family.model_class(config).state_dict()


def _original_arguments(checkpoint: Checkpoint, original_config: str | Path | None) -> tuple[dict | None, str]:
    """The original constructor's arguments, from the user's file or upstream's config.json, and where they are from."""
    if original_config:
        return read_json(Path(original_config)), str(original_config)
    original, label = checkpoint.source.original, checkpoint.source.given
    if original is None:
        return None, label
    generic = TRANSFORMERS_FIELDS | PreTrainedConfig().to_dict().keys()
    original = {k: v for k, v in original.items() if k not in generic and not k.startswith("_")}
    return original, f"{label}: config.json"


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


def _same_architecture(label: str, upstream: PreTrainedConfig | None, config: PreTrainedConfig) -> None:
    """Hold what upstream's config.json says against the published config: weights cannot show `offset_scale`."""
    if upstream is None:
        return
    shared = {"drop_path_rate", "image_size", *(field.name for field in fields(PreTrainedConfig))}
    for field in fields(config):
        if field.name in shared or field.name.startswith("_"):
            continue
        theirs, ours = (_plain(getattr(c, field.name)) for c in (upstream, config))
        if theirs != ours:
            raise InputError(
                f"{label}: its config.json says {field.name} {theirs}, the published checkpoint has {ours}. "
                "Pass --original-config to say which holds."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _mismatch(label, family: Family, shown: Facts, wrong: dict, zoo_model: ZooModel | None, origin: str) -> str:
    fact, (weights, config) = next(iter(wrong.items()))
    others = f" (also different: {', '.join(list(wrong)[1:])})" if len(wrong) > 1 else ""
    if zoo_model is None:
        return f"{label}: {fact} is {json.dumps(weights)} in the weights, {json.dumps(config)} in {origin}{others}."
    fitting = _fitting(family, shown)
    looks = f"like {fitting[0]}" if fitting else "different"
    return (
        f"{label}: looks {looks} ({fact} {json.dumps(weights)}), not like {zoo_model.name} ({json.dumps(config)})"
        f"{others}.{_advice(family, shown) or ' Pass --original-config with the arguments it was trained with.'}"
    )


def _fitting(family: Family, shown: Facts) -> list[str]:
    """The published checkpoints that show the same facts."""
    names = list_models(family=family.model_type)
    return [
        name for name in names if not differences(shown, family.facts_of_config(get_model(name).config(shown["num_classes"])))
    ]


def _advice(family: Family, shown: Facts) -> str:
    names = _fitting(family, shown)
    return f" Did you mean --name {' or '.join(names[:3])}?" if names else ""


def _check_tensors(label: str, checkpoint: Checkpoint, source_of: dict[str, str], expected: dict) -> None:
    unused = [old for new, old in source_of.items() if new not in expected]
    unfilled = [new for new in expected if new not in source_of]
    if unused or unfilled:
        parts = [f"{len(unused)} checkpoint keys were not used: {_first(unused)}"] if unused else []
        parts += [f"{len(unfilled)} parameters not filled: {_first(unfilled)}"] if unfilled else []
        raise InputError(f"{label}: {'; '.join(parts)}. Nothing was written.")
    for new, tensor in expected.items():
        found = checkpoint.tensors[source_of[new]]
        if found.shape != tensor.shape:
            raise InputError(f"{label}: {source_of[new]} is {tuple(found.shape)}, expected {tuple(tensor.shape)}.")
        if found.dtype != tensor.dtype and not (found.is_floating_point() and tensor.is_floating_point()):
            raise InputError(f"{label}: {source_of[new]} is {found.dtype}, expected {tensor.dtype}. Refused.")


def _first(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
