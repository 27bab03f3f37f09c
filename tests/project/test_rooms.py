"""`hf_models/*.py` are the files that travel to Hub repositories, and no others; one file lists the families."""

import ast
from pathlib import Path

from hf_models.auto import FAMILIES

ROOT = Path(__file__).parents[2]
FLAT = ROOT / "hf_models"
ROOTS = ("modeling_*.py", "stock_*.py", "image_processing_*.py")  # what an `auto_map` names


def siblings(file: Path) -> set[str]:
    """Names of the files that a file imports from beside it."""
    imports = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    nameless = [node.lineno for node in imports if node.level and not node.module]
    assert not nameless, f"{file.name}, line {nameless[0]}: transformers does not copy what `from . import x` imports"
    deeper = [node.module for node in imports if node.level > 1 or (node.level and "." in node.module)]
    assert not deeper, f"{file.name}: {deeper[0]} is in a folder, which transformers does not copy"
    return {f"{node.module}.py" for node in imports if node.level}


def test_flat_files_are_those_that_travel():
    found, waiting = set(), {file.name for pattern in ROOTS for file in FLAT.glob(pattern)}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= siblings(FLAT / name) - found
    flat = {file.name for file in FLAT.glob("*.py")} - {"__init__.py"}
    assert not flat - found, f"no model needs {sorted(flat - found)}: what does not travel belongs into a folder"
    assert found == flat


def families_named(file: Path) -> set[str]:
    """The model_types that a file has as strings, or in the names of modules that it imports."""
    words = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            words.add(node.module.split(".")[-1].removeprefix("configuration_").removeprefix("modeling_"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return {config.model_type for config, *_ in FAMILIES} & words


def test_no_file_but_auto_lists_the_families():
    files = [
        file
        for room in ("hf_models", "conversion", "evaluate", "model_cards")
        for file in ROOT.glob(f"{room}/**/*.py")
    ]
    lists = [
        str(file.relative_to(ROOT)) for file in files if len(families_named(file)) > 2
    ]  # a family may use another
    assert lists == ["hf_models/auto.py"], "go through FAMILIES, or ask a model for what it has"
