"""A ViT without class token from one with it."""

import torch
from transformers import IJepaConfig, IJepaForImageClassification, IJepaModel, ViTForImageClassification, ViTModel

from ..errors import InputError

COUNTERPARTS = {ViTModel: IJepaModel, ViTForImageClassification: IJepaForImageClassification}
LOST = ("cls_token", "mask_token", "pooler")


def drop_class_token(vit: ViTModel | ViTForImageClassification) -> IJepaModel | IJepaForImageClassification:
    """A ViT that classifies by the average of its patches, with a copy of the weights of one with a class token.

    It is transformers' I-JEPA, and takes [`adopt_dcnv4`]. Its classifier has seen the class token and not the average,
    so it has to be trained.

    Raises:
        InputError: It is no ViT of transformers.
    """
    if type(vit) not in COUNTERPARTS:
        known = " or ".join(stock.__name__ for stock in COUNTERPARTS)
        raise InputError(f"{type(vit).__name__}: cannot lose its class token. Give a {known}.")
    fields = vit.config.to_dict()
    config = IJepaConfig.from_dict({name: fields[name] for name in fields if name in vars(IJepaConfig())})
    with torch.device("meta"):
        model = COUNTERPARTS[type(vit)](config)
    state = {}
    for name, tensor in vit.state_dict().items():
        if name.endswith("position_embeddings"):
            tensor = tensor[:, 1:]  # (1, 1 + patches, hidden_size), the class token's first
        if not any(part in LOST for part in name.split(".")):
            state[name.replace("vit.", "ijepa.", 1)] = tensor.clone()
    model.load_state_dict(state, assign=True)
    return model.train(vit.training)
