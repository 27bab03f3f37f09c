#!/usr/bin/env bash
# torch.fx.experimental.optimization.fuse folds two batch norms into one convolution that both of them follow.
#
# Expected: a convolution that is called on several feature levels, each with a batch norm of its own (the heads of
# EfficientDet and RTMDet), is left alone, or copied. Seen: both norms are folded into the one weight, without a
# word, and both outputs are wrong.
# Who meets it: whoever folds norms for inference by the helper that torch.fx brings along.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
from torch.fx.experimental.optimization import fuse

torch.manual_seed(0)


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(4) for _ in range(2))
        for norm in self.norms:
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, fine, coarse):
        return self.norms[0](self.shared(fine)), self.norms[1](self.shared(coarse))


head = Head().eval()
levels = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)
errors = [(a - b).abs().max().item() for a, b in zip(head(*levels), fuse(head)(*levels), strict=True)]
print("torch", torch.__version__)
print("expected: differences of rounding, below 1e-5")
print("seen: largest difference of each level", [round(error, 2) for error in errors])
assert min(errors) > 0.1, "the fused model is right now"
PYTHON
