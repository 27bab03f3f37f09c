"""Change the layers of a model in place, and its class where transformers is to save and load it."""

from collections.abc import Sequence
from itertools import groupby

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..adopted_layers import (
    attentions,
    depthwise_convs,
    output_projection,
    use_attention_dcnv4,
    use_depthwise_dcnv4,
    use_large_kernels,
)
from ..auto import BACKBONES, FAMILIES
from ..errors import InputError


def adopt_large_kernels(model: nn.Module, kernel_sizes: Sequence[int] = (31, 29, 27, 13)) -> nn.Module:
    """Enlarge the depthwise convolutions of a model in place, without changing what it computes.

    The kernels get a margin of zeros, so that a trained model keeps its accuracy, and fine-tuning can fill the margin
    (RepLKNet, https://arxiv.org/abs/2203.06717, section 5.3, where ConvNeXt is trained so from scratch).

    Args:
        model: A ConvNeXt, ConvNeXt V2 or ConvNeXt of DINOv3 of transformers, or a model of transformers with such a
            backbone. It gets the class and the config under which it is saved and loaded again. Or any other module,
            such as a ConvNeXt of timm, whose depthwise convolutions that keep the size of the map are replaced; to
            save it is up to its library.
        kernel_sizes: For each stage, or each width of depthwise convolutions.

    Returns:
        The model itself.

    Raises:
        InputError: The model has no such layers, or a kernel is even or smaller than the present one.
    """
    name, sizes = type(model).__name__, list(kernel_sizes)
    ours = _in_transformers(model, "kernel_sizes")
    convs = list(depthwise_convs(ours or model).values())
    if not convs:
        raise InputError(f"{name}: no depthwise convolutions that keep the size of the map. Give a network with some.")
    if ours:
        counts, stages = list(ours.config.depths), "stages"
    else:
        runs = [[*run] for _, run in groupby(convs, key=lambda conv: conv.in_channels)]
        counts = [len(run) for run in runs]
        stages = f"widths of depthwise convolutions ({', '.join(str(run[0].in_channels) for run in runs)})"
    if len(sizes) != len(counts):
        raise InputError(f"kernel_sizes: expected one for each of the {len(counts)} {stages} of {name}, got {sizes}.")
    each = [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]
    for conv, size in zip(convs, each, strict=True):
        if size % 2 == 0 or size < max(conv.kernel_size):
            raise InputError(f"kernel_sizes: expected odd ones from {max(conv.kernel_size)} for {name}, got {size}.")
    if ours:
        _become(model, ours, kernel_sizes=sizes)
    else:
        use_large_kernels(model, each)
    return model


def adopt_dcnv4(model: nn.Module, group_width: int = 32) -> nn.Module:
    """Put DCNv4 in the place of the depthwise convolutions of a ConvNeXt, or of the attention of a ViT.

    As in the DCNv4 paper (https://arxiv.org/abs/2401.06197, section 4.4). The new layers have weights to be trained:
    they begin with an average of 3x3 positions, and the model computes something else than before.

    Args:
        model: A ConvNeXt as for [`adopt_large_kernels`]; an I-JEPA of transformers, which is a ViT without class
            token; or any other module, such as one of timm: a ViT without class token, which then takes square images
            only, or a network with depthwise convolutions that keep the size of the map.
        group_width: Channels of each aggregation group; divides the width of every layer.

    Returns:
        The model itself.

    Raises:
        InputError: The model has no such layers, or tokens that are no place of the image, or `group_width` does not
            fit.
    """
    name = type(model).__name__
    if prefix := _prefix_tokens(model):
        raise InputError(
            f"{name}: has {prefix}, and DCNv4 needs a map with a place for every token. Take a ViT without it; "
            "`drop_class_token` makes one of a ViT of transformers."
        )
    ours = _in_transformers(model, "group_width")
    network = ours or model
    convs = depthwise_convs(network)
    widths = {conv.in_channels for conv in convs.values()} or {
        output_projection(attention).out_features for attention in attentions(network).values()
    }
    if not widths:
        raise InputError(
            f"{name}: neither depthwise convolutions that keep the size of the map nor a ViT's attention."
        )
    if group_width < 1 or any(width % group_width for width in widths):
        raise InputError(f"group_width: expected a divisor of {_list(sorted(widths))} for {name}, got {group_width}.")
    if ours:
        _become(model, ours, group_width=group_width)
    elif convs:
        use_depthwise_dcnv4(model, group_width)
    else:
        use_attention_dcnv4(model, group_width)
    return model


def _prefix_tokens(model: nn.Module) -> str | None:
    """Tokens that stand before those of the patches."""
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    found = {"cls_token": "a class token", "class_token": "a class token", "reg_token": "register tokens"}
    return next((title for name, title in found.items() if name in names), None)


def _in_transformers(model: nn.Module, field: str) -> PreTrainedModel | None:
    """The part of a model of transformers that a family here can take the place of; `None` for other modules.

    Args:
        field: That the family's config has.

    Raises:
        InputError: It is of transformers, and has no such part.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    if _counterpart(model, field):
        return model
    if hasattr(model.config, "backbone_config"):
        backbones = (module for module in model.modules() if isinstance(module, PreTrainedModel))
        if found := next((backbone for backbone in backbones if _counterpart(backbone, field)), None):
            return found
    families = (_stock_classes(config, field) for config, *_ in [*FAMILIES, *BACKBONES])
    known = _list(stock.__name__ for classes in families for stock in classes if stock)
    raise InputError(f"{type(model).__name__}: none of those that can be changed: {known}.")


def _counterpart(model: PreTrainedModel, field: str) -> type[PreTrainedModel] | None:
    """The class of a family that takes the place of a stock class."""
    for config, *classes in [*FAMILIES, *BACKBONES]:
        stock = _stock_classes(config, field)
        if type(model) in stock:
            return classes[stock.index(type(model))]
    return None


def _stock_classes(config: type[PreTrainedConfig], field: str) -> list[type[PreTrainedModel] | None]:
    """The classes of transformers on which those of a family are built, in its order; none for other families.

    The Backbone of a ViT is built on none.
    """
    if not hasattr(config, field) or not (stock := [base for base in config.__mro__ if _is_stock(base)]):
        return []
    classes = (getattr(transformers, auto_class)._model_mapping for auto_class in config.auto_classes)
    return [mapping.get(stock[0], None) for mapping in classes]


def _is_stock(config: type) -> bool:
    return config.__module__.startswith("transformers.models.")


def _become(model: PreTrainedModel, part: PreTrainedModel, **fields) -> None:
    """Give a part of a model, or the whole, the class of its family, with these fields in its config."""
    (field,) = fields
    family = _counterpart(part, field)
    values = part.config.to_dict()
    del values["model_type"]
    config = family.config_class.from_dict(values | fields)
    with torch.device("meta"):
        built = family(config)
    for name, module in built.named_modules():
        if isinstance(module, PreTrainedModel):
            ours = part.get_submodule(name)
            ours.__class__, ours.config = type(module), config
    part.change_layers()
    if part is not model:
        model.config.backbone_config = config


def _list(values) -> str:
    return ", ".join(map(str, values))
