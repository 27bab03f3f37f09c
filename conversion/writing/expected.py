"""The tensors that a model has, before any of them has a value."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from hf_models.errors import InputError, reason


def model_tensors(
    model_class: type[PreTrainedModel], config: PreTrainedConfig
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """A model's parameters and buffers as tensors on the meta device, and the names of the buffers.

    Raises:
        InputError: No model can be built from the config.
    """
    model = _on_meta(model_class, config)
    return dict(model.state_dict()), {name for name, _ in model.named_buffers()}


def saved_tensors(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """What `save_pretrained` writes of a model, on the meta device.

    Of tied tensors it writes one, and models of transformers have other names in files than in memory.

    Raises:
        InputError: No model can be built from the config.
    """
    model = _on_meta(model_class, config)
    return revert_weight_conversion(model, remove_tied_weights_from_state_dict(dict(model.state_dict()), model))


def _on_meta(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:  # the models check their configs only as far as users get them wrong
        raise InputError(f"{config.model_type}: no model can be built from its config ({reason(error)}).") from error


def cast_floating(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Tensors on the meta device in another floating-point type; integer ones keep theirs."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
