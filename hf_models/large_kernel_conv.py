"""Depthwise convolution with a very large kernel, re-parameterised by a small one (RepLKNet, section 3, guideline 3).

https://arxiv.org/abs/2203.06717
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .execution import is_untouched, only_computes
from .hub_kernels import get_function
from .layers import _is_for_products, channels_last, pointwise_conv
from .pointwise_conv import activation_name, merging_kernel, pointwise_kernel


def depthwise_conv2d(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve each channel with its own kernel: stride 1, as many zeros around as keep the size.

    A compiled kernel computes it where there is one (see `hf-models kernels status`), else the PyTorch reference.

    Args:
        input: (N, C, H, W), fastest in channels-last memory.
        weight: (C, 1, KH, KW), KH and KW odd.
        bias: (C).

    Returns:
        (N, C, H, W).
    """
    device = input.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # autocast knows F.conv2d, but not a kernel
        dtype = torch.get_autocast_dtype(device)
        input, weight, bias = (None if tensor is None else tensor.to(dtype) for tensor in (input, weight, bias))
    kernel = get_function("large-kernel-conv", "depthwise_conv2d", device, input, weight, bias)
    return (kernel or depthwise_conv2d_reference)(input, weight, bias)


def depthwise_conv2d_reference(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`depthwise_conv2d` in PyTorch alone: what a kernel must compute, and what runs where there is none.

    On a CPU it computes in channels-last memory, as PyTorch's convolution takes 50 times as long in the other above
    13x13. Elsewhere the layout is the caller's: nothing was measured that would be worth a copy of the map.
    """
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    if input.device.type == "cpu":
        input = channels_last(input)
    return F.conv2d(input, weight, bias, padding=padding, groups=weight.shape[0])


def large_kernel_conv(conv: nn.Module, input: torch.Tensor) -> torch.Tensor:
    """`conv(input)`, for a depthwise nn.Conv2d with stride 1 that keeps the size by [`depthwise_conv2d`].

    Args:
        conv: Such a convolution, or what a tool put in its place.
        input: (N, C, H, W).

    Returns:
        (N, C, H, W).
    """
    if is_untouched(conv, nn.Conv2d):
        return depthwise_conv2d(input, conv.weight, conv.bias)
    return conv(input)


class LargeKernelDepthwiseConv2d(nn.Conv2d):
    """Drop-in for nn.Conv2d, with the same arguments and state dict, that computes large depthwise kernels fast.

    A depthwise convolution with stride 1 that keeps the size runs a compiled kernel where there is one and PyTorch's
    convolution is slower; any other is PyTorch's. To adopt it, put it in the place of nn.Conv2d. In a short form,
    `LargeKernelDepthwiseConv2d(channels, kernel_size)` stands for

        LargeKernelDepthwiseConv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    Raises:
        ValueError: A side of the kernel is even, in the short form.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | tuple[int, int],
        kernel_size: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        if kernel_size is None:
            kernel_size = (out_channels, out_channels) if isinstance(out_channels, int) else out_channels
            if any(side % 2 == 0 for side in kernel_size):
                raise ValueError(f"kernel_size: expected odd numbers, got {out_channels}")
            out_channels, groups = in_channels, in_channels
            padding = tuple(side // 2 for side in kernel_size)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H_out, W_out)."""
        if input.ndim == 4 and is_depthwise_of_same_size(self):
            return depthwise_conv2d(input, self.weight, self.bias)
        return super().forward(input)


def is_depthwise_of_same_size(conv: nn.Conv2d) -> bool:
    """Whether it is what [`depthwise_conv2d`] computes."""
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and all(side % 2 for side in conv.kernel_size)
        and conv.padding in ("same", tuple(side // 2 for side in conv.kernel_size))
    )


class ConvNorm(nn.Module):
    """Convolution and BatchNorm; the BatchNorm may be folded into the convolution, which then has a bias.

    Args:
        in_channels, out_channels, kernel_size, stride, groups: Of the convolution, which pads to the same size.
        eps: Epsilon of the BatchNorm.
        folded: Whether the BatchNorm is folded already.
        activation: Applied last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        eps: float = 1e-5,
        folded: bool = False,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=folded
        )
        if kernel_size == stride == groups == 1:
            self.convolve = pointwise_conv
        elif is_depthwise_of_same_size(self.conv):
            self.convolve = large_kernel_conv
        else:
            self.convolve = _call
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(out_channels, eps=eps)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_channels, height, width) -> (batch_size, out_channels, height / stride, width / stride)."""
        if (out := _in_one_pass(self, hidden_states)) is not None:
            return out
        if (out := _convolved_by_onednn(self, hidden_states)) is not None:
            return out
        return self.activation(self.norm(self.convolve(self.conv, hidden_states)))

    def folded_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that equals convolution and BatchNorm (running statistics).

        They are new tensors, in float32 at least where there is a BatchNorm: who goes on computing rounds them once.

        Raises:
            ValueError: The convolution's weight does not tell all that it computes.
        """
        if type(self.conv) is not nn.Conv2d or self.conv._forward_pre_hooks:
            raise ValueError(
                f"{type(self.conv).__name__}: a convolution whose weight an adapter, a parametrisation or a hook "
                "changes cannot be merged; make the change permanent first, as `merge_and_unload` of peft does"
            )
        if isinstance(self.norm, nn.Identity):
            return self.conv.weight.clone(), self.conv.bias.clone()
        scale, shift = _scale_and_shift(self.norm)
        return self.conv.weight * scale[:, None, None, None], shift

    def fold(self, before: nn.Module | None = None) -> None:
        """Fold the BatchNorm into the convolution, and one that comes `before` a 1x1 convolution too."""
        weight, bias = self.folded_weights()
        if before is not None:
            scale, shift = _scale_and_shift(before)
            bias = bias + weight.flatten(1) @ shift
            weight = weight * scale[:, None, None]
        dtype = self.conv.weight.dtype
        self.conv.weight, self.conv.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))
        self.norm = nn.Identity()


def _call(conv: nn.Module, input: torch.Tensor) -> torch.Tensor:
    return conv(input)


_NOTHING = nn.Identity()


def pointwise_branch(
    layer: nn.Module,
    hidden_states: torch.Tensor,
    *,
    before: nn.Module = _NOTHING,
    after: nn.Module = _NOTHING,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`residual + after(layer(before(hidden_states)))`, in one pass where nobody would notice.

    Args:
        layer: A [`ConvNorm`] of a 1x1 convolution, or what stands in its place.
        hidden_states: (batch_size, in_channels, height, width).
        before: A BatchNorm, a ReLU, nothing, or what stands in its place.
        after: GELU, nothing, or what stands in its place.
        residual: (batch_size, out_channels, height, width), or none.

    Returns:
        (batch_size, out_channels, height, width).
    """
    if (out := _in_one_pass(layer, hidden_states, before, after, residual)) is not None:
        return out
    hidden_states = after(layer(before(hidden_states)))
    return hidden_states if residual is None else residual + hidden_states


def _in_one_pass(
    layer: nn.Module,
    hidden_states: torch.Tensor,
    before: nn.Module = _NOTHING,
    after: nn.Module = _NOTHING,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """[`pointwise_branch`] by a compiled kernel; `None` where the modules are to run."""
    if not is_untouched(layer, ConvNorm) or layer.convolve is not pointwise_conv:
        return None
    conv, norm = layer.conv, layer.norm
    if not (_is_plain(conv) and _is_plain(norm)):
        return None
    kernel = pointwise_kernel(hidden_states, conv.weight, conv.bias, residual)
    if kernel is None:
        return None
    first, inner, last = (activation_name(module) for module in (before, layer.activation, after))
    if None in (inner, last) or "none" not in (inner, last):
        return None
    if first == "gelu" or (first is None and not (_is_batch_norm(before) and _is_plain(before))):
        return None
    tokens = kernel(
        hidden_states.permute(0, 2, 3, 1),  # (N, C, H, W) -> (N, H, W, C)
        conv.weight.flatten(1),
        conv.bias,
        norm=_numbers_of(norm) if _is_batch_norm(norm) else None,
        activation=inner if last == "none" else last,
        residual=None if residual is None else residual.permute(0, 2, 3, 1),  # likewise
        input_norm=_numbers_of(before) if first is None else None,
        input_relu=first == "relu",
    )
    return tokens.permute(0, 3, 1, 2)  # (N, H, W, O) -> (N, O, H, W), channels-last


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether it is a BatchNorm, or one with frozen statistics as detectors (DETR, torchvision) put in its place."""
    return type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm) or type(module).__name__.endswith("FrozenBatchNorm2d")


def _convolved_by_onednn(layer: ConvNorm, hidden_states: torch.Tensor) -> torch.Tensor | None:
    """A 3x3 convolution of stem or transition with norm and activation in one pass of oneDNN; `None` where not."""
    conv, activation = layer.conv, activation_name(layer.activation)
    if (
        not only_computes()
        or not (_is_plain(conv) and _is_plain(layer.norm))
        or conv.kernel_size != (3, 3)
        or activation not in ("none", "relu")
        or not _is_for_products(hidden_states, conv.weight)
        or hidden_states.stride(1) != 1
    ):
        return None
    weight, bias = (tensor.to(conv.weight.dtype) for tensor in layer.folded_weights())
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    return torch.ops.mkldnn._convolution_pointwise(hidden_states, weight, bias, *geometry, activation, [], "")


def _numbers_of(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Weight, bias, running mean and variance (channels), and epsilon of a BatchNorm."""
    eps = getattr(norm, "eps", 1e-5)  # the frozen ones of transformers have no attribute but this number in their code
    return norm.weight, norm.bias, norm.running_mean, norm.running_var, eps


def _scale_and_shift(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The factor and the summand (channels) of a BatchNorm in evaluation, in float32 at least."""
    weight, bias, mean, variance, eps = _numbers_of(norm)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scale = weight.to(dtype) * (variance.to(dtype) + eps).rsqrt()
    return scale, bias - mean * scale


class ReparameterizableLargeKernelConv(nn.Module):
    """Sum of a large and a small depthwise convolution, each with BatchNorm; or the one convolution that equals both.

    Args:
        channels: Channels of input and output.
        kernel_size: Size of the large kernel, odd.
        small_kernel_size: Size of the small kernel, odd; `None` for no such branch.
        eps: Epsilon of the BatchNorms.
        merged: Whether the branches are merged already.
    """

    def __init__(
        self, channels: int, kernel_size: int, small_kernel_size: int | None, eps: float = 1e-5, merged: bool = False
    ):
        super().__init__()
        self.large = self.small = self.merged = None
        if merged:
            self.merged = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        else:
            self.large = ConvNorm(channels, channels, kernel_size, groups=channels, eps=eps)
            if small_kernel_size is not None:
                self.small = ConvNorm(channels, channels, small_kernel_size, groups=channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        if self.merged is not None:
            return large_kernel_conv(self.merged, hidden_states)
        if self._merges_on_the_fly():
            return depthwise_conv2d(hidden_states, *self.merged_weights())
        return self.sum_of_branches(hidden_states)

    def sum_of_branches(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`forward` of a module that is not merged, by its definition."""
        out = self.large(hidden_states)
        return out if self.small is None else out + self.small(hidden_states)

    def merged_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that equals the branches (running statistics), rounded once."""
        branches = [branch for branch in (self.large, self.small) if branch is not None]
        dtype = self.large.conv.weight.dtype
        if kernel := _merging_kernel(branches):
            weight, bias = kernel(
                *(part for branch in branches for part in (branch.conv.weight, _numbers_of(branch.norm)))
            )
            return weight, bias.to(dtype)
        weight, bias = self.large.folded_weights()
        if self.small is not None:
            small_weight, small_bias = self.small.folded_weights()
            margin = (weight.shape[-1] - small_weight.shape[-1]) // 2
            inside = slice(margin, margin + small_weight.shape[-1])
            weight[..., inside, inside] += small_weight  # in place: another copy would show in the time of a small map
            bias = bias + small_bias
        return weight.to(dtype), bias.to(dtype)

    def merge(self) -> None:
        """Replace the branches by one convolution with a bias; needs the running statistics of a trained model."""
        if self.merged is not None:
            return
        conv = self.large.conv
        with torch.device("meta"):
            merged = nn.Conv2d(
                conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, groups=conv.groups
            )
        merged.weight, merged.bias = map(nn.Parameter, self.merged_weights())
        self.large, self.small, self.merged = None, None, merged

    def _merges_on_the_fly(self) -> bool:
        """Whether one convolution with weights merged for this call gives what the branches give, in less time.

        Not where a branch has batch statistics, or something that its weights do not tell: hooks, weights that lie
        elsewhere until its own `forward` is called (offloading), or an adapter in place of a layer.
        """
        if self.training or not only_computes():
            return False
        branches = [branch for branch in (self.large, self.small) if branch is not None]
        return all(_is_plain(module) for branch in branches for module in branch.modules())


def _merging_kernel(branches: list[ConvNorm]) -> Callable | None:
    """The compiled function that merges branches of plain convolutions and BatchNorms in one pass, if there is one."""
    weights = [branch.conv.weight for branch in branches]
    if not (
        only_computes()
        and all(is_untouched(branch.conv, nn.Conv2d) and _is_batch_norm(branch.norm) for branch in branches)
        and all(weight.is_cpu for weight in weights)
    ):
        return None
    return merging_kernel(*weights)


def _is_plain(module: nn.Module) -> bool:
    if type(module) in (nn.Conv2d, nn.Identity):
        return is_untouched(module, type(module))
    changed = module.training or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return not changed and (type(module) is ConvNorm or _is_batch_norm(module))
