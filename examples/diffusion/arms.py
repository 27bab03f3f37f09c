"""The three U-Nets that are compared, and how many steps of each cost the same."""

import time
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from unet_dcnv4 import UNet2DDCNv4Model

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MEASURED_STEPS = 8  # of each kind; the least CPU time counts


@dataclass(frozen=True)
class Arm:
    """A kind of U-Net.

    Attributes:
        model_class: Class of diffusers or ours.
        widths: Channels of each resolution.
    """

    model_class: type[UNet2DModel]
    widths: tuple[int, int, int]

    def build(self, classes: int, seed: int) -> UNet2DModel:
        torch.manual_seed(seed)
        return self.model_class(
            sample_size=16,
            in_channels=12,
            out_channels=12,
            block_out_channels=self.widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,  # with the stock middle: the one attention is at 4 x 4
            num_class_embeds=classes,
        )


ARMS = {
    "conv": Arm(UNet2DModel, (64, 128, 128)),
    "dcnv4": Arm(UNet2DDCNv4Model, (64, 128, 128)),  # the paper's comparison: the same widths, fewer parameters
    "dcnv4-wide": Arm(UNet2DDCNv4Model, (96, 160, 160)),  # about the parameters of `conv`
}


def training_loss(
    model: UNet2DModel,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    labels: torch.Tensor,
    noise: torch.Tensor,
    layout: str,
) -> torch.Tensor:
    """Mean squared error of the predicted noise; all arms train in bfloat16, in which all of them are faster."""
    noisy = noisy.contiguous(memory_format=LAYOUTS[layout])
    with torch.autocast("cpu", torch.bfloat16):
        predicted = model(noisy, timesteps, labels).sample
    return (predicted.float() - noise).square().mean()


def measure_costs(classes: int, batch_size: int) -> dict[str, dict[str, float]]:
    """CPU seconds, in all threads, of the gradient of one batch: for each arm, in each memory layout.

    All take turns, so that what else the machine does strikes them alike.
    """
    models = {
        (name, layout): arm.build(classes, 0).to(memory_format=LAYOUTS[layout])
        for name, arm in ARMS.items()
        for layout in LAYOUTS
    }
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(batch_size, 12, 16, 16, generator=generator) for _ in range(2))
    timesteps, labels = torch.arange(batch_size), torch.arange(batch_size) % classes
    costs = {name: dict.fromkeys(LAYOUTS, float("inf")) for name in ARMS}
    for _ in range(MEASURED_STEPS):
        for (name, layout), model in models.items():
            started = time.process_time()
            training_loss(model, latents, timesteps, labels, noise, layout).backward()
            costs[name][layout] = min(costs[name][layout], time.process_time() - started)
            model.zero_grad()
    return costs


def fastest_layout(costs: dict[str, float]) -> str:
    return min(costs, key=costs.get)


def equal_steps(costs: dict[str, dict[str, float]], steps: int) -> dict[str, int]:
    """Steps of each arm that cost as much as `steps` of the first, each in the layout in which it is faster."""
    seconds = {name: min(of.values()) for name, of in costs.items()}
    return {name: max(1, round(steps * seconds["conv"] / seconds[name])) for name in seconds}
