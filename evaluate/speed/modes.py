"""The ways in which `hf-models benchmark models` runs a model."""

from collections.abc import Collection
from dataclasses import dataclass

FLOATS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Mode:
    """A way to run a model.

    Args:
        title: For tables.
        runtime: What runs it, as a package is called: torch, or what runs ONNX files.
        dtypes: Of what is not in 8 bits.
        int8: Whether the products are in 8 bits.
    """

    title: str
    runtime: str = "torch"
    dtypes: Collection[str] = FLOATS
    int8: bool = False


MODES = {
    "eager": Mode("eager"),
    "compiled": Mode("compiled"),
    "frozen": Mode("compiled, frozen"),
    "int8": Mode("8 bits", dtypes=("float32", "bfloat16"), int8=True),
    "baseline": Mode("the baseline"),  # another version of this package, eager
    "onnxruntime": Mode("onnxruntime", "onnxruntime", ("float32",)),
    "onnxruntime-int8": Mode("onnxruntime, 8 bits", "onnxruntime", ("float32",), int8=True),
    "openvino": Mode("OpenVINO", "openvino", ("float32", "bfloat16")),
    "openvino-int8": Mode("OpenVINO, 8 bits", "openvino", ("float32", "bfloat16"), int8=True),
}
COMPILED = ("compiled", "frozen")
