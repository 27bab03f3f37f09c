"""What configs of transformers' ConvNeXts with other layers share: mixins that come before a stock config."""

from .configuration_base import StagesOfMaps
from .remote_code import CodeCarrier


class AdoptedStages(StagesOfMaps, CodeCarrier):
    """Mixin for a config of transformers with `depths` and `hidden_sizes`, which comes last."""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)  # transformers adds lists to them
        self._check_stages()
        if self.num_stages != len(self.depths):
            raise ValueError(f"num_stages must be the number of depths={self.depths}, got {self.num_stages}")


class LargeKernels(AdoptedStages):
    """Large depthwise kernels; the config has the fields `kernel_sizes` and `small_kernel_size`."""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check_kernel_sizes()

    def size_of_each_kernel(self) -> list[int]:
        """The kernel size of every layer, in order."""
        return [size for size, depth in zip(self.kernel_sizes, self.depths, strict=True) for _ in range(depth)]


class GroupsOfWidth(AdoptedStages):
    """DCNv4 in place of the depthwise convolutions; the config has the field `group_width`."""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        check_group_width(self.group_width, hidden_sizes=self.hidden_sizes)


def check_group_width(group_width: int, **widths: list[int]) -> None:
    """Refuse groups of a width that does not divide that of a layer."""
    ((name, values),) = widths.items()
    if group_width < 1 or any(value % group_width for value in values):
        raise ValueError(f"group_width must divide {name}={values}, got {group_width}")
