"""What all detectors share: images in, detections and losses out."""

from collections.abc import Mapping, Sequence

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .detector_labels import checked_labels
from .detector_output import DetectorOutput
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class Detector(Shardable, OneSetOfWeights, PreTrainedModel):
    """Base of the detectors: sets no module itself, expects `backbone` and `find`."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it where it accumulates gradients

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: Sequence[Mapping[str, torch.Tensor]] | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> DetectorOutput:
        """Detect the objects of a batch of images, or compute the loss by which a detector learns to.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width), padded on the right and below.
            pixel_mask: (batch_size, height, width), 1 where an image is and 0 where padding is; by default there is no
                padding.
            labels: What is to be found, for each image a dictionary with `class_labels` (n,), indices of classes, and
                `boxes` (n, 4), centre x, centre y, width and height as fractions of the image without its padding;
                for models with mask heads, also `masks` (n, height, width), 1 inside of the objects and 0 outside.
                The image processor makes them of COCO's annotations.
            output_hidden_states: Whether to return the backbone's hidden states.
            return_dict: `False` for a tuple.

        Returns:
            The best `config.max_detections` of each image, and the loss if there are labels, see [`DetectorOutput`].
            A model in training mode with labels may leave the detections out, which nobody looks at then.

        Raises:
            ValueError: The mask is of another size than the images; or the model cannot learn from the labels.
        """
        if labels is not None:
            labels = checked_labels(labels, len(pixel_values), self.config.num_labels)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        batch_size, _, height, width = pixel_values.shape
        if pixel_mask is None:
            pixel_mask = torch.ones((batch_size, height, width), device=pixel_values.device)
        if pixel_mask.shape != (batch_size, height, width):
            raise ValueError(f"pixel_mask: expected {(batch_size, height, width)}, got {tuple(pixel_mask.shape)}")
        outputs = self.backbone(
            pixel_values.to(self.dtype), output_hidden_states=output_hidden_states, return_dict=True
        )
        found = self.find(outputs.feature_maps, pixel_mask, labels)
        loss = None if labels is None else sum(found.loss_dict.values())
        return type(found)(**found, loss=loss, hidden_states=outputs.hidden_states)

    def find(
        self, feature_maps: tuple[torch.Tensor, ...], pixel_mask: torch.Tensor, labels: list[dict] | None
    ) -> DetectorOutput:
        """The detections of a batch of images, and `loss_dict` if there are labels.

        Args:
            feature_maps: Those of the backbone.
            pixel_mask: See `forward`.
            labels: As [`checked_labels`] returns them, on any device.
        """
        raise NotImplementedError


__all__ = ["Detector"]
