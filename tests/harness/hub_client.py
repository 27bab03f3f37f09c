"""Run by the tests of the Hub in a process of its own: what a user does who has no hf_models, and the loopback only.

    python -I hub_client.py SPEC

SPEC is a JSON file: `absent` (modules that cannot be imported), `present` (those that are imported first), `cases`
(each an Auto class or "file.Class", an id or a folder, and keyword arguments), `input` and `output` (safetensors),
`told` (JSON to write: what was loaded from where), `kernels` (whether to tell which run, and which would if the Hub
were gone), `get_kernel` (a kernel to load by itself).
"""

import json
import os
import socket
import sys
from pathlib import Path

spec = json.loads(Path(sys.argv[1]).read_text())
for name in spec["absent"]:
    sys.modules[name] = None  # as if it were not installed
connect = socket.socket.connect


def loopback_only(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        raise OSError(f"not the loopback: {address}")
    return connect(self, address)


socket.socket.connect = loopback_only
for name in spec["absent"]:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is there")

import huggingface_hub  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402

if "hf_models" in spec["present"]:
    import hf_models  # noqa: F401

torch.set_num_threads(1)
pixel_values = load_file(spec["input"])["pixel_values"]
outputs, results = {}, []
for case in spec["cases"]:
    kwargs = case.get("kwargs", {})
    if case.get("refused"):
        try:
            getattr(transformers, case["class"]).from_pretrained(case["id"], **kwargs)
        except ValueError as error:
            results.append({"error": str(error)})
        continue
    if case["class"] == "pipeline":
        pipe = transformers.pipeline(case["task"], model=case["id"], **kwargs)
        model, info = pipe.model, {}
        found = pipe(Image.open(case["image"]), **case.get("call", {}))
        results.append({"labels": [[entry["label"], entry["score"]] for entry in found]})
    else:
        if "." in case["class"]:  # what `auto_map` says of it, without the Auto class
            model_class = get_class_from_dynamic_module(case["class"], case["id"], **kwargs)
        else:
            model_class = getattr(transformers, case["class"])
        model, info = model_class.from_pretrained(case["id"], output_loading_info=True, **kwargs)
        with torch.inference_mode():
            values = model.eval()(pixel_values)
        keys = ("logits", "last_hidden_state", "class_queries_logits", "masks_queries_logits", "scores", "boxes")
        for key in keys:
            if key in values:
                outputs[f"{case['name']}/{key}"] = values[key].contiguous()
        for index, feature_map in enumerate(values.get("feature_maps", ())):
            outputs[f"{case['name']}/feature_maps{index}"] = feature_map.contiguous()
        results.append({"problems": {kind: sorted(map(str, names)) for kind, names in info.items() if names}})
    results[-1] |= {"class": type(model).__name__, "module": type(model).__module__}
    if case.get("save"):
        model.save_pretrained(case["save"])
        processor = transformers.AutoImageProcessor.from_pretrained(case["id"], **kwargs)
        processor.save_pretrained(case["save"])
if kernel := spec["get_kernel"]:
    from kernels import get_kernel

    module = get_kernel(kernel["id"], revision=kernel["revision"], trust_remote_code=True)
    arguments = load_file(spec["input"])
    outputs["kernel"] = module.deformable_aggregate(
        *(arguments[name] for name in ("value", "offset", "weight")), kernel_size=3, padding=1
    )

ours = ("hf_models.", "transformers_modules.")
kernels = [m for name, m in sys.modules.items() if name.startswith(ours) and name.endswith("hub_kernels")]


def reasons():
    os.environ["HF_MODELS_KERNELS"] = "auto"  # those that no model used may be missing
    return [status.reason for module in kernels for status in module.status()] if spec["kernels"] else []


told = {"results": results, "kernels": reasons()}
huggingface_hub.constants.HF_HUB_OFFLINE = True
for module in kernels:
    module._choose.cache_clear()
told["offline"] = reasons()
save_file(outputs, spec["output"])
Path(spec["told"]).write_text(json.dumps(told))
