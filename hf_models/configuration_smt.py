"""SMT configuration (Scale-Aware Modulation Meet Transformer, https://arxiv.org/abs/2307.08579). Defaults: SMT-T."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .configuration_base import HierarchicalConfig

StageType = Literal["modulation", "alternating", "attention"]


@strict
class SMTConfig(HierarchicalConfig):
    """Configuration of [`SMTModel`]; shared fields are described in [`HierarchicalConfig`].

    Args:
        stage_types: Token mixer of each stage: scale-aware `"modulation"`, multi-head self-`"attention"`, or the two
            `"alternating"`, modulation first (the paper's evolutionary hybrid network).
        num_modulation_heads: Heads of the modulation; head i is a depthwise convolution with kernel 3 + 2 i.
        num_attention_heads: Attention heads of each stage; unused where a stage has no attention.
        expand_ratio: Width of the scale-aware aggregation relative to its stage.
        mlp_ratios: Width of the feed-forward network relative to each stage.
        stem_kernel_size: Kernel of the first convolution.
        qkv_bias: Whether the query, key and value (and the modulation's value and context) projections have a bias.
        layer_scale_init_value: Initial layer scale; `None` for layers without one.
        hidden_dropout_prob: Dropout after each projection and in the feed-forward network.
        attention_probs_dropout_prob: Dropout on the attention weights.
        layer_norm_eps: Epsilon of the LayerNorms in layers and at the end of stages.
        embedding_norm_eps: Epsilon of the LayerNorms in the stem and the patch embeddings between stages.
        batch_norm_eps: Epsilon of every BatchNorm.
    """

    model_type = "smt"

    depths: list[int] | tuple[int, ...] = (2, 2, 8, 1)
    stage_types: list[StageType] | tuple[StageType, ...] = ("modulation", "modulation", "alternating", "attention")
    num_modulation_heads: int = 4
    num_attention_heads: list[int] | tuple[int, ...] = (1, 1, 8, 16)
    expand_ratio: int = 2
    mlp_ratios: list[float | int] | tuple[float | int, ...] = (4, 4, 4, 2)
    stem_kernel_size: int = 3
    qkv_bias: bool = True
    layer_scale_init_value: float | int | None = None
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float | int = 1e-6
    embedding_norm_eps: float | int = 1e-5
    batch_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check_one_per_stage("stage_types", "num_attention_heads", "mlp_ratios")
        self._check_positive("num_modulation_heads", "num_attention_heads", "expand_ratio", "stem_kernel_size")
        self._check_ratio("mlp_ratios")
        self._check_divisible("hidden_sizes", by="num_attention_heads")
        for hidden_size in self.hidden_sizes:
            if hidden_size % self.num_modulation_heads:
                raise ValueError(
                    f"hidden_sizes must be multiples of num_modulation_heads ({self.num_modulation_heads}), "
                    f"got {hidden_size}"
                )

    def layer_uses_attention(self, stage: int, layer: int) -> bool:
        """Whether a layer mixes tokens by attention rather than by modulation."""
        stage_type = self.stage_types[stage]
        return stage_type == "attention" or (stage_type == "alternating" and layer % 2 == 1)


__all__ = ["SMTConfig"]
