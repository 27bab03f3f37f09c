"""The benchmarks of the operators of detectors: all implementations compute the same. No times are tested."""

import dataclasses
import runpy

import pytest
import torch

from hf_models.evaluate.speed import attention_operator
from hf_models.evaluate.speed.implementations import check_agreement
from hf_models.evaluate.speed.operators import OPERATORS

from ..harness.kernel_builder import KERNELS_SRC, skip_without_compiler
from .test_benchmark import read_csv, run

SIZES = {
    "winograd-conv": (2, 64, 32, 14, 15),
    "deformable-attention": (1, 50, 2, 8),
    "roi-align": (1, 60, 4, 7),
    "nms": (1, 60, 3),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SIZES)
def test_every_implementation_computes_the_same(name, dtype):
    skip_without_compiler()
    operator, size = OPERATORS[name], SIZES[name]
    candidates = operator.implementations(size, dtype, "cpu")
    assert candidates[0].name == "ours" and len(candidates) > 1
    exact = operator.expected(size)(*(tensor.float() for tensor in candidates[0].inputs))
    for candidate in candidates:
        check_agreement(candidate.name, candidate.function(*candidate.inputs), exact)


@pytest.mark.parametrize("name", SIZES)
def test_they_are_timed_in_every_direction_that_there_is(name, monkeypatch, tmp_path):
    skip_without_compiler()
    monkeypatch.setitem(OPERATORS, name, dataclasses.replace(OPERATORS[name], shapes={"small": SIZES[name]}))
    path = tmp_path / "operators.csv"
    run("ops", "--operator", name, "--rounds", 1, "--results", path)
    rows = read_csv(path)
    directions = {"forward", "backward"} if OPERATORS[name].gradients else {"forward"}
    assert {row["direction"] for row in rows if row["implementation"] == "ours"} == directions
    assert {row["direction"] for row in rows if row["implementation"].startswith("plain C++")} <= {"forward"}


def test_the_kernels_own_benchmark_has_the_same_shapes():
    module = runpy.run_path(str(KERNELS_SRC / "detection-ops" / "benchmarks" / "benchmark.py"))
    assert module["LEVELS"] == attention_operator.LEVELS
    assert module["QUERIES"] == {name: size[1] for name, size in attention_operator.SHAPES.items()}
