"""What a U-Net does after training: its denoising loss on photos that it has not seen, and its samples."""

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from photos import IMAGE_SIZE, Photos, to_images, to_latents
from training import NOISE, SCHEDULE, TIMESTEPS

LOSS_TIMESTEPS = 20
SAMPLING_STEPS = 25
BATCH_SIZE = 64


@torch.no_grad()
def denoising_losses(model: UNet2DModel, photos: Photos) -> np.ndarray:
    """Mean squared error of the predicted noise for each photo, over timesteps in the middles of equal parts.

    The noise is the same for every model, so that the losses of two models can be compared photo by photo.

    Returns:
        (n,), float64.
    """
    part = TIMESTEPS // LOSS_TIMESTEPS
    draw = torch.Generator().manual_seed(0)
    losses = []
    for images, labels in zip(photos.images.split(BATCH_SIZE), photos.labels.split(BATCH_SIZE), strict=True):
        latents = to_latents(images)
        total = torch.zeros(len(images), dtype=torch.float64)
        for timestep in range(part // 2, TIMESTEPS, part):
            noise = torch.randn(latents.shape, generator=draw)
            timesteps = torch.full((len(images),), timestep)
            predicted = model(NOISE.add_noise(latents, noise, timesteps), timesteps, labels).sample
            total += (predicted - noise).square().double().mean(dim=(1, 2, 3))
        losses.append(total / LOSS_TIMESTEPS)
    return torch.cat(losses).numpy()


@torch.no_grad()
def sample(model: UNet2DModel, labels: torch.Tensor) -> torch.Tensor:
    """By DPM-Solver++ without guidance, from the same noise for every model.

    Returns:
        (N, 3, 32, 32), uint8.
    """
    draw = torch.Generator().manual_seed(1)
    images = []
    for few in labels.split(BATCH_SIZE):
        solver = DPMSolverMultistepScheduler(**SCHEDULE)
        solver.set_timesteps(SAMPLING_STEPS)
        latents = torch.randn(len(few), 12, IMAGE_SIZE // 2, IMAGE_SIZE // 2, generator=draw)
        for timestep in solver.timesteps:
            latents = solver.step(model(latents, timestep, few).sample, timestep, latents).prev_sample
        images.append(to_images(latents))
    return torch.cat(images)
