"""Classification by an image and by when and where it was taken, as in InternImage's classifier of species."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_internimage import InternImageConfig
from .modeling_base import HierarchicalForImageClassification

TEMPORAL_SIZE, SPATIAL_SIZE = 4, 3
METADATA_SIZE = TEMPORAL_SIZE + SPATIAL_SIZE


def encode_metadata(
    month: int | None = None, latitude: float | None = None, longitude: float | None = None
) -> torch.Tensor:
    """Encode when and where an image was taken, for `metadata` of [`InternImageForImageClassification`].

    The authors' original takes a latitude or a longitude of exactly 0 for a missing place; here both are places.

    Args:
        month: 1 for January to 12 for December, `None` if it is not known.
        latitude: Degrees north, from -90 to 90, `None` if the place is not known.
        longitude: Degrees east, from -180 to 180, `None` if the place is not known.

    Returns:
        (7,): sine and cosine of the month as an angle, two zeros in place of the hour, without which the published
        weights were trained, and the place as a point (x, y, z) on the unit sphere. What is not known is zero.

    Raises:
        ValueError: A value is out of range, or only one of latitude and longitude is given.
    """
    if (latitude is None) != (longitude is None):
        raise ValueError(f"latitude and longitude belong together: give both or neither, got {latitude}, {longitude}")
    encoded = [0.0] * METADATA_SIZE
    if month is not None:
        if month not in range(1, 13):
            raise ValueError(f"month must be a whole number from 1 (January) to 12 (December), got {month}")
        angle = 2 * math.pi * month / 12
        encoded[:2] = math.sin(angle), math.cos(angle)
    if latitude is not None and longitude is not None:
        for name, value, limit in (("latitude", latitude, 90), ("longitude", longitude, 180)):
            if not -limit <= value <= limit:
                raise ValueError(f"{name} must be in degrees from -{limit} to {limit}, got {value}")
        phi, theta = math.radians(latitude), math.radians(longitude)
        encoded[TEMPORAL_SIZE:] = math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)
    return torch.tensor(encoded, dtype=torch.float32)


class InternImageMetadataEncoder(nn.Module):
    """Embeds the time or the place: a normalised linear layer, then a residual branch of two (`meta_head_1`, `_2`).

    Its LayerNorms have PyTorch's default epsilon, unlike all others of InternImage.
    """

    def __init__(self, in_features: int, hidden_size: int):
        super().__init__()
        self.projection = nn.Linear(in_features, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)

    def forward(self, metadata: torch.Tensor) -> torch.Tensor:
        """(batch_size, in_features) -> (batch_size, hidden_size)."""
        hidden_states = self.norm(F.relu(self.projection(metadata)))
        branch = self.norm1(F.relu(self.fc1(hidden_states)))
        return hidden_states + self.norm2(F.relu(self.fc2(branch)))


class InternImageMetadataHead(nn.Module):
    """Scores of the classes by time and place alone, which are added to those of the image."""

    def __init__(self, hidden_size: int, num_labels: int, eps: float):
        super().__init__()
        self.temporal = InternImageMetadataEncoder(TEMPORAL_SIZE, hidden_size)
        self.spatial = InternImageMetadataEncoder(SPATIAL_SIZE, hidden_size)
        self.norm = nn.LayerNorm(2 * hidden_size, eps=eps)
        self.classifier = nn.Linear(2 * hidden_size, num_labels)

    def forward(self, metadata: torch.Tensor) -> torch.Tensor:
        """(batch_size, 7), as [`encode_metadata`] gives it for each image -> (batch_size, num_labels)."""
        temporal, spatial = metadata.to(self.norm.weight.dtype).split((TEMPORAL_SIZE, SPATIAL_SIZE), dim=-1)
        return self.classifier(self.norm(torch.cat((self.temporal(temporal), self.spatial(spatial)), dim=-1)))


def metadata_head(config: InternImageConfig) -> InternImageMetadataHead | None:
    """The head that a config asks for; `None` for most models."""
    if config.metadata_hidden_size is None or config.num_labels == 0:
        return None
    return InternImageMetadataHead(config.metadata_hidden_size, config.num_labels, config.layer_norm_eps)


class MetadataForImageClassification(HierarchicalForImageClassification):
    """Base of a classifier that takes metadata too: expects `metadata_head`, which is `None` where it takes none."""

    metadata_head: InternImageMetadataHead | None

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        metadata: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutputWithNoAttention:
        """Classify a batch of images.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width) of any size.
            labels: Class indices (batch_size,), regression targets, or multi-label targets (batch_size, num_labels).
            metadata: When and where each image was taken, (batch_size, 7), from [`encode_metadata`]; zeros where it is
                not known, as by default. Only for models with `config.metadata_hidden_size`.
            output_hidden_states: Whether to return the stem's and each stage's output as `hidden_states`.
            return_dict: `False` for a tuple.

        Returns:
            `logits` (batch_size, num_labels), the `loss` if labels were given, and `hidden_states`.
        """
        if metadata is not None:
            self._check_metadata(metadata, pixel_values)
        outputs = self.base_model(pixel_values, return_dict=True, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        if self.metadata_head is not None:
            if metadata is None:
                metadata = logits.new_zeros(logits.shape[0], METADATA_SIZE)
            logits = logits + self.metadata_head(metadata)
        return self._classified(logits, labels, outputs)

    def _check_metadata(self, metadata: torch.Tensor, pixel_values: torch.Tensor | None) -> None:
        if self.metadata_head is None:
            raise ValueError("metadata: this model takes none (config.metadata_hidden_size is None), leave it out")
        batch_size = None if pixel_values is None else pixel_values.shape[0]
        if metadata.ndim != 2 or metadata.shape[1] != METADATA_SIZE or metadata.shape[0] != batch_size:
            raise ValueError(
                f"metadata: expected (batch_size, {METADATA_SIZE}) for {batch_size} images, "
                f"got {tuple(metadata.shape)}"
            )


__all__ = ["InternImageMetadataHead", "MetadataForImageClassification", "encode_metadata", "metadata_head"]
