"""Models in 8 bits for transformers: what `from_pretrained` does with the `quantization_config` of a saved one."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from .int8_linear import Int8Linear

METHOD = "hf_models_int8"


class Int8Config(QuantizationConfigMixin):
    """Which linear layers of a model are [`Int8Linear`].

    Args:
        modules_to_not_convert: Names of linear layers inside their modules, such as "classifier", that are not.
        calibrated: Whether the spans of their inputs are known.
        quant_method: The name of the method, which is always the same.
    """

    def __init__(
        self, modules_to_not_convert: Iterable[str] = (), calibrated: bool = False, quant_method: str = METHOD
    ):
        self.quant_method = quant_method
        self.modules_to_not_convert = list(modules_to_not_convert)
        self.calibrated = calibrated


class Int8Quantizer(HfQuantizer):
    """Puts empty layers in place before the weights are loaded. `hf-models quantize` makes the weights."""

    requires_calibration = True  # so that transformers refuses to quantise while it loads
    quantization_config: Int8Config

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs) -> None:
        config = self.quantization_config

        def empty(name: str, layer: nn.Linear) -> Int8Linear:
            has_bias = layer.bias is not None
            return Int8Linear(layer.in_features, layer.out_features, has_bias, config.calibrated, layer.weight.device)

        replace_layers(model, nn.Linear, config.modules_to_not_convert, empty)

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | str) -> PreTrainedModel:
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype  # transformers may pass its name
        replace_layers(model, Int8Linear, (), lambda name, layer: layer.dequantized(dtype))
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def layers_of(model: nn.Module, kind: type[nn.Module], skipped: Iterable[str]) -> dict[str, nn.Module]:
    """Full name -> layer, for all of exactly this kind, but those whose last name is skipped."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is kind and name.rpartition(".")[2] not in skipped
    }


def replace_layers(
    model: nn.Module,
    kind: type[nn.Module],
    skipped: Iterable[str],
    replacement: Callable[[str, nn.Module], nn.Module],
) -> None:
    """Put another layer in the place of each; see [`layers_of`]. `replacement` takes full name and layer."""
    for name, layer in layers_of(model, kind, skipped).items():
        model.set_submodule(name, replacement(name, layer).train(layer.training))


def register_quantizer() -> None:
    """Make transformers know the method; every family's file does it when it is imported."""
    AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(METHOD, Int8Config)
    AUTO_QUANTIZER_MAPPING.setdefault(METHOD, Int8Quantizer)
