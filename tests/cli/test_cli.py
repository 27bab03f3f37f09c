"""The commands, as a user calls them."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.errors import InputError

from ..harness.conversion_tester import (
    converted,
    read_manifest,
    write_original,
)


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
