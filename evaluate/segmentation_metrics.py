"""Intersections and unions over a data set, and what mmsegmentation computes from them."""

import numpy as np
import torch

IGNORED = 255


def areas(prediction: torch.Tensor, mask: torch.Tensor, num_labels: int) -> list[int]:
    """What one image adds: pixels where both agree, predicted pixels and labelled pixels of each class.

    Args:
        prediction: (H, W), classes.
        mask: (H, W), classes, or `IGNORED` where pixels do not count.

    Returns:
        3 * `num_labels` integers.
    """
    counted = mask != IGNORED
    prediction, mask = prediction[counted], mask[counted].to(prediction.dtype)
    return [
        pixels
        for classes in (prediction[prediction == mask], prediction, mask)
        for pixels in torch.bincount(classes, minlength=num_labels).tolist()
    ]


def metrics(sums: list[int]) -> tuple[dict[str, float], list[float]]:
    """Percentages from the sums of `areas` over all images.

    Returns:
        `{"mIoU": float, "mAcc": float, "aAcc": float}`, and the IoU of each class: NaN for one that is neither
        predicted nor labelled, which the mean leaves out, as the mean accuracy does for one that is not labelled.
    """
    agreed, predicted, labelled = np.array(sums, dtype=np.float64).reshape(3, -1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        iou = 100 * agreed / (predicted + labelled - agreed)
        accuracy = 100 * agreed / labelled
    means = {"mIoU": np.nanmean(iou), "mAcc": np.nanmean(accuracy), "aAcc": 100 * agreed.sum() / labelled.sum()}
    return {name: float(value) for name, value in means.items()}, iou.tolist()
