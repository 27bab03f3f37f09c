"""What PyTorch does beside computing when a layer or an operator is called, and whether a layer is what it seems.

Faster ways to compute something ask here first whether anybody would notice: who records, differentiates, counts or
replaces a layer must find what PyTorch's own layers and operators would have shown.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules import module as all_modules
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import flop_registry

_PLAIN_TENSORS = frozenset((torch.Tensor, nn.Parameter, type(None)))
# as PyTorch defines them: profilers put others in their place
_DEFINITIONS = {
    nn.Linear: (nn.Linear.forward, "linear", F.linear),
    nn.Conv2d: (nn.Conv2d.forward, "conv2d", F.conv2d),
    nn.LayerNorm: (nn.LayerNorm.forward, "layer_norm", F.layer_norm),
}


_keeps_kernels = False


def is_recording() -> bool:
    """Whether torch.export, torch.jit.trace or an ONNX exporter records a program that is to run elsewhere."""
    return not _keeps_kernels and (torch.compiler.is_exporting() or torch.jit.is_tracing())


@contextmanager
def keeping_kernels() -> Iterator[None]:
    """While it lasts, what is recorded keeps the compiled kernels: it is to run in PyTorch, which can load them."""
    global _keeps_kernels
    before, _keeps_kernels = _keeps_kernels, True
    try:
        yield
    finally:
        _keeps_kernels = before


@torch.compiler.assume_constant_result
def is_transformed() -> bool:
    """Whether torch.func transforms what is called (`grad`, `vmap`, ...), or forward-mode derivatives are computed."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_observed() -> bool:
    """Whether a mode of PyTorch sees every operator that runs, as the one that counts FLOPs does."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    # that of `torch.set_default_device` only makes new tensors elsewhere
    return torch._C._len_torch_function_stack() > 0 and any(
        type(mode) is not DeviceContext for mode in _get_current_function_mode_stack()
    )


def has_stale_counter() -> bool:
    """Whether a FLOP counter runs that was made before some formula was registered, which it does not know then."""
    if not is_observed():
        return False
    counters = (getattr(mode, "counter", mode) for mode in _get_current_dispatch_mode_stack())
    known = [counter.flop_registry for counter in counters if hasattr(counter, "flop_registry")]
    return any(flop_registry.keys() - registry.keys() for registry in known)


def are_plain(*tensors: torch.Tensor | None) -> bool:
    """Whether none is of a subclass: quantised, distributed and fake tensors know PyTorch's operators only."""
    return torch.compiler.is_compiling() or _PLAIN_TENSORS.issuperset(map(type, tensors))


def only_computes() -> bool:
    """Whether nothing but numbers is wanted of what is called: no gradient, no program, no count."""
    return not (torch.is_grad_enabled() or _is_traced())


def only_trains() -> bool:
    """Whether nothing but numbers is wanted of what is called, and gradients of them later."""
    return torch.is_grad_enabled() and not _is_traced()


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or is_recording() or is_transformed() or is_observed()


def only_compiles() -> bool:
    """Whether torch.compile traces what is called, and nothing but numbers is wanted of it."""
    return torch.compiler.is_compiling() and not (
        torch.compiler.is_exporting() or torch.is_grad_enabled() or is_transformed()
    )


def is_untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the layer is of the class `kind`, such as nn.Linear, and its attributes tell all that calling it does.

    Not where it is a subclass or an adapter, has hooks or weights of another kind, or where something took the place
    of its `forward` (offloading, compilation) or of PyTorch's own functions (profilers).
    """
    if type(layer) is not kind or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if torch.compiler.is_compiling():
        return True
    if (
        layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
        or layer._compiled_call_impl is not None
        or all_modules._has_any_global_hook()
    ):
        return False
    if definition := _DEFINITIONS.get(kind):
        forward, name, function = definition
        if kind.forward is not forward or getattr(F, name) is not function:
            return False
    return _PLAIN_TENSORS.issuperset(map(type, layer._parameters.values()))


def are_untouched(modules: Iterable[nn.Module], kinds: frozenset[type[nn.Module]], like: torch.Tensor) -> bool:
    """Whether [`is_untouched`] holds for the modules and all below them, whose classes are of `kinds`.

    Every parameter must have the type and the device of the tensor `like` too. Cheaper than to ask for each one.
    """
    compiles = torch.compiler.is_compiling()
    if not compiles and (
        all_modules._has_any_global_hook()
        or any(
            kind.forward is not forward or getattr(F, name) is not of_pytorch
            for kind, (forward, name, of_pytorch) in _DEFINITIONS.items()
        )
    ):
        return False
    modules = list(modules)
    while modules:
        module = modules.pop()
        if type(module) not in kinds or module._forward_hooks or module._forward_pre_hooks:
            return False
        if not compiles and (
            module._backward_hooks
            or module._backward_pre_hooks
            or module._compiled_call_impl is not None
            or "forward" in module.__dict__
        ):
            return False
        for tensor in module._parameters.values():
            if not (compiles or type(tensor) in _PLAIN_TENSORS) or (
                tensor is not None and (tensor.dtype != like.dtype or tensor.device != like.device)
            ):
                return False
        modules += module._modules.values()
    return True
