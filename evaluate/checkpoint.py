"""The model that is evaluated, and what identifies it in the results."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from transformers import BaseImageProcessor, PreTrainedModel

from hf_models.deformable_conv import DCNv3, DCNv4
from hf_models.errors import InputError
from hf_models.inference.files import check_path, read_json
from hf_models.inference.loading import DTYPES, load_model
from hf_models.inference.names import DEFAULT, model_folder
from hf_models.large_kernel_conv import ReparameterizableLargeKernelConv

KERNEL_OF = {
    DCNv3: "deformable-conv",
    DCNv4: "deformable-conv",
    ReparameterizableLargeKernelConv: "large-kernel-conv",
}


@dataclass(frozen=True)
class Loaded:
    """A model with its processor.

    Args:
        name: For tables: that of the zoo, if the conversion recorded one.
        revision: Commit on the Hub, or hash of the weight files.
        processor: The image processor that lies beside the model.
        model: In evaluation mode.
    """

    name: str
    revision: str
    processor: BaseImageProcessor
    model: PreTrainedModel

    @property
    def dtype(self) -> str:
        """Key of `DTYPES`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def processor_name(self) -> str:
        """For tables: the class, and the library that it computes with."""
        return f"{type(self.processor).__name__} ({self.processor.backend})"

    @property
    def kernels(self) -> set[str]:
        """Names of the compiled kernels that its layers can use."""
        layers = list(self.model.modules())
        return {kernel for kind, kernel in KERNEL_OF.items() if any(isinstance(layer, kind) for layer in layers)}


def load(model: str, auto_class: type, dtype: str = "float32") -> Loaded:
    """Load what a user names: a folder, an id on the Hub, or "default" for the embedded checkpoint.

    Raises:
        InputError: It cannot be loaded.
    """
    check_path(model)
    return identified(model, *load_model(model_folder(model), auto_class, DTYPES[dtype]))


def identified(model: str, processor: BaseImageProcessor, network: PreTrainedModel) -> Loaded:
    """What identifies a model that a user named, with it and its image processor."""
    folder = Path(model_folder(model))
    if not folder.is_dir():
        return Loaded(model, f"commit {network.config._commit_hash}", processor, network)
    name = "embedded default" if model == DEFAULT else _recorded_name(folder) or folder.resolve().name
    return Loaded(name, f"sha256 {_weights_sha256(folder)}", processor, network)


def _recorded_name(folder: Path) -> str | None:
    try:
        name = read_json(folder / "conversion_report.json").get("name")
    except InputError:
        return None
    return name if isinstance(name, str) else None


def _weights_sha256(folder: Path) -> str:
    """First digits of the sha256 of the weight files, one after the other in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]
