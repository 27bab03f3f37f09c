"""Models of transformers on the backbones here, in repositories that carry their code.

transformers knows DETR, UperNet or Mask2Former, but not the backbones that their configs name. The `auto_map` of such
a repository leads here, so that the backbones are registered before the config is read. The classes, such as
`HubDetrConfig` and `HubDetrForObjectDetection`, add nothing; there have to be some because transformers saves the code
of what it loaded in this way, which it cannot do with its own classes. Each is made when it is asked for.
"""

import transformers
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, PreTrainedModel

from .auto import register_families

register_families(replace=False)

PREFIX = "Hub"


def __getattr__(name: str) -> type:
    """`Hub<class of transformers>`, a subclass that adds nothing."""
    stock = getattr(transformers, name.removeprefix(PREFIX), None) if name.startswith(PREFIX) else None
    if not isinstance(stock, type) or not issubclass(stock, (PreTrainedConfig, PreTrainedModel)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    members = {"__module__": __name__, "__doc__": f"`{stock.__name__}`, with its code."}
    if issubclass(stock, PreTrainedModel):
        config = _class(PREFIX + stock.config_class.__name__)
        members |= {"__annotations__": {"config": config}, "config_class": config}
        made = type(name, (stock,), members)
    else:
        made = strict(type(name, (stock,), members))
    globals()[name] = made
    return made


def _class(name: str) -> type:
    return globals().get(name) or __getattr__(name)
