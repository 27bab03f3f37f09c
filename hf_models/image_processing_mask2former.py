"""The image processor of Mask2Former models that tell classes apart, not objects."""

import numpy as np
from transformers import Mask2FormerImageProcessorPil


class SemanticMask2FormerImageProcessor(Mask2FormerImageProcessorPil):
    """The stock processor, right for training on images of different sizes, and for semantic segmentation only.

    Training takes a binary mask for each class of an image. Pixels that are padded or to be ignored belong to none of
    them, as in the authors' code; the stock processor pads the *binary* masks with `ignore_index`, so that the loss
    gets targets of 255. Pipelines choose the post-processing by its presence: here there is only that of classes.
    """

    def _preprocess(
        self,
        images: list[np.ndarray],
        segmentation_maps: list[np.ndarray] | None,
        *args,
        do_reduce_labels: bool | None,
        ignore_index: int | None,
        **kwargs,
    ):
        if segmentation_maps is not None and do_reduce_labels:
            # the stock processor would make class 254 of what is ignored already
            segmentation_maps = [np.where(labels == ignore_index, 0, labels) for labels in segmentation_maps]
        return super()._preprocess(
            images, segmentation_maps, *args, do_reduce_labels=do_reduce_labels, ignore_index=ignore_index, **kwargs
        )

    def pad(
        self,
        images: list[np.ndarray],
        padded_size: tuple[int, int],
        segmentation_maps: list[np.ndarray] | None = None,
        fill: int = 0,
        ignore_index: int | None = None,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray] | None]:
        """Pad images (C, H, W) with `fill`, and binary masks (classes, H, W) with 0, whatever `ignore_index` is."""
        return super().pad(images, padded_size, segmentation_maps, fill, ignore_index=0)

    @property
    def post_process_panoptic_segmentation(self) -> None:
        raise AttributeError("the model tells classes apart, not objects: use post_process_semantic_segmentation")

    post_process_instance_segmentation = post_process_panoptic_segmentation


SemanticMask2FormerImageProcessor.register_for_auto_class()  # so that saving a processor saves this file too
