#!/usr/bin/env bash
# AutoBackbone loads no backbone from a folder.
#
# Expected: `AutoBackbone.from_pretrained(FOLDER)` loads what `save_pretrained(FOLDER)` wrote, as every other Auto class
# does and as the backbone's own class does. Seen: before it looks at the folder, it asks the Hub whether there is a
# repository of that name, to tell ids of the Hub from names of timm. A path is no valid name, so that it raises an
# HFValidationError, also when it is offline and the folder is complete.
# Who meets it: whoever saves a fine-tuned backbone and loads it for a detector or a segmentation model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PYTHON'
import os

import transformers
from transformers import AutoBackbone, AutoConfig, AutoModel, ConvNextBackbone, ConvNextConfig

config = ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
ConvNextBackbone(config).save_pretrained("backbone")
path = os.path.abspath("backbone")
print("transformers", transformers.__version__)
for auto_class in (AutoConfig, AutoModel, ConvNextBackbone):
    print(f"{auto_class.__name__}: {type(auto_class.from_pretrained(path)).__name__}")
try:
    seen = type(AutoBackbone.from_pretrained(path)).__name__
except Exception as error:
    seen = type(error).__name__
print("AutoBackbone: expected ConvNextBackbone, seen", seen)
assert seen == "HFValidationError", "it has changed"
PYTHON
