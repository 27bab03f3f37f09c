"""Training with the compiled large-kernel convolution, beside training with its PyTorch reference."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForImageClassification

from hf_models.configuration_replknet import RepLKNetConfig

from ..harness.kernel_builder import large_kernel

STEPS = 20
SIZES = (31, 29, 27, 13)
CONFIG = RepLKNetConfig(
    hidden_sizes=(16, 32, 48, 64), depths=(1, 1, 2, 1), kernel_sizes=SIZES, num_labels=16, drop_path_rate=0.0
)


def classifier(smooth):
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(CONFIG).train()
    if smooth:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.GELU())
    return model


class KernelCalls(TorchDispatchMode):
    """Counts the operators of the compiled kernel, forward and backward."""

    def __init__(self):
        super().__init__()
        self.counts = {"depthwise_conv2d_forward": 0, "depthwise_conv2d_backward_weight": 0}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, name = function.overloadpacket._qualified_op_name.split("::")
        if "large_kernel_conv" in namespace and name in self.counts:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def train(model, optimizer, dtype, size):
    """The loss of each step, and how often the kernel ran."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(16, 3, size, size, generator=generator).to(dtype), torch.arange(16)
    losses = []
    with KernelCalls() as calls:
        for _ in range(STEPS):
            loss = model(images, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, calls.counts


# In float32 with ReLU, on new images at each step, losses part by 1e-1 within 20 steps at a rate of 1e-3; in float64
# by 1e-13. They part in jumps, which fits a rounding error that moves a value across the kink. So float32 trains
# with GELU at that rate (1e-5 apart on new images), and with ReLU at the rate of the first steps of a warm-up.
@pytest.mark.parametrize(
    ("dtype", "smooth", "optimizer", "learning_rate", "size"),
    [
        (torch.float64, False, torch.optim.SGD, 1e-2, 32),
        (torch.float32, True, torch.optim.AdamW, 1e-3, 64),
        (torch.float32, False, torch.optim.AdamW, 1e-5, 64),
    ],
)
def test_training_does_not_depend_on_the_kernel(monkeypatch, dtype, smooth, optimizer, learning_rate, size):
    losses, counts = [], []
    for function in (None, large_kernel()):
        monkeypatch.setattr("hf_models.large_kernel_conv.get_function", lambda *_, function=function: function)
        model = classifier(smooth).to(dtype)
        result = train(model, optimizer(model.parameters(), lr=learning_rate), dtype, size)
        losses.append(result[0])
        counts.append(result[1])
    assert set(counts[0].values()) == {0}
    # five large kernels: forward once for the output and once for the gradient of the input
    assert counts[1]["depthwise_conv2d_forward"] >= STEPS * 5 * 2
    assert counts[1]["depthwise_conv2d_backward_weight"] >= STEPS * 5
    assert losses[0][-1] < losses[0][0]
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-4)
