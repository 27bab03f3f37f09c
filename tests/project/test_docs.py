"""The README and the documentation say what is true: tables are those of their sources, code runs, commands exist."""

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification
from typer.core import TyperGroup
from typer.main import get_command
from typer.models import Context

from hf_models.cli import app
from hf_models.conversion.publish import push_model

from ..harness.conversion_tester import read_manifest, write_original
from ..harness.detection_tester import make_detector
from ..harness.evaluation_tester import make_model
from ..harness.hub_double import Hub
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import tiny_folder, tiny_model

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
    *ROOT.glob("kernels_src/*/CARD.md"),
    *ROOT.glob("examples/*/README.md"),
]
rendering = runpy.run_path(str(ROOT / "docs" / "site" / "tables.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_of(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M))


@pytest.mark.parametrize(("path", "name", "render"), rendering["TABLES"])
def test_tables_are_what_they_are_rendered_from(path, name, render):
    ((_, table, _),) = rendering["between_markers"](name).findall(path.read_text(encoding="utf-8"))
    assert table == render(), "run `make tables`"


def test_every_table_is_rendered():
    marked = {
        (path, name)
        for path in (*PAGES, *OTHERS)
        for name in re.findall(r"<!-- (.*?): rendered from ", path.read_text(encoding="utf-8"))
    }
    assert marked == {(path, name) for path, name, _ in rendering["TABLES"]}


def test_the_readme_is_one_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", [README, *OTHERS], ids=name_of)
def test_links_lead_somewhere(page):
    """Those of docs/ are checked when the site is built, anchors too."""
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


# --- code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with what the pages name; the models are tiny and have random weights."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=lambda *_: ["gallery", "space", "training"])
    shutil.copyfile(ROOT / "examples" / "sample.jpg", folder / "photo.jpg")
    for name, family in (("internimage-t", "internimage"), ("replknet-31b", "replknet")):
        tiny_folder(folder / name, family)
    tiny_folder(folder / "upernet-internimage-t", "upernet")
    stages = {"hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1]}
    ConvNextForImageClassification(ConvNextConfig(**stages)).save_pretrained(folder / "facebook" / "convnext-tiny-224")
    vit = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(**vit)).save_pretrained(folder / "google" / "vit-base-patch16-224")
    tiny_model("internimage", metadata_hidden_size=8).save_pretrained(folder / "internimage-h-inat18")
    make_model(folder / "internimage-t-ade20k")
    make_detector(folder / "mask-rcnn-internimage-t")
    write_original(folder, read_manifest("internimage_tiny_l"))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page) and page.stem != "hub"], ids=name_of)
def test_code_runs(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(code_of(page), str(page), "exec"), {})
    if page == README:
        labels, feature_maps = capsys.readouterr().out.splitlines()
        assert labels.count("score") == 3 and feature_maps.count("(1, ") == 3


def test_code_runs_without_the_package(folder, monkeypatch):
    """The page about the Hub, in a process that has no hf_models, with a Hub that has the models that it names."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    code = code_of(ROOT / "docs" / "hub.md")
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token=TOKEN)
        for repo in re.findall(r'"(ORG/.*?)", revision="COMMIT"', code):
            commit = push_model(folder / repo.partition("/")[2], repo, api=api, progress=False)["commit"]
            code = code.replace(f'"{repo}", revision="COMMIT"', f'"{repo}", revision="{commit}"')
        assert "COMMIT" not in code
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.modules['hf_models'] = None\n{code}"],
            env=os.environ | hub.environment(folder / "home") | {"HF_MODELS_KERNELS": "off"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("*.md")), ids=name_of)
def test_api_pages_name_modules(page):
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), flags=re.M):
        importlib.import_module(name)


# --- commands


def command_lines(page: Path) -> list[tuple[str, bool]]:
    """Commands in indented blocks, which are whole, and in running text, which may lack their arguments."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ {4}(\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), flags=re.M)
    inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"^ {4}.*$", "", text, flags=re.M))
    return [(line, True) for line in blocks] + [(" ".join(line.split()), False) for line in inline]


def check_hf_models(line: str, words: list[str], whole: bool) -> None:
    """Parse a command line of `hf-models` as it would, but run nothing."""
    command, name, context = get_command(app), "hf-models", None
    while isinstance(command, TyperGroup):
        if not words or not words[0].islower() or words[0].startswith("-"):  # `hf-models COMMAND --help`
            return
        context = Context(command, parent=context)
        assert words[0] in command.list_commands(context), f"{line}: no command {words[0]}"
        name, command, words = command.resolve_command(context, words)
    if whole:
        command.make_context(name, [*words], parent=context)
    options = {"--help", *(o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts))}
    for word in words:
        assert not word.startswith("--") or word in options, f"{line}: no option {word}"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_commands_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for line, whole in command_lines(page):
        if found := re.match(r"(?:hf-models|(?:torchrun|python) .*-m hf_models\.cli)(?= |$)", line):
            words = shlex.split(line[found.end() :], comments=True)
            check_hf_models(line, [word for word in words if word != "..." and word[0] != "$"], whole)
        elif found := re.match(r"python (\S+\.py)", line):
            assert list(ROOT.glob(f"**/{found[1]}")), line
        elif found := re.match(r"make ([a-z-]+)(?= |$)", line):
            assert found[1] in targets, line
