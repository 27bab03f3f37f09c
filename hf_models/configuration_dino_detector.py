"""Configuration of DINO, a detector with a transformer on any backbone (https://arxiv.org/abs/2203.03605)."""

from huggingface_hub.dataclasses import strict

from .configuration_backbone_head import BackboneHeadConfig
from .configuration_internimage import InternImageConfig


@strict
class DinoDetectorConfig(BackboneHeadConfig):
    """Configuration of [`DinoDetectorForObjectDetection`]. Fields are named as in `DeformableDetrConfig`, and those of
    denoising as in `RTDetrConfig`.

    Args:
        backbone_config: Config of the backbone, InternImage-T by default; its `out_features` are the first levels.
        d_model: Width of the transformer.
        encoder_layers: Layers of the encoder.
        encoder_attention_heads: Heads of the encoder's deformable attention.
        encoder_ffn_dim: Width of the encoder's feed-forward networks.
        decoder_layers: Layers of the decoder.
        decoder_attention_heads: Heads of the decoder's two attentions.
        decoder_ffn_dim: Width of the decoder's feed-forward networks.
        num_queries: Boxes that the decoder refines.
        num_feature_levels: Feature maps that the transformer sees: the backbone's, then each at half the resolution
            of the one before.
        group_norm_groups: Groups of the norms that follow the projections of the feature maps.
        max_detections: Detections returned for each image. One box may be returned under several classes.
        num_denoising: Queries of known objects in training, of each of the two kinds, for the image with the most
            objects; at least one for each of its objects. Without any if 0.
        label_noise_ratio: Twice the probability that such a query gets a random class.
        box_noise_scale: How far an edge of its box moves at most, in halves of the side; from that on, and up to
            twice as far, in queries that are to find nothing.
        class_cost: What a wrong class counts when objects are matched with queries.
        bbox_cost: What the distance of the boxes counts there.
        giou_cost: What their overlap counts there.
        bbox_loss_coefficient: What the distance of the boxes counts in the loss, where the class counts 1.
        giou_loss_coefficient: What their overlap counts in the loss.
        focal_alpha: Weight of the class that an object has, against those that it has not.
    """

    model_type = "dino_detector"
    auto_classes = {"AutoModelForObjectDetection": "ForObjectDetection"}
    default_backbone = InternImageConfig
    default_stages = slice(-3, None)
    attribute_map = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}

    # The layers of transformers ask for these too. They are the same in every published DINO.
    activation_function = "relu"
    dropout = attention_dropout = activation_dropout = 0.0
    encoder_n_points = decoder_n_points = 4
    disable_custom_kernels = False

    d_model: int = 256
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 2048
    num_queries: int = 900
    num_feature_levels: int = 4
    group_norm_groups: int = 32
    max_detections: int = 300
    num_denoising: int = 100
    label_noise_ratio: float | int = 0.5
    box_noise_scale: float | int = 1.0
    class_cost: float | int = 2.0
    bbox_cost: float | int = 5.0
    giou_cost: float | int = 2.0
    bbox_loss_coefficient: float | int = 5.0
    giou_loss_coefficient: float | int = 2.0
    focal_alpha: float | int = 0.25

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.max_detections > self.num_queries * self.num_labels:
            raise ValueError(
                f"max_detections must be at most {self.num_queries} queries times {self.num_labels} classes, "
                f"got {self.max_detections}"
            )
        if self.num_denoising < 0:
            raise ValueError(f"num_denoising must not be negative, got {self.num_denoising}")


__all__ = ["DinoDetectorConfig"]
