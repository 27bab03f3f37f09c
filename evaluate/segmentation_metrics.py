"""Areas of the classes in each image, and what mmsegmentation computes from their sums over a data set."""

import numpy as np
import torch

from hf_models.segmentation.masks import IGNORED


def areas(prediction: torch.Tensor, mask: torch.Tensor, num_labels: int) -> torch.Tensor:
    """What one image adds: pixels where both agree, predicted pixels and labelled pixels of each class.

    Args:
        prediction: (H, W), classes.
        mask: (H, W), classes, or `IGNORED` where pixels do not count.

    Returns:
        (3, num_labels), integers.
    """
    counted = mask != IGNORED
    prediction, mask = prediction[counted], mask[counted].to(prediction.dtype)
    pixels = prediction[prediction == mask], prediction, mask
    return torch.stack([torch.bincount(classes, minlength=num_labels) for classes in pixels])


def metrics(sums: np.ndarray) -> tuple[dict[str, float], list[float]]:
    """Percentages from the sum of `areas` over all images, (3, num_labels).

    Returns:
        `{"mIoU": float, "mAcc": float, "aAcc": float}`, and the IoU of each class: NaN for one that is neither
        predicted nor labelled, which the mean leaves out, as the mean accuracy does for one that is not labelled.
    """
    agreed, predicted, labelled = sums.astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        iou = 100 * agreed / (predicted + labelled - agreed)
        accuracy = 100 * agreed / labelled
    means = {"mIoU": np.nanmean(iou), "mAcc": np.nanmean(accuracy), "aAcc": 100 * agreed.sum() / labelled.sum()}
    return {name: float(value) for name, value in means.items()}, iou.tolist()
