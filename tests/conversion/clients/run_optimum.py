"""Run an exported folder in optimum, in an environment of its own: FOLDER TASK IMAGE -> JSON of what it says.

optimum-onnx 0.1.0 wants a transformers below 5, so that it cannot be installed beside this package.
"""

import json
import sys

import numpy as np
from optimum.onnxruntime import ORTModelForImageClassification, ORTModelForSemanticSegmentation
from PIL import Image
from transformers import AutoImageProcessor, pipeline

folder, task, path = sys.argv[1:]
classifies = task == "image-classification"
model_class = ORTModelForImageClassification if classifies else ORTModelForSemanticSegmentation
image = Image.open(path).convert("RGB")
model, processor = model_class.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, use_fast=False)
inputs = processor(image, return_tensors="pt")
logits = model(**inputs).logits
answer = {"pixel_values": inputs.pixel_values.flatten().tolist(), "logits": logits.flatten().tolist()}
if classifies:
    answer["says"] = pipeline(task, model=model, image_processor=processor)(image, top_k=2)
else:
    masks = pipeline(task, model=model, image_processor=processor)(image)
    answer["says"] = {mask["label"]: int((np.array(mask["mask"]) > 0).sum()) for mask in masks}
print(json.dumps(answer))
