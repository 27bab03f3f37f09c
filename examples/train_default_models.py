"""Small models for 64-pixel photos, about equal in parameters (2.5 to 3.6 million)."""

from transformers import ConvNextConfig, IJepaConfig, PreTrainedConfig

from hf_models.configuration_convnext_dcnv4 import ConvNextDCNv4Config
from hf_models.configuration_convnext_large_kernel import ConvNextLargeKernelConfig
from hf_models.configuration_flash_internimage import FlashInternImageConfig
from hf_models.configuration_internimage import InternImageConfig
from hf_models.configuration_replknet import RepLKNetConfig
from hf_models.configuration_smt import SMTConfig
from hf_models.configuration_vit_dcnv4 import ViTDCNv4Config

# Photos of 64 pixels leave the stem as 16 x 16 positions: three stages end at 4 x 4, where a fourth would have 2 x 2.
THREE_STAGES = {"image_size": 64, "hidden_sizes": (64, 128, 256), "depths": (2, 4, 2), "drop_path_rate": 0.05}
# 16 channels a group, as in the published T models
DEFORMABLE = {"groups": (4, 8, 16), "pooler_expansion": 1.0}

# Four stages, one for each published kernel size; small patches leave their maps large enough for it.
CONVNEXT = {"image_size": 64, "patch_size": 2, "hidden_sizes": (32, 64, 128, 256), "depths": (2, 2, 6, 3)}
CONVNEXT |= {"drop_path_rate": 0.05}
LARGE_KERNELS = (31, 29, 27, 13)
# 80 pixels, as the last photos; the positions of all smaller ones are interpolated.
VIT = {"image_size": 80, "patch_size": 8, "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6}
REPLKNET = {"image_size": 64, "hidden_sizes": (40, 80, 160, 320), "depths": (2, 2, 2, 2), "drop_path_rate": 0.05}

CONFIGS: dict[str, PreTrainedConfig] = {
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
    # networks of others, as they are and with DCNv4 or large kernels
    "convnext": ConvNextConfig(**CONVNEXT),
    "convnext_dcnv4": ConvNextDCNv4Config(**CONVNEXT),
    "convnext_large_kernel": ConvNextLargeKernelConfig(**CONVNEXT, kernel_sizes=LARGE_KERNELS, small_kernel_size=5),
    "vit": IJepaConfig(**VIT, num_attention_heads=6),
    "vit_dcnv4": ViTDCNv4Config(**VIT),
    # the same network with small and with large kernels
    "replknet_3": RepLKNetConfig(**REPLKNET, kernel_sizes=(3, 3, 3, 3), small_kernel_size=None),
    "replknet_31": RepLKNetConfig(**REPLKNET, kernel_sizes=LARGE_KERNELS, small_kernel_size=5),
}
