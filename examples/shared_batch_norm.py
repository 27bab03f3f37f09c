"""BatchNorm over the images of all processes, on any device: PyTorch's own `SyncBatchNorm` runs on GPUs alone."""

import torch
import torch.distributed as dist
from torch import nn


def share_batch_norms(model: nn.Module) -> None:
    """Let each BatchNorm of a model see the images of all processes while it trains; its weights stay."""
    if torch.cuda.is_available():
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm  # in place, so that whoever holds the layer has the new one


class SharedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm whose mean and variance are those over all processes, which must have batches of equal size."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Takes and returns (batch_size, channels, height, width)."""
        if not self.training:
            return super().forward(hidden_states)
        processes, dims = dist.get_world_size(), (0, 2, 3)
        values = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        mean = SumOfProcesses.apply(values.mean(dims)) / processes
        centred = values - mean[:, None, None]
        variance = SumOfProcesses.apply(centred.square().mean(dims)) / processes
        with torch.no_grad():
            count = hidden_states[:, 0].numel() * processes
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(hidden_states.dtype)


class SumOfProcesses(torch.autograd.Function):
    """The sum over all processes, in each of them. Each has a loss of its own, so gradients are summed too."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        """Any shape, the same in all processes."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return SumOfProcesses.forward(ctx, gradient)
