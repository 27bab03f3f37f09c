"""Conversions that are killed, interrupted, out of disk, or two at once: a folder is whole, or it is not there."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_models.conversion import convert
from hf_models.errors import InputError

from ..harness.conversion_tester import read_manifest, write_original

FAST = "internimage_tiny_l"
# processes that have everything imported: what is killed is the conversion, not the start of Python
START = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def same_date():
    """The date is all that two conversions of a file differ in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        patch.setenv("OMP_NUM_THREADS", "1")
        START.set_forkserver_preload(["hf_models.conversion"])
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Source, arguments, and the files that they become."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source, config = write_original(folder, read_manifest(FAST))
    convert(source, folder / "out", original_config=config, max_shard_size="200KB", progress=False)
    return source, config, files(folder / "out")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))}


def start(source: Path, config: Path, output: Path, **options) -> multiprocessing.Process:
    arguments = {"original_config": config, "max_shard_size": "200KB", "progress": False, **options}
    process = START.Process(target=convert, args=(source, output), kwargs=arguments)
    process.start()
    return process


def kill_at(moment: float, process: multiprocessing.Process, output: Path, whole: dict[str, bytes]) -> bool:
    """Kill a conversion some seconds after its temporary folder appears; whether it had not ended by itself.

    Until then, and after, whatever is seen under the final name must be whole.
    """
    until = None
    while process.is_alive() and (until is None or time.monotonic() < until):
        if until is None and any(output.parent.glob(f".{output.name}.*.partial")):
            until = time.monotonic() + moment
        assert not output.exists() or files(output) == whole
    process.kill()
    process.join()
    assert not output.exists() or files(output) == whole
    return process.exitcode == -signal.SIGKILL


def kill_and_rerun(moments: int, undisturbed, folder: Path) -> int:
    """Kill a conversion at random moments, rerun it after each; the number of those that were in time."""
    source, config, whole = undisturbed
    chance = random.Random(0)
    began = time.monotonic()
    process = start(source, config, folder / "timed")
    while not any(folder.glob(".timed.*.partial")) and process.is_alive():
        began = time.monotonic()
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0 and files(folder / "timed") == whole
    killed = 0
    for number in range(moments):
        output = folder / str(number)
        killed += kill_at(chance.uniform(0, seconds), start(source, config, output), output, whole)
        convert(source, output, original_config=config, max_shard_size="200KB", overwrite=True, progress=False)
        assert files(output) == whole
        assert not list(folder.glob(".*")), "what the killed run left is gone"
    return killed


def test_killed_at_three_moments(undisturbed, tmp_path):
    assert kill_and_rerun(3, undisturbed, tmp_path) > 0


@pytest.mark.slow
def test_killed_at_twenty_moments(undisturbed, tmp_path):
    assert kill_and_rerun(20, undisturbed, tmp_path) >= 10


def test_killed_while_replacing(undisturbed, tmp_path):
    """Between the two renames the old folder is put aside; the next run puts it back, or replaces it."""
    source, config, whole = undisturbed
    options = {"original_config": config, "max_shard_size": "200KB", "progress": False}
    output, aside = tmp_path / "out", tmp_path / ".out.0123abcd.old"
    convert(source, output, **options)
    output.rename(aside)
    (tmp_path / ".out.0123abcd.partial").mkdir()
    (tmp_path / ".out.mine").mkdir()
    with pytest.raises(InputError, match="not empty"):
        convert(source, output, **options)
    assert files(output) == whole and sorted(path.name for path in tmp_path.iterdir()) == [".out.mine", "out"]


def test_what_a_running_conversion_writes_stays(undisturbed, tmp_path):
    """A stopped process holds its lock as a running one does."""
    source, config, whole = undisturbed
    output = tmp_path / "out"
    process = start(source, config, output)
    while not (partial := list(tmp_path.glob(".out.*.partial"))):
        assert process.is_alive()
    os.kill(process.pid, signal.SIGSTOP)
    convert(source, output, original_config=config, max_shard_size="200KB", progress=False)
    assert files(output) == whole and partial[0].is_dir()
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 1, "the first to end has the name"
    assert files(output) == whole and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_at_once(overwrite, undisturbed, tmp_path):
    """Of two different checkpoints one has the name, whole; without --overwrite the other is refused."""
    source, config, whole = undisturbed
    other, other_config = write_original(tmp_path, read_manifest("internimage_tiny_h"))
    convert(other, tmp_path / "other", original_config=other_config, max_shard_size="200KB", progress=False)
    results = [whole, files(tmp_path / "other")]
    for number in range(2):
        output = tmp_path / f"out{number}"
        both = [start(s, c, output, overwrite=overwrite) for s, c in ((source, config), (other, other_config))]
        while any(process.is_alive() for process in both):
            time.sleep(0.01)
        succeeded = [process.exitcode == 0 for process in both]
        assert sum(succeeded) == 1 or (overwrite and any(succeeded))
        assert files(output) in [result for result, own in zip(results, succeeded, strict=True) if own]
        assert not list(tmp_path.glob(".*"))


def test_full_disk(undisturbed, tmp_path):
    """No file may become larger than 100 kB: what a full disk answers, in the middle of writing."""
    source, config, _ = undisturbed
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
    program = f"{limited} from hf_models.cli import main; main()"
    call = [sys.executable, "-c", program, "convert", source, "out", "--original-config", config]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/out: cannot be written (") and "File too large" in line
    assert not list(tmp_path.iterdir())


def test_control_c(undisturbed, tmp_path):
    """Status 130, one line, nothing left behind."""
    source, config, _ = undisturbed
    call = [sys.executable, "-m", "hf_models.cli", "convert", source, "out", "--original-config", config]
    for _ in range(20):  # a machine that is busy elsewhere may be too late to interrupt
        process = subprocess.Popen(
            call,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        while not list(tmp_path.glob(".out.*.partial")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        if process.returncode != 0:
            break
        shutil.rmtree(tmp_path / "out")
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_dates_come_from_the_environment(undisturbed, monkeypatch, tmp_path):
    source, config, whole = undisturbed
    assert json.loads(whole["conversion_report.json"])["date"] == "2023-11-14T22:13:20+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH: expected seconds since 1970, got yesterday"):
        convert(source, tmp_path / "out", original_config=config, progress=False)
