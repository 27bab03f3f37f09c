#!/usr/bin/env bash
# A LoRA adapter of a network with batch norm is not the model that was trained.
#
# Expected: base weights are frozen, so base + saved adapter = trained model, and disabling the adapter gives the
# base back. Seen: in training mode the base's batch norms go on collecting statistics; the adapter does not hold
# them, so the reloaded model gives other logits, and the base inside the trained model is no longer the base.
# Who meets it: LoRA on ResNet, RepLKNet, EfficientNet; the cure is to put the norms into evaluation, or into
# modules_to_save.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import peft
import torch
import transformers
from transformers import ResNetConfig, ResNetForImageClassification

torch.manual_seed(0)
config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
base = ResNetForImageClassification(config).eval()
base.save_pretrained("base")
lora = peft.LoraConfig(target_modules=["convolution"], modules_to_save=["classifier.1"])
trained = peft.get_peft_model(ResNetForImageClassification.from_pretrained("base"), lora).train()
optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], 1e-3)
for _ in range(20):
    images, labels = 2 * torch.randn(8, 3, 32, 32) + 1, torch.randint(0, 3, (8,))
    trained(pixel_values=images, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
trained.eval().save_pretrained("adapter")
loaded = peft.PeftModel.from_pretrained(ResNetForImageClassification.from_pretrained("base"), "adapter").eval()
with torch.no_grad():
    trained_logits = trained(pixel_values=images).logits
    after_loading = (loaded(pixel_values=images).logits - trained_logits).abs().max().item()
    with trained.disable_adapter():
        without = (trained(pixel_values=images).logits - base(pixel_values=images).logits).abs().max().item()
print("peft", peft.__version__, "transformers", transformers.__version__)
print("expected: both differences 0")
largest = trained_logits.abs().max().item()
print(f"seen: reloaded {after_loading:.2f}, adapter disabled {without:.2f}, at logits up to {largest:.2f}")
assert after_loading > 0.1 and without > 0.1, "statistics are kept now"
PYTHON
