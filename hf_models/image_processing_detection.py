"""The image processor of the detectors: images and annotations in, boxes and masks out, as in mmdetection."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageInput,
    PILImageResampling,
    SizeDict,
)

from .coco_labels import coco_labels
from .detector_output import DetectorOutput
from .image_processing_imagenet import UprightPilBackend
from .mask_pasting import paste_mask, run_lengths
from .resizing import resize_8_bit

SIZE_DIVISOR = 32  # of the padded images


class DetectionImageProcessor(UprightPilBackend):
    """Resize, normalise and pad as the authors' tests do, and turn what a detector returns into boxes and masks.

    An image is enlarged or shrunk, at the same aspect ratio, until its short side is `size["shortest_edge"]` or its
    long side `size["longest_edge"]`, by bilinear interpolation without smoothing. After it is normalised, zeros at its
    right and below make it as large as the largest of the batch and its sides multiples of 32. There is one class for
    both backends: the arithmetic of 8 bits is OpenCV's, bit for bit, which neither Pillow nor torchvision has.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 800, "longest_edge": 1333}
    default_to_square = False
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    model_input_names = ["pixel_values", "pixel_mask"]

    def preprocess(
        self,
        images: ImageInput,
        annotations: Mapping | Sequence[Mapping] | None = None,
        return_segmentation_masks: bool = False,
        **kwargs,
    ) -> BatchFeature:
        """Prepare images, and what is to be found in them.

        Args:
            images: One image or several.
            annotations: For each image, `image_id` and `annotations` as in COCO's files, see [`coco_labels`]: the
                same that transformers' detection processors take.
            return_segmentation_masks: Whether `labels` have masks.

        Returns:
            `pixel_values` and `pixel_mask`, and with annotations `labels`, which detectors learn from.

        Raises:
            ValueError: There are not as many annotations as images, or one has another form.
        """
        return super().preprocess(images, annotations, return_segmentation_masks, **kwargs)

    def resize(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """Resize an image (3, height, width) of 8 bits or of floats.

        Raises:
            ValueError: `size` does not say how long the sides may be.
        """
        if not (size.shortest_edge and size.longest_edge):
            raise ValueError(f'size: expected {{"shortest_edge": ..., "longest_edge": ...}}, got {dict(size)}.')
        height, width = image.shape[1:]
        factor = min(size.longest_edge / max(height, width), size.shortest_edge / min(height, width))
        height, width = (max(int(side * factor + 0.5), 1) for side in (height, width))
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        if pixels.dtype == torch.uint8:
            return resize_8_bit(pixels, height, width).numpy()
        return F.interpolate(pixels[None].float(), size=(height, width), mode="bilinear")[0].numpy()

    def _preprocess(
        self,
        images: list[np.ndarray],
        annotations: Mapping | Sequence[Mapping] | None,
        return_segmentation_masks: bool,
        do_resize: bool,
        size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        do_pad: bool,
        pad_size: SizeDict | None,
        return_tensors: str | None,
        **kwargs,
    ) -> BatchFeature:
        annotations = [annotations] if isinstance(annotations, Mapping) else annotations
        if annotations is not None and len(annotations) != len(images):
            raise ValueError(f"annotations: expected one for each of {len(images)} images, got {len(annotations)}.")
        sizes = [image.shape[1:] for image in images]
        if do_resize:
            images = [self.resize(image, size) for image in images]
        if do_normalize:
            # in grey levels, as in the original: scaling first would round differently
            scale = rescale_factor if do_rescale else 1
            mean, std = (np.divide(values, scale) for values in (image_mean, image_std))
            images = [self.normalize(image, mean, std) for image in images]
        elif do_rescale:
            images = [self.rescale(image, rescale_factor) for image in images]
        if do_pad and pad_size is None:
            height, width = (-(-max(sides) // SIZE_DIVISOR) * SIZE_DIVISOR for sides in _sides(images))
            pad_size = SizeDict(height=height, width=width)
        padded, masks = self.pad(images, pad_size, return_mask=True)
        features = BatchFeature({"pixel_values": padded, "pixel_mask": masks}, tensor_type=return_tensors)
        if annotations is not None:
            labels = [
                coco_labels(annotation, size, image.shape[1:], values.shape[1:], return_segmentation_masks)
                for annotation, size, image, values in zip(annotations, sizes, images, padded, strict=True)
            ]
            features["labels"] = [BatchFeature(one, tensor_type=return_tensors) for one in labels]
        return features

    def post_process_object_detection(
        self,
        outputs: DetectorOutput,
        threshold: float = 0.5,
        target_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        """The detections above a score.

        Args:
            outputs: What a detector returns.
            threshold: Score above which a detection is kept.
            target_sizes: Height and width of each image as it was before it was resized; `None` for boxes as fractions
                of the image.

        Returns:
            For each image a dictionary, the best detection first: `scores` (N,), `labels` (N,) and `boxes` (N, 4),
            left, top, right and bottom edge in pixels, none of them outside of the image.

        Raises:
            ValueError: There are not as many sizes as images.
        """
        sizes = [(1, 1)] * len(outputs.scores) if target_sizes is None else target_sizes
        return [
            {"scores": scores, "labels": labels, "boxes": boxes}
            for scores, labels, boxes, *_ in _detections(outputs, threshold, sizes)
        ]

    def post_process_instance_segmentation(
        self,
        outputs: DetectorOutput,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
        return_coco_annotation: bool = False,
        return_binary_maps: bool = False,
    ) -> list[dict]:
        """The masks of the detections above a score, in one of three forms.

        The usual map tells one object for each pixel, the best of those that overlap there. The other two forms lose
        nothing. Binary maps take a byte for each pixel and detection: 1.2 GB for 100 detections on a photo of 12
        megapixels, of which run lengths take a few megabytes.

        Args:
            outputs: What a detector with masks returns.
            threshold: Score above which a detection is kept.
            mask_threshold: Probability from which on a pixel belongs to an object.
            overlap_mask_area_threshold: Not used, as by transformers' own instance segmentation; pipelines pass it.
            target_sizes: Height and width of each image as it was before it was resized.
            return_coco_annotation: Whether to return COCO's uncompressed run-length encoding.
            return_binary_maps: Whether to return a boolean map for each detection.

        Returns:
            For each image a dictionary. `segmentation` is (height, width) in int32, the `id` of the object at each
            pixel or -1; or N dictionaries with `size` and `counts`; or (N, height, width), boolean. `segments_info`
            has, for each of the N detections, the best first, `id` (from 0), `label_id`, `score` and `was_fused`,
            which is false.

        Raises:
            ValueError: The model gives no masks, there are not as many sizes as images, or two forms are wanted.
        """
        if return_coco_annotation and return_binary_maps:
            raise ValueError("return_coco_annotation and return_binary_maps: only one of them can be returned.")
        if outputs.get("masks") is None:
            raise ValueError("masks: the model gives boxes alone. Use post_process_object_detection.")
        if target_sizes is None:
            raise ValueError("target_sizes: needed, as masks are made of pixels. Give (height, width) of each image.")
        results = []
        for scores, labels, boxes, grids, size in _detections(outputs, threshold, target_sizes):
            masks = ((i, paste_mask(grids[i], boxes[i], size, mask_threshold)) for i in reversed(range(len(boxes))))
            if return_coco_annotation:
                segmentation = [run_lengths(mask) for _, mask in masks][::-1]
            elif return_binary_maps:
                segmentation = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device)
                for index, mask in masks:
                    segmentation[index] = mask
            else:
                segmentation = torch.full(size, -1, dtype=torch.int32, device=boxes.device)
                for index, mask in masks:  # the best comes last and stays
                    segmentation[mask] = index
            segments = [
                {"id": index, "label_id": label, "was_fused": False, "score": round(score, 6)}
                for index, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True))
            ]
            results.append({"segmentation": segmentation, "segments_info": segments})
        return results


def _sides(images: list[np.ndarray]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The heights and the widths of images (3, height, width)."""
    return tuple(zip(*(image.shape[1:] for image in images), strict=True))


def _detections(
    outputs: DetectorOutput, threshold: float, sizes: torch.Tensor | Sequence[tuple[int, int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[int, int]]]:
    """For each image the detections above a score: scores, labels, boxes in pixels, grids of masks; and its size."""
    if len(sizes) != len(outputs.scores):
        raise ValueError(f"target_sizes: expected one for each of {len(outputs.scores)} images, got {len(sizes)}.")
    masks = outputs.get("masks")  # pipelines hand over a plain ModelOutput, which has no entries that are None
    for index, (height, width) in enumerate(torch.as_tensor(sizes).int().tolist()):  # some give floats
        kept = (outputs.scores[index] > threshold) & (outputs.labels[index] >= 0)
        edges = outputs.boxes.new_tensor([width, height, width, height], dtype=torch.float32)
        boxes = (outputs.boxes[index, kept].float() * edges).clamp(min=0).minimum(edges)
        grids = None if masks is None else masks[index, kept]
        yield outputs.scores[index, kept].float(), outputs.labels[index, kept], boxes, grids, (height, width)


DetectionImageProcessor.register_for_auto_class()  # so that saving a processor saves this file too
