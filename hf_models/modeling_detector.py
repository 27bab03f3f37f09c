"""What all detectors share: images in, detections out."""

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .detector_output import DetectorOutput
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class Detector(Shardable, OneSetOfWeights, PreTrainedModel):
    """Base of the detectors, for inference: sets no module itself, expects `backbone` and `find`."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        labels: list[dict] | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> DetectorOutput:
        """Detect the objects of a batch of images.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width), padded on the right and below.
            pixel_mask: (batch_size, height, width), 1 where an image is and 0 where padding is; by default there is no
                padding.
            labels: Not supported: detectors do not train.
            output_hidden_states: Whether to return the backbone's hidden states.
            return_dict: `False` for a tuple.

        Returns:
            The best `config.max_detections` of each image, see [`DetectorOutput`].

        Raises:
            ValueError: There are labels, or the mask is of another size than the images.
        """
        if labels is not None:
            raise ValueError("labels: training is not supported, only inference is. Call the model without labels.")
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
        found = self.find(outputs.feature_maps, pixel_mask)
        found.hidden_states = outputs.hidden_states
        return found

    def find(self, feature_maps: tuple[torch.Tensor, ...], pixel_mask: torch.Tensor) -> DetectorOutput:
        """The detections of a batch of images.

        Args:
            feature_maps: Those of the backbone.
            pixel_mask: See `forward`.
        """
        raise NotImplementedError


__all__ = ["Detector"]
