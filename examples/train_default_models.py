"""Small variants of the four families for 64-pixel photos, about equal in parameters (2.6 to 3 million)."""

from hf_models.configuration_base import HierarchicalConfig
from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.configuration_smt import SMTConfig

# Photos of 64 pixels leave the stem as 16 x 16 positions: three stages end at 4 x 4, where a fourth would have 2 x 2.
THREE_STAGES = {"image_size": 64, "hidden_sizes": (64, 128, 256), "depths": (2, 4, 2), "drop_path_rate": 0.05}
# 16 channels a group, as in the published T models
DEFORMABLE = {"groups": (4, 8, 16), "pooler_expansion": 1.0}

CONFIGS: dict[str, HierarchicalConfig] = {
    "flash_internimage": FlashInternImageConfig(**THREE_STAGES, **DEFORMABLE),
    "internimage": InternImageConfig(**THREE_STAGES, **DEFORMABLE),
    "smt": SMTConfig(
        image_size=64,
        hidden_sizes=(40, 80, 160, 256),
        depths=(1, 1, 5, 1),
        num_attention_heads=(1, 1, 5, 8),
        mlp_ratios=(3, 3, 3, 2),
        drop_path_rate=0.05,
    ),
    "replknet": RepLKNetConfig(
        **THREE_STAGES | {"hidden_sizes": (72, 144, 288)}, kernel_sizes=(13, 7, 5), small_kernel_size=3
    ),
}
