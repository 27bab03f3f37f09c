#!/usr/bin/env bash
# torch's FlopCounterMode counts no operation at all for fused attention on a CPU.
#
# Expected: scaled_dot_product_attention costs its two matrix products, as the counter has it for the fused kernels
# of GPUs, and a count does not depend on no_grad. Seen: 0 for the fused call; nn.MultiheadAttention falls to 0 as
# well once gradients are off.
# Who meets it: tables of FLOPs of transformers, made on a laptop or in CI beside those of convolutional backbones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode

q = torch.randn(1, 2, 16, 8)
layer, tokens = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


products = flops(lambda: (q @ q.transpose(-1, -2)).softmax(-1) @ q)
fused = flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
with_grad = flops(lambda: layer(tokens, tokens, tokens))
with torch.no_grad():
    without_grad = flops(lambda: layer(tokens, tokens, tokens))
print("torch", torch.__version__)
print(f"expected: fused attention {products}, MultiheadAttention the same with and without gradients")
print(f"seen: fused attention {fused}; MultiheadAttention {with_grad} with and {without_grad} without gradients")
assert products == 16384 and fused == 0 and with_grad > 0 and without_grad == 0, "the count has changed"
PYTHON
