#!/usr/bin/env bash
# The pipeline for image segmentation does not load models that are registered for instance segmentation.
#
# Expected: `pipeline("image-segmentation", model=FOLDER)` finds a model of one's own that
# `AutoModelForInstanceSegmentation` loads, as the pipeline segments instances and takes such a model object. Seen: it
# asks two other Auto classes only, and raises a ValueError. Models of transformers do not show it: the pipeline finds
# them by the `architectures` of their config, which it looks up inside transformers alone.
# Who meets it: authors of segmentation models whose code is not part of transformers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 pillow==13.0.0
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForInstanceSegmentation, MaskFormerImageProcessorPil, pipeline
from transformers import PreTrainedConfig, PreTrainedModel


class ToyConfig(PreTrainedConfig):
    model_type = "toy"


class ToyForInstanceSegmentation(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Linear(1, 1)
        self.post_init()

    def forward(self, pixel_values):
        return self.layer(pixel_values)


AutoConfig.register("toy", ToyConfig)
AutoModelForInstanceSegmentation.register(ToyConfig, ToyForInstanceSegmentation)
ToyForInstanceSegmentation(ToyConfig()).save_pretrained("toy")
model = AutoModelForInstanceSegmentation.from_pretrained("toy")
processor = MaskFormerImageProcessorPil()
print("transformers", transformers.__version__)
pipeline("image-segmentation", model=model, image_processor=processor)
print("the model itself: loaded")
try:
    pipeline("image-segmentation", model="toy", image_processor=processor)
    seen = "loaded"
except ValueError as error:
    seen = str(error).splitlines()[0]
print("its folder: expected loaded, seen", seen)
assert "AutoModelForImageSegmentation" in seen and "AutoModelForInstanceSegmentation" not in seen, "it has changed"
PYTHON
