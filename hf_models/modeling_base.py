"""What the models of all families share: embeddings -> encoder (stages) -> pooler -> classifier.

A family writes its embeddings, its stages and its pooler; the classes here turn them into what transformers users
expect. Every feature map travels as (batch_size, channels, height, width), laid out channels-last.
"""

from functools import partial

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_base import HierarchicalConfig
from .input_channels import check_images
from .int8_quantizer import register_quantizer
from .layers import LayerScale, channels_last, initialize_linear
from .saved_weights import OneSetOfWeights
from .sharding import Shardable


class HierarchicalStage(nn.Module):
    """Base of the stages, whose outputs `output_hidden_states` records."""


class HierarchicalEncoder(nn.Module):
    """Runs the stages one after the other and keeps the output of each."""

    def __init__(self, stages: list[nn.Module]):
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Takes the stem's output (batch_size, channels, height, width); returns it and the output of each stage."""
        feature_maps = (hidden_states,)
        for stage in self.stages:
            hidden_states = stage(hidden_states)
            feature_maps += (hidden_states,)
        return feature_maps


class HierarchicalPreTrainedModel(Shardable, OneSetOfWeights, PreTrainedModel):
    """Weight handling of all families; a family adds its config class, prefix and initialisation."""

    config: HierarchicalConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": HierarchicalStage}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal for linear layers, PyTorch's default for convolutions, ones and zeros for norms.

        Layers that start differently say so themselves, see `layers.starting_with`.
        """
        if hasattr(module, "initialize_weight"):
            initialize_linear(module, module.initialize_weight)
        elif isinstance(module, nn.Linear):
            initialize_linear(module, partial(init.trunc_normal_, std=self.config.initializer_range))
        elif isinstance(module, nn.Conv2d):
            module.reset_parameters()
        elif isinstance(module, LayerScale):
            init.constant_(module.scale, module.initial_value)
        else:
            super()._init_weights(module)

    def _feature_maps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        check_images(pixel_values, self.config.num_channels)
        weight = next(self.embeddings.parameters())
        return self.encoder(self.embeddings(channels_last(pixel_values.to(weight.dtype))))


class HierarchicalModel(HierarchicalPreTrainedModel):
    """Base of `<Family>Model`: sets no module itself, expects `embeddings`, `encoder` and `pooler`."""

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Compute the features of a batch of images.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width) of any size.
            output_hidden_states: Whether to return the stem's and each stage's output as `hidden_states`.
            return_dict: `False` for a tuple.

        Returns:
            `last_hidden_state` (batch_size, hidden_sizes[-1], height / stride, width / stride), where the stride is
            `config.output_stride`; `pooler_output` (batch_size, pooled_size), which the classifier consumes; and
            `hidden_states`.
        """
        feature_maps = self._feature_maps(pixel_values)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=feature_maps[-1],
            pooler_output=self.pooler(feature_maps),
        )


class HierarchicalForImageClassification(HierarchicalPreTrainedModel):
    """Base of `<Family>ForImageClassification`: sets no module itself, expects the base model and `classifier`."""

    accepts_loss_kwargs = False

    def __init__(self, config: HierarchicalConfig):
        super().__init__(config)
        self.num_labels = config.num_labels

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutputWithNoAttention:
        """Classify a batch of images.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width) of any size.
            labels: Class indices (batch_size,), regression targets, or multi-label targets (batch_size, num_labels).
            output_hidden_states: Whether to return the stem's and each stage's output as `hidden_states`.
            return_dict: `False` for a tuple.

        Returns:
            `logits` (batch_size, num_labels), the `loss` if labels were given, and `hidden_states`.
        """
        outputs = self.base_model(pixel_values, return_dict=True, **kwargs)
        return self._classified(self.classifier(outputs.pooler_output), labels, outputs)

    def _classified(
        self, logits: torch.Tensor, labels: torch.Tensor | None, outputs: BaseModelOutputWithPoolingAndNoAttention
    ) -> ImageClassifierOutputWithNoAttention:
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class HierarchicalBackbone(BackboneMixin, HierarchicalPreTrainedModel):
    """Base of `<Family>Backbone`: the feature maps of the chosen stages, for detection and segmentation heads."""

    has_attentions = False
    _keys_to_ignore_on_load_unexpected = [r"(^|\.)pooler\.", r"^classifier\.", r"^metadata_head\."]  # a classifier's

    def __init__(self, config: HierarchicalConfig):
        super().__init__(config)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.feature_norms = nn.ModuleDict()  # name of a feature map -> its norm, in a family that has them

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Compute feature maps.

        Args:
            pixel_values: Normalised images (batch_size, num_channels, height, width) of any size.
            output_hidden_states: Whether to return the stem's and each stage's output as `hidden_states`.
            return_dict: `False` for a tuple.

        Returns:
            `feature_maps`: one (batch_size, channels, height / stride, width / stride) for each of `out_features`,
            with the strides of `config.stage_strides`.
        """
        hidden_states = self._feature_maps(pixel_values)
        feature_maps = tuple(
            self.feature_norms[name](feature_map) if name in self.feature_norms else feature_map
            for name, feature_map in zip(self.stage_names, hidden_states, strict=True)
            if name in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps)


register_quantizer()
