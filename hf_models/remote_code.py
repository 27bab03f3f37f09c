"""The code that travels with a model: `trust_remote_code=True` then loads it where this package is not installed.

transformers would save the code of a model too, but names only the saved class in the config's `auto_map`; here each
Auto class finds its own.
"""

import functools
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import ClassVar

from transformers.configuration_utils import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto import modeling_auto

SOURCES = Path(__file__).parent


def auto_map_of(config: PreTrainedConfig) -> dict[str, str]:
    """Auto class -> "file.Class", for every Auto class that loads models with this config.

    It is empty for a config that is neither ours nor one of transformers that names a backbone of ours.
    """
    if auto_classes := getattr(config, "auto_classes", None):
        model_type, name = config.model_type, type(config).__name__.removesuffix("Config")
        models = {auto_class: f"modeling_{model_type}.{name}{suffix}" for auto_class, suffix in auto_classes.items()}
        return {"AutoConfig": f"configuration_{model_type}.{name}Config", **models}
    ours_inside = hasattr(getattr(config, "backbone_config", None), "auto_classes")
    if not ours_inside or not type(config).__module__.startswith("transformers."):
        return {}
    classes = {"AutoConfig": type(config), **stock_classes(config)}
    return {auto_class: f"stock_models.Hub{stock.__name__}" for auto_class, stock in classes.items()}


def stock_classes(config: PreTrainedConfig) -> dict[str, type]:
    """Auto class of models -> the class that it loads, for a config of transformers."""
    found = {}
    for name in modeling_auto.__all__:
        if name.startswith("AutoModel") and type(config) in (mapping := getattr(modeling_auto, name)._model_mapping):
            found[name] = mapping[type(config)]
    return found


def code_files(auto_map: dict[str, str]) -> list[Path]:
    """The files of the classes in an `auto_map`, and of all that they import from beside them."""
    files = {SOURCES / f"{reference.split('.')[0]}.py" for reference in auto_map.values()}
    return sorted(files | {Path(needed) for file in files for needed in get_relative_import_files(file)})


def copy_code(auto_map: dict[str, str], folder: str | PathLike) -> None:
    """Write the code that an `auto_map` needs into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in code_files(auto_map):
        shutil.copyfile(file, Path(folder) / file.name)


class CodeCarrier:
    """Mixin of the configs here: saving one, alone or with its model, saves the code of the family too."""

    # Auto class -> suffix of the class that it loads: `Model` for SMTModel beside SMTConfig
    auto_classes: ClassVar[Mapping[str, str]]

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """As in [`PreTrainedConfig`], with the code and the complete `auto_map`."""
        auto_map = auto_map_of(self)
        # where this file came from a repository itself, the files of classes that were not used may not be here
        if all((SOURCES / f"{reference.split('.')[0]}.py").is_file() for reference in auto_map.values()):
            self.auto_map = auto_map
            copy_code(auto_map, save_directory)
        super().save_pretrained(save_directory, push_to_hub, **kwargs)


def save_code_with_stock_models() -> None:
    """Have transformers' own models save the code of a backbone from here, which they name in their configs.

    transformers saves every config by one method, which knows of no backbone that comes with code. The method is
    wrapped here, and does what it did for all other configs.
    """
    stock = PreTrainedConfig.save_pretrained
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def save_pretrained(self, save_directory: str | PathLike, *args, **kwargs) -> None:
        if not isinstance(self, CodeCarrier) and (auto_map := auto_map_of(self)):  # ours have done it
            self.auto_map = auto_map
            copy_code(auto_map, save_directory)
        return stock(self, save_directory, *args, **kwargs)

    PreTrainedConfig.save_pretrained = save_pretrained
