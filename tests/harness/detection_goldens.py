"""Single steps of the original's detectors: tests/fixtures/detection/det_ops."""

import json
from pathlib import Path

from safetensors.torch import load_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"


def golden(name):
    """The parameters of a case, and its tensors."""
    tensors = load_file(FIXTURES / "det_ops.safetensors")
    parameters = json.loads((FIXTURES / "det_ops.json").read_text())["cases"].get(name, {})
    prefix = f"{name}."
    return parameters, {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
