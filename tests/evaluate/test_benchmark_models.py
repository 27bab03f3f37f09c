"""The benchmarks of whole models: who takes part, what is kept, what the tables say. No times are tested."""

import dataclasses
import os
import signal
import sys
from functools import partial

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from hf_models.errors import InputError
from hf_models.evaluate.results import DETECTORS, MODELS, merge_results
from hf_models.evaluate.speed import contestants, detectors, model_entries, model_tables, models
from hf_models.evaluate.speed.contestants import Contestant
from hf_models.evaluate.speed.model_entries import Entry
from hf_models.evaluate.speed.modes import MODES
from hf_models.evaluate.speed.turns import Worker

from ..harness.hub_tester import tiny_model
from .test_benchmark import read_csv, row_of, run

SMALL = {"smt-t": "smt", "internimage-t": "internimage", "replknet-31b-merged": "replknet"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small models under the names of large ones."""
    for name, family in SMALL.items():
        build = partial(tiny_model, family, image_size=64)
        monkeypatch.setitem(model_entries.MODELS, name, dataclasses.replace(model_entries.MODELS[name], build=build))


class Double:
    """Stands for the process of a contestant: a run takes as long as its dtype has bytes."""

    def __init__(self, who, log):
        self.who, self.log = who, log

    def ask(self, contestant=None, prepare=None, time=None):
        if time:
            self.log.append(self.who)
            return getattr(torch, self.who.rpartition(" ")[2]).itemsize / 1e3
        return {"peak_megabytes": 12.5, "output": [1.0, 2.0]}

    def close(self):
        self.log.append(f"closed: {self.who}")


@pytest.fixture
def log(monkeypatch):
    """What the doubles did, in the place of processes."""
    did = []
    monkeypatch.setattr(models, "Worker", lambda name, *_: Double(name, did))
    for method in ("specification", "case"):
        monkeypatch.setattr(Contestant, method, lambda *_: {})
    return did


def test_the_processes_run_the_same_model(tmp_path):
    """They would say so if a result differed."""
    path = tmp_path / "models.csv"
    options = ["--model", "smt-t", "--mode", "eager", "--mode", "int8", "--baseline", sys.executable]
    options += ["--image-size", 64, "--batch-size", 2, "--rounds", 1, "--results", path]
    result = run("models", *options)
    rows = read_csv(path)
    assert [row["mode"] for row in rows] == ["eager", "int8", "baseline"]
    assert len({row["date"] for row in rows}) == 1 and len({(row["build"], row["kernel"]) for row in rows}) == 1
    for row in rows:
        assert float(row["images_per_second"]) == pytest.approx(2000 / float(row["minimum_ms"]), rel=1e-3)
        assert 100 < float(row["peak_megabytes"]) < 5000
    assert "| SMT-T | float32 | 1 | 2 |" in result.stdout


@pytest.mark.slow
def test_other_runtimes_run_the_same_model(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    path = tmp_path / "models.csv"
    modes = ("eager", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8")
    options = ["--model", "smt-t", "--image-size", 64, "--batch-size", 2, "--rounds", 1, "--results", path]
    result = run("models", *options, *(part for mode in modes for part in ("--mode", mode)))
    rows = read_csv(path)
    assert [row["mode"] for row in rows] == [*modes]
    assert {row["runtime"].split()[0] for row in rows} == {"torch", "onnxruntime", "openvino"}
    assert "| SMT-T | onnxruntime, 8 bits | 8 bits, float32 | 2 |" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compiled", "frozen"])
def test_compiled_models_are_timed(tmp_path, mode):
    path = tmp_path / "models.csv"
    options = ["--model", "smt-t", "--image-size", 64, "--batch-size", 2, "--rounds", 1, "--results", path]
    assert (
        f"{MODES[mode].title}: as fast as eager" in run("models", *options, "--mode", "eager", "--mode", mode).stdout
    )
    assert [row["mode"] for row in read_csv(path)] == ["eager", mode]


def test_contestants_take_turns(log, tmp_path):
    path = tmp_path / "models.csv"
    names = "--model", "smt-t", "--model", "replknet-31b-merged", "--model", "smt-t:int8"
    result = run("models", *names, "--dtype", "bfloat16", "--batch-size", 1, "--rounds", 2, "--results", path)
    turns = ["smt-t, eager, bfloat16", "replknet-31b-merged, eager, bfloat16", "smt-t, int8, bfloat16"]
    assert log[:12] == [turn for turn in turns for _ in (0, 1)] * 2
    assert sorted(log[12:]) == sorted(f"closed: {turn}" for turn in turns)
    assert "**bfloat16, 1 thread, 224 pixels**" in result.stdout
    assert {(row["minimum_ms"], row["peak_megabytes"]) for row in read_csv(path)} == {("2.0000", "12.5")}


def test_an_interrupted_run_goes_on(log, monkeypatch, tmp_path):
    path = tmp_path / "models.csv"
    command = "models", "--model", "smt-t", "--mode", "eager", "--mode", "int8", "--rounds", 1, "--results", path
    ask = Double.ask

    def interrupted(self, **request):
        if "time" in request and len(log) == 6:  # in the second case
            raise KeyboardInterrupt
        return ask(self, **request)

    monkeypatch.setattr(Double, "ask", interrupted)
    assert run(*command, code=130).stderr.splitlines()[-1] == "interrupted"
    first = read_csv(path)
    assert [(row["mode"], row["batch_size"]) for row in first] == [("eager", "1"), ("int8", "1")]
    assert sorted(log[6:]) == ["closed: smt-t, eager, float32", "closed: smt-t, int8, float32"]
    monkeypatch.setattr(Double, "ask", ask)
    log.clear()
    result = run(*command, "--resume")
    assert log[:-2] == ["smt-t, eager, float32"] * 2 + ["smt-t, int8, float32"] * 2
    rows = read_csv(path)
    assert rows[:2] == first and [(row["mode"], row["batch_size"]) for row in rows[2:]] == [
        ("eager", "8"),
        ("int8", "8"),
    ]
    assert "| SMT-T | 1 |" in result.stdout and "| SMT-T | 8 |" in result.stdout
    log.clear()
    run(*command, "--resume")
    assert log == [] and read_csv(path) == rows


@pytest.mark.parametrize(
    ("column", "value"), [("build", "other"), ("torch", "1.0"), ("device", "other"), ("runtime", "torch 1.0")]
)
def test_other_builds_and_machines_are_measured_again(log, tmp_path, column, value):
    path = tmp_path / "models.csv"
    command = "models", "--model", "smt-t", "--batch-size", 1, "--rounds", 1, "--results", path
    run(*command)
    merge_results(path, [row | {column: value} for row in read_csv(path)], MODELS)
    if column == "device":
        path.write_text("\n".join(line for line in path.read_text().splitlines() if "AMD" not in line) + "\n")
    log.clear()
    run(*command, "--resume")
    assert log


def test_a_case_is_measured_whole(log, tmp_path):
    """Else its ratios would be between rows that did not take turns."""
    path = tmp_path / "models.csv"
    command = "models", "--model", "smt-t", "--batch-size", 1, "--rounds", 1, "--results", path
    run(*command)
    log.clear()
    run(*command, "--mode", "eager", "--mode", "int8", "--resume")
    assert log[:-2] == ["smt-t, eager, float32"] * 2 + ["smt-t, int8, float32"] * 2


def test_what_is_not_installed_is_left_out(log, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(contestants, "find_spec", lambda name: None if name == "openvino" else True)
    command = "models", "--rounds", 1, "--batch-size", 1
    result = run(*command, "--model", "smt-t", "--mode", "openvino", "--mode", "eager")
    assert "openvino is left out: not installed: openvino. Run `pip install 'hf-models[benchmark]'`." in result.stderr
    assert set(log) == {"smt-t, eager, float32", "closed: smt-t, eager, float32"}
    (line,) = run(*command, "--model", "convnext-t", code=2).stderr.splitlines()[-1:]
    assert line.startswith("convnext-t: timm does not import") and "hf-models[benchmark]" in line
    result = run(*command)
    assert "convnext-t is left out: " in result.stderr and "| SMT-T | 1 |" in result.stdout


def test_a_contestant_that_fails_is_left_out(log, monkeypatch):
    ask = Double.ask

    def failing(self, **request):
        if "compiled" in self.who:
            raise InputError(f"{self.who}: no")
        return ask(self, **request)

    monkeypatch.setattr(Double, "ask", failing)
    result = run("models", "--model", "smt-t", "--mode", "compiled", "--mode", "eager", "--rounds", 1)
    assert "left out: smt-t, compiled, float32: no" in result.stderr.splitlines()
    assert "| SMT-T | 8 |" in result.stdout and not any("compiled" in turn for turn in log[:-2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet"], "resnet: no such model. Choose from internimage-t"),
        (["--mode", "fast"], "fast: no such mode. Choose from eager, compiled, frozen, int8"),
        (["--model", "smt-t:fast"], "fast: no such mode. Choose from eager, compiled, frozen, int8"),
        (["--dtype", "int8"], "int8: no such dtype. Choose from float32, bfloat16, float16."),
        (["--model", "smt-t:baseline"], "baseline: which? "),
        (["--baseline", "missing/python", "--model", "smt-t"], "missing/python: cannot be run (No such file"),
        (["--model", "replknet-31b", "--mode", "int8"], "replknet-31b: none runs on cpu as int8 in float32. Choose"),
        (["--model", "smt-t", "--mode", "int8", "--dtype", "float16"], "smt-t: none runs on cpu as int8 in float16."),
        (["--results", "missing/folder.csv"], "missing/folder.csv: cannot be written"),
    ],
)
def test_bad_choices_are_one_line(arguments, message):
    assert run("models", *arguments, code=2).stderr.splitlines()[-1].startswith(message)


def test_a_model_for_one_size_of_images(monkeypatch, tmp_path):
    path = tmp_path / "models.csv"
    one_size = Entry("One size", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)))
    monkeypatch.setitem(model_entries.MODELS, "one-size", one_size)
    command = "models", "--models", "one-size", "--rounds", 1, "--results", path
    (line,) = run(*command, "--image-size", 64, "--image-size", 96, code=2).stderr.splitlines()[-1:]
    assert line.startswith("one-size, eager, float32: mat1 and mat2 shapes cannot be multiplied")
    assert line.endswith("Images of 96 pixels. Choose another --image-size, or leave out a --model or --mode.")
    assert {row["image_size"] for row in read_csv(path)} == {"64"}


def test_a_process_that_ends_is_one_line():
    worker = Worker("a model")
    os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"^a model: its process ended \(SIGKILL, perhaps for want of memory\)\.$"):
        worker.ask(about=True)
    worker.close()
    worker = Worker("a model")
    worker.process.stdin.write("no request\n")
    with pytest.raises(InputError, match=r"^a model: its process ended \(json\.decoder\.JSONDecodeError: "):
        worker.ask(about=True)
    worker.close()


def test_a_wrong_result_is_never_timed(log, monkeypatch):
    ask = Double.ask

    def wrong(self, **request):
        answer = ask(self, **request)
        return answer if "time" in request else answer | {"output": [len(self.who), 1.0]}

    monkeypatch.setattr(Double, "ask", wrong)
    command = "models", "--model", "smt-t", "--mode", "eager", "--mode", "compiled", "--rounds", 1
    result = run(*command)
    assert "left out: smt-t, compiled, float32: differs by 1.4e-01 of the expected" in result.stderr
    assert "| SMT-T |" in result.stdout and "compiled" not in result.stdout


def test_the_originals_layout_is_nchw_throughout():
    config = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "kernel_sizes": [5, 5, 5, 5], "num_labels": 3}
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model("replknet", **config)).eval()
    images = torch.randn(2, 3, 64, 64)
    maps = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.inference_mode():
        logits = model_entries.DefaultLayout(model)(images.contiguous(memory_format=torch.channels_last))
        assert maps and all(feature_map.is_contiguous() for feature_map in maps)
        torch.testing.assert_close(logits, model(images).logits)


def test_the_original_core_computes_the_same():
    model = model_entries.from_zoo("internimage_t_1k_224")
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            model_entries.PyTorchCore(model)(images), model(images).logits, rtol=1e-3, atol=1e-4
        )


# --- detectors


def test_detectors_are_timed_and_kept(monkeypatch, tmp_path):
    did = []

    class OfDetector(Double):
        def ask(self, contestant=None, prepare=None, time=None):
            if time:
                return {"whole": 2.0, "backbone": 1.1}[time]
            did.append(prepare)
            return {"peak_megabytes": 1234.5, "output": []}

    monkeypatch.setattr(detectors, "Worker", lambda name: OfDetector(name, did))
    monkeypatch.setattr(detectors, "_saved", lambda name, dtype, folder: folder / name)
    path = tmp_path / "detectors.csv"
    command = "detectors", "--threads", 1, "--threads", 2, "--rounds", 2, "--results", path
    result = run(*command)
    assert did[0] == {"shape": [1, 3, 800, 1344], "threads": 1, "valid": [800, 1333]}
    row = "| InternImage-T, Mask R-CNN | 800 x 1333 | float32 | 1 | 2.00 | 2.00 | 1.10 | 45.0% | 1234 |"
    assert row in result.stdout
    rows = read_csv(path)
    assert [row["threads"] for row in rows] == ["1", "2"]
    did.clear()
    run(*command, "--resume")
    assert did == [] and read_csv(path) == rows
    assert run("detectors", "--model", "yolo", code=2).stderr.splitlines()[-1].startswith("yolo: no such detector. ")


@pytest.mark.slow
def test_a_whole_detector_runs(tmp_path):
    run("detectors", "--rounds", 1, "--results", tmp_path / "detectors.csv")
    (row,) = read_csv(tmp_path / "detectors.csv")
    assert float(row["backbone_minimum_ms"]) < float(row["minimum_ms"])


# --- tables


def measured(**values):
    about = {"dtype": "float32", "mode": "eager", "image_size": "224", "peak_megabytes": "500.4"}
    return row_of(MODELS, **(about | values))


def table_of(name, rows):
    """The lines of a table without the rule below its header."""
    text = model_tables.TABLES[name](rows)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [lines[0], *lines[2:]]


def test_models_table(tmp_path):
    path = tmp_path / "models.csv"
    speeds = {"internimage-t": "10", "internimage-t-original": "4.4", "convnext-t": "12.5", "convnext-t-nchw": "10"}
    speeds["gone"] = "2"
    rows = [measured(model=name, images_per_second=speed) for name, speed in speeds.items()]
    merge_results(path, rows, MODELS)
    assert run("table", "--models", path).stdout.endswith(
        "| model | batch | images/s | median | peak MB | as fast as ConvNeXt-T | as fast as the original |\n"
        "| --- | --: | --: | --: | --: | --: | --: |\n"
        "| InternImage-T | 1 | 10.0 | 1.00 | 500 | 0.800x | 2.27x |\n"
        "| InternImage-T, original PyTorch core | 1 | 4.40 | 1.00 | 500 | 0.352x |  |\n"
        "| ConvNeXt-T (timm) | 1 | 12.5 | 1.00 | 500 |  |  |\n"
        "| ConvNeXt-T (timm), NCHW | 1 | 10.0 | 1.00 | 500 |  |  |\n"
        "| gone | 1 | 2.00 | 1.00 | 500 | 0.160x |  |\n"
    )


def test_ratios_are_of_what_took_turns():
    rows = [measured(model="internimage-t", date="1"), measured(model="convnext-t", date="2")]
    assert "as fast as" not in model_tables.render_models(rows)


def test_table_beside_the_slow_original():
    speeds = {"replknet-31b": "4.8", "replknet-31b-original": "0.6", "smt-t": "10"}
    rows = [measured(model=name, image_size="1", images_per_second=speed) for name, speed in speeds.items()]
    rows.append(measured(model="replknet-31b", image_size="512"))
    assert model_tables.TABLES["RepLKNet-31B"](rows) == (
        "a CPU; torch 2.0, k, 1\n"
        "\n"
        "| image | batch | dtype | threads | RepLKNet-31B, original's layout "
        "| RepLKNet-31B (as fast as the original) |\n"
        "| --: | --: | --: | --: | --: | --: |\n"
        "| 1 | 1 | float32 | 1 | 0.600 | 4.80 (8.00x) |\n"
        "| 512 | 1 | float32 | 1 |  | 1.00 |\n"
    )
    assert "RepLKNet" not in model_tables.TABLES["models"](rows) and "SMT-T" in model_tables.TABLES["models"](rows)


def test_tables_of_modes():
    speeds = {
        ("internimage-t", "eager", "float32"): "6",
        ("internimage-t", "eager", "bfloat16"): "10",
        ("internimage-t", "baseline", "bfloat16"): "8",
        ("internimage-t", "compiled", "bfloat16"): "11",
        ("internimage-t", "int8", "bfloat16"): "15",
        ("convnext-t", "eager", "bfloat16"): "12",
        ("convnext-t", "openvino-int8", "float32"): "20",
        ("convnext-t", "openvino-int8", "bfloat16"): "30",
    }
    rows = [
        measured(model=model, mode=mode, dtype=dtype, images_per_second=speed)
        for (model, mode, dtype), speed in speeds.items()
    ]
    assert table_of("compiled models", rows) == [
        "| model | dtype | threads | batch | eager, images/s | compiled: as fast as eager |",
        "| InternImage-T | bfloat16 | 1 | 1 | 10.0 | 1.10x |",
    ]
    assert table_of("8 bits", rows) == [
        "| model | the rest in | threads | batch | images/s | median | peak MB | as fast as the original in float32 "
        "| as fast as the original in bfloat16 | as fast as the baseline in bfloat16 |",
        "| InternImage-T | bfloat16 | 1 | 1 | 15.0 | 1.00 | 500 | 2.50x | 1.50x | 1.88x |",
    ]
    assert table_of("versions", rows) == [
        "| model | dtype | threads | batch | images/s | as fast as the baseline | peak MB | its peak MB |",
        "| InternImage-T | bfloat16 | 1 | 1 | 10.0 | 1.25x | 500 | 500 |",
    ]
    runtimes = table_of("runtimes", rows)
    assert runtimes[0].endswith("| as fast as ConvNeXt-T in PyTorch | as fast as ConvNeXt-T in OpenVINO |")
    assert "| InternImage-T | 8 bits | 8 bits, bfloat16 | 1 | 15.0 | 1.00 | 500 |  | 0.500x |" in runtimes
    assert "| InternImage-T | compiled | bfloat16 | 1 | 11.0 | 1.00 | 500 | 0.917x |  |" in runtimes
    assert "| ConvNeXt-T (timm) | OpenVINO, 8 bits | 8 bits, float32 | 1 | 20.0 | 1.00 | 500 |  | 0.667x |" in runtimes
    assert not any("baseline" in line for line in runtimes)


def test_without_results(tmp_path):
    assert model_tables.models_table("models", tmp_path / "none.csv") == "Not measured yet.\n"
    assert model_tables.detectors_table(tmp_path / "none.csv") == "Not measured yet.\n"


def test_a_file_from_before_memory_was_measured(tmp_path):
    path = tmp_path / "models.csv"
    merge_results(path, [measured(model="smt-t", peak_megabytes="")], MODELS)
    assert "peak MB" not in run("table", "--models", path).stdout
    merge_results(path, [measured(model="smt-t", peak_megabytes="0")], MODELS)
    assert "peak_megabytes is 0" in run("table", "--models", path, code=2).stderr
    assert DETECTORS.optional == ()
