"""What accelerate asks of a model that it divides among GPUs by FSDP2; transformers answers for its text models."""

from torch import nn


class Shardable:
    """Mixin of models, before a class of transformers."""

    def post_init(self) -> None:
        """As in [`PreTrainedModel`]; of the classes whose modules are not to be split, those that this model has."""
        super().post_init()
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    def get_input_embeddings(self) -> nn.Module | None:
        """Where images come in, in the model or in its backbone; `None` where that is no module of its own."""
        return next((module for name, module in self.named_modules() if f".{name}".endswith(".embeddings")), None)
