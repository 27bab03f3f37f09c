"""Layer-wise learning-rate decay and frozen stages, as the authors of three of the families fine-tune."""

import re
from collections import defaultdict

from torch import nn


def depth_of(name: str, depths: list[int]) -> int:
    """How deep in the network a parameter lies: 0 for the embeddings, 1 for the first layer of the first stage, ...

    What leads to a stage counts with its first layer, what ends it with its last; a pooler and a head lie one deeper
    than the last layer.

    Args:
        name: Name of the parameter, in any model that has the backbone in it.
        depths: Layers in each stage.
    """
    if ".embeddings." in f".{name}":
        return 0
    match = re.search(r"encoder\.stages\.(\d+)\.(?:(downsample)|layers\.(\d+))?", name)
    if not match:
        return sum(depths) + 1
    stage, leading, layer = int(match[1]), match[2], match[3]
    within = int(layer) if layer else 0 if leading else depths[stage] - 1
    return 1 + sum(depths[:stage]) + within


def parameter_groups(
    model: nn.Module, depths: list[int], learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Groups for an optimizer: each layer learns `layer_decay` times as fast as the next deeper one.

    Vectors (biases, norms, layer scales) are not decayed.
    """
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[depth_of(name, depths), parameter.ndim > 1].append(parameter)
    deepest = sum(depths) + 1
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (deepest - depth),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in sorted(groups.items())
    ]


def freeze(model: nn.Module, depths: list[int], stages: int) -> None:
    """Keep the embeddings and the first stages as they are: their weights are not trained.

    Their BatchNorms, if they have any, still follow the batches, as they do in training.
    """
    first_trained = 1 + sum(depths[:stages]) if stages else 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depth_of(name, depths) >= first_trained)
