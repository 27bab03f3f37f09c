"""What the configurations of all families share: stages of decreasing resolution, usable as a backbone."""

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from .remote_code import CodeCarrier


class StagesOfMaps:
    """Mixin of configs of stages of decreasing resolution: what these look like from outside, and checks of fields."""

    auto_classes = {
        "AutoModel": "Model",
        "AutoModelForImageClassification": "ForImageClassification",
        "AutoBackbone": "Backbone",
    }
    stem_stride = 4  # a family with another stem sets its own

    @property
    def stage_strides(self) -> list[int]:
        """Pixels between neighbouring positions, for each feature map of `stage_names`."""
        return [self.stem_stride] + [self.stem_stride * 2**stage for stage in range(len(self.depths))]

    @property
    def output_stride(self) -> int:
        """Pixels between neighbouring positions of the last feature map."""
        return self.stage_strides[-1]

    @property
    def pooled_size(self) -> int:
        """Width of the pooled features, which the classifier consumes."""
        return self.hidden_sizes[-1]

    def _check_stages(self) -> None:
        self._check_positive("num_channels", "image_size", "hidden_sizes", "depths")
        self._check_one_per_stage("hidden_sizes")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be an activation that transformers knows, got {self.hidden_act!r}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must lie in [0, 1), got {self.drop_path_rate}")

    def _check_kernel_sizes(self) -> None:
        self._check_one_per_stage("kernel_sizes")
        self._check_positive("kernel_sizes")
        small = self.small_kernel_size
        for kernel_size in self.kernel_sizes:
            if kernel_size % 2 == 0 or (small is not None and (small % 2 == 0 or small > kernel_size)):
                raise ValueError(
                    f"kernel_sizes must be odd and not below small_kernel_size ({small}), got {kernel_size}"
                )

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if min(value if isinstance(value, (list, tuple)) else [value], default=0) < 1:
                raise ValueError(f"{name} must be positive, got {value}")

    def _check_ratio(self, *names: str) -> None:
        """Widths are these times another width: above 0, and small enough that no width overflows."""
        for name in names:
            value = getattr(self, name)
            for ratio in value if isinstance(value, (list, tuple)) else [value]:
                if not 0 < ratio <= 1000:
                    raise ValueError(f"{name} must lie in (0, 1000], got {value}")

    def _check_one_per_stage(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if len(value) != len(self.depths):
                raise ValueError(
                    f"{name} must have one value for each of the {len(self.depths)} stages of depths={self.depths}, "
                    f"got {value}"
                )

    def _check_divisible(self, name: str, by: str) -> None:
        for value, divisor in zip(getattr(self, name), getattr(self, by), strict=True):
            if value % divisor:
                raise ValueError(f"{name} must be a positive multiple of {by} ({divisor}), got {value}")


@strict
class HierarchicalConfig(StagesOfMaps, CodeCarrier, BackboneConfigMixin, PreTrainedConfig):
    """Fields of every hierarchical backbone.

    Beside the fields, a config says what the model looks like: `stage_names` ("stem", "stage1", ...), `stage_strides`
    of the same length, and `output_stride`. Whatever works with any family reads these.

    Args:
        num_channels: Channels of the input image.
        image_size: Side in pixels of the images the weights were trained on. Other sizes work too.
        hidden_sizes: Channels of each stage.
        depths: Layers in each stage.
        hidden_act: Activation of the feed-forward networks.
        initializer_range: Standard deviation of the truncated normal that initialises linear weights.
        drop_path_rate: Stochastic depth of the last layer; the rate grows linearly from 0 at the first one.
        out_features: Names of the feature maps that the Backbone class returns, out of `stage_names`.
        out_indices: The same as indices into `stage_names`.
    """

    attribute_map = {"num_hidden_layers": "num_stages"}  # where `output_hidden_states=[-1]` counts from

    num_channels: int = 3
    image_size: int = 224
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    hidden_act: str = "gelu"
    initializer_range: float | int = 0.02
    drop_path_rate: float | int = 0.0
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, len(self.depths) + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)
        self._check_stages()

    @property
    def num_stages(self) -> int:
        return len(self.depths)

    def drop_path_rates(self) -> list[list[float]]:
        """Stochastic depth rate of each layer, by stage: 0 for the first layer, `drop_path_rate` for the last."""
        last = max(sum(self.depths) - 1, 1)
        rates = iter([self.drop_path_rate * i / last for i in range(sum(self.depths))])
        return [[next(rates) for _ in range(depth)] for depth in self.depths]


def map_strides(backbone_config: PreTrainedConfig) -> list[int]:
    """Pixels between neighbouring positions, for each feature map that a backbone returns, of whatever family."""
    names = backbone_config.stage_names
    # backbones of transformers have a stem of stride 4, whose resolution the first stage keeps
    stock = [4 * 2 ** max(stage - 1, 0) for stage in range(len(names))]
    strides = zip(names, getattr(backbone_config, "stage_strides", stock), strict=True)
    return [stride for name, stride in strides if name in backbone_config.out_features]
