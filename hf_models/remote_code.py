"""The code that travels with a model: `trust_remote_code=True` then loads it where this package is not installed.

transformers would save the code of a model too, but names only the saved class in the config's `auto_map`; here each
Auto class finds its own.
"""

import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import ClassVar

from transformers.configuration_utils import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files

SOURCES = Path(__file__).parent
# models of transformers whose configs name a backbone that it does not know; they cannot name their Auto classes here
STOCK_SEGMENTERS = {
    "upernet": {
        "AutoConfig": "stock_segmenters.HubUperNetConfig",
        "AutoModelForSemanticSegmentation": "stock_segmenters.HubUperNetForSemanticSegmentation",
    },
    "mask2former": {
        "AutoConfig": "stock_segmenters.HubMask2FormerConfig",
        "AutoModelForUniversalSegmentation": "stock_segmenters.HubMask2FormerForUniversalSegmentation",
    },
}


def auto_map_of(config: PreTrainedConfig) -> dict[str, str]:
    """Auto class -> "file.Class", for every Auto class that loads models with this config; empty if it is not ours."""
    model_type, name = config.model_type, type(config).__name__.removesuffix("Config")
    if model_type in STOCK_SEGMENTERS:
        return dict(STOCK_SEGMENTERS[model_type])
    auto_classes = getattr(config, "auto_classes", None)
    if not auto_classes:
        return {}
    models = {auto_class: f"modeling_{model_type}.{name}{suffix}" for auto_class, suffix in auto_classes.items()}
    return {"AutoConfig": f"configuration_{model_type}.{name}Config", **models}


def code_files(auto_map: dict[str, str]) -> list[Path]:
    """The files of the classes in an `auto_map`, and of all that they import from beside them."""
    files = {SOURCES / f"{reference.split('.')[0]}.py" for reference in auto_map.values()}
    return sorted(files | {Path(needed) for file in files for needed in get_relative_import_files(file)})


def copy_code(auto_map: dict[str, str], folder: str | PathLike) -> None:
    """Write the code that an `auto_map` needs into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in code_files(auto_map):
        shutil.copyfile(file, Path(folder) / file.name)


def save_config(config: PreTrainedConfig, folder: str | PathLike) -> None:
    """Save the config of any model here, those of transformers' classes included, with its code."""
    config.auto_map = auto_map_of(config)
    copy_code(config.auto_map, folder)
    config.save_pretrained(folder)


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
