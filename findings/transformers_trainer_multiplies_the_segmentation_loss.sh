#!/usr/bin/env bash
# Trainer with gradient accumulation does not divide the loss of SegFormer or UperNet by the number of steps.
#
# Expected: one batch of four images and four batches of one give the same loss and gradient. Seen: Trainer takes the
# **kwargs of the model's forward as a sign that the model divides its loss itself; these two models do not,
# so four steps log four times the loss and give a gradient several times as large (not four times exactly, as the
# head has a batch norm). Classifiers are right: ConvNeXt says so in an attribute, ViT divides.
# Who meets it: fine-tuning SegFormer or UperNet with gradient_accumulation_steps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import warnings

import torch
import transformers
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

warnings.simplefilter("ignore")


def first_step(batch, accumulation):
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=3,
        hidden_sizes=[8] * 4,
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=8,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    arguments = TrainingArguments(
        "out",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    images = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.randint(0, 3, (32, 32))} for _ in range(4)]
    trainer = Trainer(SegformerForSemanticSegmentation(config), arguments, train_dataset=images)
    trainer.train()
    return trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]


whole, split = first_step(4, 1), first_step(1, 4)
print("transformers", transformers.__version__)
print("expected: the same loss and about the same norm of the gradient")
print(f"seen: loss {whole[0]:.3f} and {split[0]:.3f}, norm {whole[1]:.3f} and {split[1]:.3f}")
assert abs(split[0] / whole[0] - 4) < 0.1 and split[1] / whole[1] > 2.5, "accumulation has changed"
PYTHON
