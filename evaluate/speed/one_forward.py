"""How much memory one forward pass takes: run as a process of its own, by the path of this file.

So nothing is imported from beside: the Python that runs it may have another version of this package.

    python one_forward.py LOADER MODEL DTYPE HEIGHT WIDTH

prints the megabytes that the process had before, and those that it had at the peak.
"""

import gc
import sys
from pathlib import Path

import torch


def build(loader: str, model: str):
    """A model with random weights.

    Args:
        loader: "timm", an Auto class of transformers, or "load_segmenter" for the class that it chooses.
        model: timm's name, or a folder with a config.
    """
    if loader == "timm":
        import timm

        return timm.create_model(model, pretrained=False, features_only=True)
    import transformers

    import hf_models  # noqa: F401 (registers the families)

    config = transformers.AutoConfig.from_pretrained(model)
    if loader == "load_segmenter":
        from hf_models.segmentation import segmenter_class

        chosen = segmenter_class(model)  # an Auto class, or that of a model
        return (chosen.from_config if hasattr(chosen, "from_config") else chosen._from_config)(config)
    return getattr(transformers, loader).from_config(config)


def resident(field: str) -> float:
    """A field of /proc/self/status in megabytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


@torch.inference_mode()
def main(loader: str, model: str, dtype: str, height: str, width: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build(loader, model).eval().to(getattr(torch, dtype))
    images = torch.randn(1, 3, int(height), int(width)).to(getattr(torch, dtype))
    net(images[:, :, :64, :64])  # what is loaded and kept at the first call is not the forward's
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    outputs = net(images)
    print(before, resident("VmHWM"))
    del outputs


if __name__ == "__main__":
    main(*sys.argv[1:])
