"""Layer-wise learning-rate decay and frozen stages, as the authors of three of the families fine-tune."""

import re
from collections import defaultdict

from transformers import PreTrainedModel

from hf_models.errors import InputError

# a stage, and what of it; CB-InternImage has a lead and an assistant, and links that lead to the stages of the lead
STAGE = re.compile(
    r"(?:(?:encoder|lead|assistant|model)\.stages|encoder\.(?P<link>links|scales))\.(?P<stage>\d+)\."
    r"(?:layers\.(?P<layer>\d+)|(?P<downsampling>downsampl))?"
)
VIT_LAYER = re.compile(r"^\w+\.layers\.(?P<stage>\d+)\.")


class Depths:
    """How deep in the network the parameters of a model lie.

    0 stands for the embeddings, 1 for the first layer of the first stage, and so on. What leads to a stage counts with
    its first layer, what ends it with its last; a pooler and a head lie one deeper than the last layer. In a ViT each
    layer is a stage.

    Attributes:
        of: Name of a parameter -> its depth.
        stages: Layers in each stage.
        deepest: Depth of the head.
        known: Whether every layer was found.
    """

    def __init__(self, model: PreTrainedModel):
        config = getattr(model.config, "backbone_config", None) or model.config
        depths = getattr(config, "depths", None)
        self.place = STAGE if depths else VIT_LAYER
        self.stages = depths or [1] * getattr(config, "num_hidden_layers", 0)
        self.deepest = sum(self.stages) + 1
        self.of = {name: self._depth(name) for name, _ in model.named_parameters()}
        self.known = bool(self.stages) and set(range(1, self.deepest)) <= set(self.of.values())

    def _depth(self, name: str) -> int:
        if ".embeddings." in f".{name}":
            return 0
        match = self.place.search(name)
        if not match:
            return self.deepest
        part = match.groupdict()
        stage, layer, leading = int(part["stage"]), part.get("layer"), part.get("link") or part.get("downsampling")
        within = int(layer) if layer else 0 if leading else self.stages[stage] - 1
        return 1 + sum(self.stages[:stage]) + within


def prepare(
    model: PreTrainedModel, learning_rate: float, weight_decay: float, layer_decay: float, freeze_stages: int
) -> list[dict]:
    """Keep the embeddings and the first stages as they are, and group the other parameters for an optimizer.

    BatchNorms of what is frozen, if there are any, still follow the batches, as they do in training.

    Args:
        model: Its parameters that are frozen no longer require gradients.
        learning_rate: That of the head; each layer learns `layer_decay` times as fast as the next deeper one.
        weight_decay: Of all but vectors (biases, norms, layer scales).
        freeze_stages: How many.

    Raises:
        InputError: The model has no stages that are known here, and one of the last two asks for them.
    """
    depths = Depths(model)
    if (layer_decay != 1 or freeze_stages) and not depths.known:
        raise InputError(
            f"--layer-decay, --freeze-stages: {type(model).__name__} has no stages that are known. Leave them out."
        )
    first_trained = 1 + sum(depths.stages[:freeze_stages]) if freeze_stages else 0
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        depth = depths.of[name]
        parameter.requires_grad_(depth >= first_trained)
        if parameter.requires_grad:
            groups[depth, parameter.ndim > 1].append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (depths.deepest - depth),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in sorted(groups.items())
    ]
