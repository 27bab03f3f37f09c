"""Linear layers in 8 bits: so are their weights stored, and on a CPU the products are computed so too.

The compiled kernel `int8-linear` computes them, and where it is not built oneDNN, which takes more passes.
"""

import functools
import math
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as all_modules
from transformers.activations import GELUActivation

from .execution import are_plain, only_computes
from .fused_layers import activate
from .hub_kernels import get_function
from .layers import linear

KERNEL = "int8-linear"


class Int8Linear(nn.Module):
    """A linear layer whose weights are signed 8-bit numbers, with a scale for each output.

    Where only numbers are wanted, on a CPU with VNNI instructions and in float32 or bfloat16, the input is rounded to
    256 levels, and products and sums are exact integers. The levels span what calibration saw, or else what the input
    of the call spans. Anywhere else the weights are widened first, which is slower and rounds no input.

    Scales are numbers that bfloat16 holds exactly, so a model can be cast from float32 to bfloat16 and back.

    Args:
        in_features, out_features, bias: As in nn.Linear.
        calibrated: Whether the span of the input is known.
        device: Where to make the tensors, which are empty.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        calibrated: bool = False,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features, self.calibrated = in_features, out_features, calibrated
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.empty(out_features, device=device))
        bias = nn.Parameter(torch.empty(out_features, device=device), requires_grad=False) if bias else None
        self.register_parameter("bias", bias)
        if calibrated:
            self.register_buffer("input_scale", torch.empty((), device=device))
            self.register_buffer("input_zero_point", torch.empty((), dtype=torch.uint8, device=device))
        self._packed = None

    @classmethod
    @torch.no_grad()
    def from_linear(cls, layer: nn.Linear, span: tuple[float, float] | None = None) -> "Int8Linear":
        """Round the weights of a layer.

        Args:
            layer: Its weights are finite.
            span: The smallest and the largest number of its input, if calibration saw some.
        """
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, span is not None, "cpu")
        weight = layer.weight.float()
        made.weight_scale = _round_up(weight.abs().amax(dim=1).clamp_min(1e-6) / 127)
        made.weight = (weight / made.weight_scale[:, None]).round().to(torch.int8)
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        if span is not None:
            scale, zero_point = _levels(*span)
            made.input_scale = torch.tensor(scale)
            made.input_zero_point = torch.tensor(zero_point, dtype=torch.uint8)
        return made

    def dequantized(self, dtype: torch.dtype) -> nn.Linear:
        """An nn.Linear with the widened weights."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self._wide_weight(dtype))
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().to(dtype, copy=True))
        return layer

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        if is_fast(self, hidden_states):
            levels = self.input_levels(hidden_states)
            if math.isfinite(levels[0]):
                if kernel := get_function(KERNEL, "linear", "cpu", hidden_states):
                    return kernel(hidden_states, *levels, *self.packed())
                return self.product(to_levels(hidden_states, *levels), *levels, hidden_states.dtype)
        bias = None if self.bias is None else self.bias.to(hidden_states.dtype)
        return F.linear(hidden_states, self._wide_weight(hidden_states.dtype), bias)

    def input_levels(self, hidden_states: torch.Tensor) -> tuple[float, int]:
        """The step between two levels of the input, and the level of 0."""
        if self.calibrated:
            return self.input_scale.item(), self.input_zero_point.item()
        return _levels(*(bound.item() for bound in torch.aminmax(hidden_states)))

    def product(
        self,
        hidden_states: torch.Tensor,
        scale: float,
        zero_point: int,
        dtype: torch.dtype,
        out_scale: float = 1.0,
        out_zero_point: int = 0,
        activation: str = "none",
    ) -> torch.Tensor:
        """The product with an input that is rounded already, by oneDNN.

        Args:
            hidden_states: (..., in_features) in unsigned 8-bit numbers.
            scale, zero_point: The levels of the input.
            dtype: Of the result; with torch.uint8 it is rounded to levels too.
            out_scale, out_zero_point: The levels of the result.
            activation: Applied before the result is rounded: none, or gelu.
        """
        weight, weight_scale, bias = self.packed()
        zeros = torch.zeros(self.out_features, dtype=torch.int64)
        # fmt: off
        return torch.ops.onednn.qlinear_pointwise(
            hidden_states, scale, zero_point, weight, weight_scale, zeros, bias,
            out_scale, out_zero_point, dtype, activation, [], "none",
        )
        # fmt: on

    def packed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The weights in the order in which the kernel reads them, or oneDNN; their scales and the bias in float32."""
        pack = get_function(KERNEL, "pack", "cpu", self.weight) or _pack_for_onednn
        tensors = (self.weight, self.weight_scale, self.bias)
        state = [(pack, 0), *((tensor, _version(tensor)) for tensor in tensors)]
        if self._packed is None or any(
            old is not new or before != now for (old, before), (new, now) in zip(self._packed[0], state, strict=True)
        ):
            wide = (None if tensor is None else tensor.detach().float() for tensor in tensors[1:])
            self._packed = state, (pack(self.weight), *wide)
        return self._packed[1]

    def _wide_weight(self, dtype: torch.dtype) -> torch.Tensor:
        return (self.weight.float() * self.weight_scale[:, None].float()).to(dtype)

    def __getstate__(self) -> dict:
        """What is copied and pickled: not what is packed."""
        return self.__dict__ | {"_packed": None}

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, calibrated={self.calibrated}"


def feed_forward(
    expansion: nn.Module, activation: nn.Module, projection: nn.Module, hidden_states: torch.Tensor
) -> torch.Tensor:
    """`projection(activation(expansion(hidden_states)))`, where all is in 8 bits without leaving them in between.

    Args:
        expansion, projection: An nn.Linear each, or what a tool put in its place.
        activation: Between them.
        hidden_states: (..., in_features of `expansion`).

    Returns:
        (..., out_features of `projection`).
    """
    layers = (expansion, projection)
    if (
        all(type(layer) is Int8Linear and layer.calibrated for layer in layers)
        and type(activation) is GELUActivation
        and activation.act is F.gelu
        and not any(map(_is_watched, (*layers, activation)))
        and is_fast(expansion, hidden_states)
    ):
        levels, inner = expansion.input_levels(hidden_states), projection.input_levels(hidden_states)
        if kernel := get_function(KERNEL, "feed_forward", "cpu", hidden_states):
            return kernel(hidden_states, *levels, *expansion.packed(), *inner, *projection.packed())
        rounded = to_levels(hidden_states, *levels)
        hidden = expansion.product(rounded, *levels, torch.uint8, *inner, "gelu")
        return projection.product(hidden, *inner, hidden_states.dtype)
    return linear(projection, activate(activation, linear(expansion, hidden_states)))


def is_fast(layer: Int8Linear, hidden_states: torch.Tensor) -> bool:
    """Whether the layer is computed in 8 bits for this input."""
    return (
        only_computes()
        and are_plain(hidden_states, layer.weight)
        and hidden_states.is_cpu
        and layer.weight.is_cpu
        and hidden_states.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and hidden_states.numel() > 0
        and has_fast_products()
    )


@functools.cache
def has_fast_products() -> bool:
    """Whether this machine multiplies 8-bit numbers exactly and fast, and PyTorch has what it takes.

    Without VNNI, oneDNN adds pairs of products in 16 bits, in which they overflow.
    """
    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()):
        return False
    try:
        with warnings.catch_warnings():  # PyTorch says once that tensors of this kind will go one day
            warnings.simplefilter("ignore")
            torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
        return hasattr(torch.ops.onednn, "qlinear_pointwise")
    except (AttributeError, RuntimeError):
        return False


def _pack_for_onednn(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.onednn.qlinear_prepack(weight, None)


def to_levels(hidden_states: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """Round numbers to unsigned 8-bit levels, of which `zero_point` is 0; those beyond become the nearest."""
    # the one function of PyTorch that does it in one pass; its result shares its memory with plain 8-bit numbers
    rounded = torch.quantize_per_tensor(hidden_states.contiguous().float(), scale, zero_point, torch.quint8)
    plain = torch.empty(0, dtype=torch.uint8)
    return plain.set_(rounded.untyped_storage(), 0, rounded.shape, rounded.stride())


def _levels(smallest: float, largest: float) -> tuple[float, int]:
    """Step and level of 0 of 256 levels from `smallest` to `largest`, or wider: 0 is a level.

    The step is infinite where the input is not finite.
    """
    if not math.isfinite(largest - smallest):
        return math.inf, 0
    smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    scale = _round_up(torch.tensor(max((largest - smallest) / 255, 1e-6))).item()
    return scale, round(-smallest / scale)


def _round_up(positive: torch.Tensor) -> torch.Tensor:
    """The nearest numbers above, or equal, that bfloat16 holds."""
    bits = positive.float().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _version(tensor: torch.Tensor | None) -> int:
    """Counts what was written into a tensor; inference tensors have no count."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks would see the module called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in module.__dict__
        or all_modules._has_any_global_hook()
    )
