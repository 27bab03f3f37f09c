"""The optimiser of `train_default.py`: Muon for the matrices inside the network, AdamW for all other weights."""

import torch
from torch import nn

WEIGHT_DECAY = 0.05
MUON_FACTOR = 2  # Muon's learning rate as a multiple of AdamW's


class MuonWithAdamW:
    """Muon (https://arxiv.org/abs/2502.16982) for linear layers and dense convolutions, AdamW for the rest.

    AdamW keeps the classifier, the convolution that sees the image, depthwise convolutions, positions, biases and
    norms; biases and norms do not decay. To Muon a convolution (out, in, height, width) is a matrix with `out` rows.
    """

    def __init__(self, model: nn.Module):
        named = dict(model.named_parameters())
        self.parameters = {
            name: parameter
            for name, parameter in named.items()
            if parameter.ndim > 1 and min(parameter.shape[:2]) > 3 and not name.startswith("classifier")
        }
        others = [parameter for name, parameter in named.items() if name not in self.parameters]
        # views of the same memory, which Muon writes to
        self.matrices = {name: parameter.detach().flatten(1) for name, parameter in self.parameters.items()}
        self.muon = torch.optim.Muon(self.matrices.values(), weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
        groups = [
            {"params": [parameter for parameter in others if parameter.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [parameter for parameter in others if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)

    def step(self, learning_rate: float) -> None:
        for optimizer, factor in ((self.muon, MUON_FACTOR), (self.adamw, 1)):
            for group in optimizer.param_groups:
                group["lr"] = factor * learning_rate
        for name, matrix in self.matrices.items():
            matrix.grad = self.parameters[name].grad.flatten(1)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, dict]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
