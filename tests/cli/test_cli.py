"""The commands, as a user calls them."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

import hf_models
from hf_models import zoo
from hf_models.cli import app
from hf_models.errors import InputError

from ..harness.conversion_tester import (
    converted,
    read_manifest,
    write_original,
)
from ..harness.hub_tester import tiny_folder


def test_commands(tmp_path):
    source, config = write_original(tmp_path, read_manifest("smt_tiny_like"))
    run = CliRunner().invoke
    arguments = ["convert", str(source), str(tmp_path / "out"), "--original-config", str(config)]
    result = run(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0 and json.loads(result.stdout)["dtype"] == "float32"
    result = run(app, [*arguments, "--dtype", "bfloat16", "--max-shard-size", "100KB"])
    assert result.exit_code == 0 and "parameters from" in result.stdout
    result = run(app, ["verify", str(tmp_path / "out"), "--source", str(source)])
    assert result.exit_code == 0 and "equal to" in result.stdout
    result = run(app, [*arguments, "--verbose"])
    assert isinstance(result.exception, InputError), "--verbose shows the traceback"


def test_list_command():
    run = CliRunner().invoke
    models = json.loads(run(app, ["list", "--family", "smt", "--json"]).stdout)
    assert [model["name"] for model in models] == zoo.list_models(family="smt")
    assert "internimage_t_1k_224" in run(app, ["list", "internimage_t*"]).stdout
    result = run(app, ["list", "--family", "resnet"])
    assert result.exit_code == 2 and "internimage" in result.stderr
    result = run(app, ["list", "--family", "smt", "repl"])
    message = "smt repl: no published checkpoint matches. Try '*repl*', or `hf-models list` for all.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message)


def test_classify_command(tmp_path):
    _, output, _ = converted(tmp_path, "smt_tiny_like")
    image = tmp_path / "image.png"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(image)
    arguments = ["classify", str(image), "--model", str(output), "--top-k", "3"]
    (entry,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert entry["image"] == str(image) and len(entry["labels"]) == 3
    lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert lines[0] == str(image) and len(lines) == 4
    result = CliRunner().invoke(app, ["classify", str(tmp_path / "none.jpg"), "--model", str(output)])
    assert result.exit_code == 2 and "none.jpg: no such file" in result.stderr


def test_a_model_for_another_task_names_the_command(tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (80, 60)).save(image)
    tiny_folder(tmp_path / "segmenter", "upernet")
    for arguments, message in (
        (["classify", "--model", str(tmp_path / "segmenter")], "Use `hf-models segment`"),
        (["segment", "--model", "default", "--out", str(tmp_path / "out.png")], "Use `hf-models classify`"),
    ):
        result = CliRunner().invoke(app, [arguments[0], str(image), *arguments[1:]])
        assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "a folder. Name its image files."), ("https://x.org/cat.jpg", "no such file. Download it first.")],
)
def test_what_is_no_image_file_says_what_it_is(name, message, tmp_path):
    result = CliRunner().invoke(app, ["classify", name or str(tmp_path)])
    assert result.exit_code == 2 and message in result.stderr


def test_version_and_environment(monkeypatch):
    """What a report of a problem needs, even where PyTorch does not work."""
    assert CliRunner().invoke(app, ["--version"]).stdout == f"hf-models {hf_models.__version__}\n"
    monkeypatch.setenv("HF_MODELS_KERNELS", "off")
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0
    for line in (f"torch            {torch.__version__}", "HF_MODELS_KERNELS=off", "deformable-conv on cpu: "):
        assert line in result.stdout
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0 and "device           unknown (" in result.stdout


def groups(command, path=()):
    if isinstance(command, TyperGroup):
        yield path
        for name, inner in command.commands.items():
            yield from groups(inner, (*path, name))


@pytest.mark.parametrize("path", list(groups(get_command(app))), ids=" ".join)
def test_help_lists_commands_with_whole_sentences(path):
    """A line is as long as what begins the help of a command; on 80 columns nothing is cut."""
    result = CliRunner().invoke(app, [*path, "--help"], terminal_width=80)
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert listed and all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_module_is_the_convert_command(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["convert", "--help"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("hf_models.conversion", run_name="__main__")
    assert exit.value.code == 0 and "SOURCE" in capsys.readouterr().out.upper()


def test_help_does_not_wait_for_pytorch(tmp_path):
    """The program shows its help, and lists the zoo, without importing what it does not need."""
    program = tmp_path / "hf-models"
    program.write_text(
        "import sys\n"
        "from hf_models.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*{'torch', 'transformers', 'numpy'} & sys.modules.keys(), 'imported', file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["convert", "--help"], ["list", "smt*"]):
        done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and done.stdout, done.stderr
        assert done.stderr.splitlines()[-1] == "imported", done.stderr


def test_import_registers():
    """Any other program, one with no name too, gets the Auto classes with the import."""
    code = "import sys; {}; import hf_models; from transformers import AutoConfig; AutoConfig.for_model('smt')"
    for change in ("sys.argv = []", "sys.argv = ['train.py']"):
        subprocess.run([sys.executable, "-c", code.format(change)], check=True, timeout=120)
