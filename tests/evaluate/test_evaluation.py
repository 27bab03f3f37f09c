"""What all evaluations share, with one that ranks the detections of a whole data set."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_models.errors import InputError
from hf_models.evaluate.machine import choose_device
from hf_models.evaluate.run import run
from hf_models.evaluate.settings import Settings

from ..harness import ranking_evaluation as harness
from ..harness.ranking_evaluation import NUM_IMAGES, RankingEvaluation, average_precision, ranking_evaluation


@pytest.fixture(scope="module")
def expected():
    """Every image measured for itself, without the choreography."""
    evaluation = ranking_evaluation()
    records = [evaluation.measure([evaluation.prepare(sample)])[0] for sample in evaluation.selection.samples()]
    assert len({len(record) for record in records}) == 7
    return average_precision(records), {"detections": [len(record) for record in records]}


def killed(path: Path, images: int) -> None:
    """Evaluate until so many images are measured."""
    evaluation = ranking_evaluation()
    measured = []

    def measure(batch):
        if len(measured) == images:
            raise KeyboardInterrupt
        measured.extend(batch)
        return RankingEvaluation.measure(evaluation, batch)

    evaluation.measure = measure
    with pytest.raises(KeyboardInterrupt):
        run(evaluation, Settings(1, device="cpu", results=path))


def check(rows, details, path, expected):
    assert (float(rows[0]["value"]), details) == (round(expected[0], 4), expected[1])
    with path.open() as file:
        assert list(csv.DictReader(file)) == [{column: rows[0][column] for column in rows[0]}]
    assert rows[0]["n"] == str(NUM_IMAGES) and rows[0]["kernel"] == "none"
    assert [file.name for file in path.parent.iterdir()] == [path.name], "the journal is gone"


@pytest.mark.parametrize("count", [NUM_IMAGES, None])
@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (7, 2), (64, 3)])
def test_a_ranking_of_all_detections(count, batch_size, num_workers, tmp_path, expected):
    path = tmp_path / "ranking.csv"
    settings = Settings(batch_size, device="cpu", num_workers=num_workers, results=path)
    check(*run(ranking_evaluation(count), settings), path, expected)


def test_interrupted_and_resumed(tmp_path, expected):
    path = tmp_path / "ranking.csv"
    killed(path, 11)
    evaluation, measured = ranking_evaluation(), []
    evaluation.measure = lambda batch: measured.extend(batch) or RankingEvaluation.measure(evaluation, batch)
    check(*run(evaluation, Settings(4, device="cpu", results=path, resume=True)), path, expected)
    assert len(measured) == NUM_IMAGES - 11, "nothing is measured twice"


def test_resumed_by_two_processes(tmp_path, expected):
    path = tmp_path / "ranking.csv"
    killed(path, 11)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, harness.__file__, str(path)], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    check(*json.loads(done.stdout), path, expected)


def test_a_data_set_that_ends_early_is_refused(tmp_path):
    with pytest.raises(InputError, match="numbers: 40 images were read, 41 expected"):
        run(ranking_evaluation(41), Settings(device="cpu", results=tmp_path / "ranking.csv"))
    assert not any(tmp_path.iterdir())


def test_records_that_say_nothing_are_refused(tmp_path):
    def reduce(records):
        raise InputError("no detection")

    evaluation = ranking_evaluation()
    evaluation.reduce = reduce
    with pytest.raises(InputError, match="no detection"):
        run(evaluation, Settings(device="cpu", results=tmp_path / "ranking.csv"))
    assert not any(tmp_path.iterdir())


def test_journals_of_other_evaluations_are_refused(tmp_path):
    path = tmp_path / "ranking.csv"
    killed(path, 3)
    evaluation = ranking_evaluation()
    evaluation.depends_on = {"flip": "True"}
    with pytest.raises(InputError, match=r"belongs to another evaluation \(flip differs\)"):
        run(evaluation, Settings(device="cpu", results=path, resume=True))


def test_the_gpu_is_the_default_where_there_is_one(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device(None) == name
        assert choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match="cuda: PyTorch finds no GPU"):
        choose_device("cuda")
