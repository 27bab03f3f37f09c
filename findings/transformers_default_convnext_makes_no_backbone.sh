#!/usr/bin/env bash
# Backbones of ConvNeXt and FocalNet cannot be made of their own default configurations.
#
# Expected: `ConvNextBackbone(ConvNextConfig())` is ConvNeXt-T, as `ConvNextModel(ConvNextConfig())` is. Seen: the default
# of `hidden_sizes` (`embed_dim` in FocalNet) has become a tuple, which the backbone adds to a list: a TypeError.
# A configuration that was saved and loaded again has lists, so that checkpoints do not show it. ResNet, Swin and
# DINOv3's ConvNeXt have no such fault.
# Who meets it: whoever trains a backbone from scratch, or builds a small one for a test, under UperNet or a detector.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import transformers
from transformers import ConvNextBackbone, ConvNextConfig, ConvNextModel, ConvNextV2Backbone, ConvNextV2Config
from transformers import FocalNetBackbone, FocalNetConfig, ResNetBackbone, ResNetConfig


def outcome(model_class, config):
    try:
        model_class(config)
    except TypeError as error:
        return f"TypeError: {error}"
    return "made"


print("transformers", transformers.__version__)
for model_class, config in ((ConvNextModel, ConvNextConfig()), (ResNetBackbone, ResNetConfig())):
    print(f"{model_class.__name__}: {(seen := outcome(model_class, config))}")
    assert seen == "made"
for model_class, config_class in (
    (ConvNextBackbone, ConvNextConfig),
    (ConvNextV2Backbone, ConvNextV2Config),
    (FocalNetBackbone, FocalNetConfig),
):
    print(f"{model_class.__name__}: expected made, seen {(seen := outcome(model_class, config_class()))}")
    assert seen.startswith("TypeError"), "it has changed"
config = ConvNextConfig()
config.hidden_sizes = list(config.hidden_sizes)
assert outcome(ConvNextBackbone, config) == "made"
PYTHON
