"""`hf-models push`, killed at random moments: the branch shows whole commits only, and a rerun completes them."""

import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hf_models.conversion.publish import push_model

from ..harness.hub_double import Fault, Hub
from ..harness.hub_routes import TOKEN, Response
from ..harness.hub_tester import tiny_folder

REPO = "acme/model"
PHASES = ("before the repository", "before the weights' commit", "before the card's commit", "after all")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The reruns are of this process."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("push") / "smt", "smt")


def commits(hub: Hub) -> dict[str, dict[str, bytes]]:
    """The branch's commits, oldest first, with their files; the double's shas follow from content and history."""
    with hub.lock:
        if ("models", REPO) not in hub.repos:
            return {}
        return {sha: hub.files(REPO, revision=sha) for sha in hub.repos["models", REPO].commits}


def push(hub: Hub, folder: Path) -> dict[str, dict[str, bytes]]:
    """Push in this process; returns the commits."""
    push_model(folder, REPO, api=HfApi(endpoint=hub.url, token=TOKEN), progress=False)
    return commits(hub)


@contextmanager
def started(hub: Hub, folder: Path, home: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "hf_models.cli", "push", str(folder), "--repo", REPO]
    environment = os.environ | hub.environment(home) | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield process


def killing(process: subprocess.Popen, number: int, arrives: bool) -> Fault:
    """Kill a process by its n-th request, which is carried out if it `arrives`; the answer reaches nobody."""
    numbers = itertools.count(1)

    def fault(request, respond):
        if next(numbers) != number:
            return respond()
        response = respond() if arrives else Response(503)
        process.kill()
        process.wait()
        return response

    return fault


def kill_and_rerun(folder: Path, work: Path, moments: list[tuple[int, bool] | float]) -> Counter:
    """Kill a push at each moment, which is a request or a number of seconds; returns how often it was in which phase.

    Then, and all the time before, the branch shows some of the commits of an undisturbed push; after a rerun all.
    """
    with Hub() as hub:
        whole = push(hub, folder)
    assert len(whole) == 3, "the empty repository, the model, the card that names it"
    prefixes = [dict(itertools.islice(whole.items(), number)) for number in range(len(whole) + 1)]
    phases = Counter()
    for moment in moments:
        with Hub() as hub, started(hub, folder, work / "home") as process:
            if isinstance(moment, tuple):
                hub.inject("", killing(process, *moment))
            until = time.monotonic() + (moment if isinstance(moment, float) else 300)
            while process.poll() is None:
                assert commits(hub) in prefixes
                if time.monotonic() > until:
                    process.kill()
                time.sleep(0.01)
            seen = commits(hub)
            assert seen in prefixes
            if process.returncode:
                phases[PHASES[len(seen)]] += 1
            assert push(hub, folder) == whole
    return phases


def requests_of(folder: Path) -> int:
    """How many requests an undisturbed push makes."""
    with Hub() as hub:
        push(hub, folder)
        return len(hub.requests)


def test_killed_at_three_moments(folder, tmp_path):
    chance, requests = random.Random(1), requests_of(folder)
    moments = [(number, chance.random() < 0.5) for number in chance.sample(range(2, requests), 3)]
    assert kill_and_rerun(folder, tmp_path, moments).total() == 3


@pytest.mark.slow
def test_killed_at_twenty_moments(folder, tmp_path):
    """Ten by their requests, ten by the clock."""
    chance, requests = random.Random(0), requests_of(folder)
    began = time.monotonic()
    with Hub() as hub, started(hub, folder, tmp_path / "home") as process:
        assert process.wait() == 0
    seconds = time.monotonic() - began
    moments = [(chance.randint(1, requests), chance.random() < 0.5) for _ in range(10)]
    moments += [chance.uniform(0, seconds) for _ in range(10)]
    phases = kill_and_rerun(folder, tmp_path, moments)
    print(dict(phases))
    assert phases.total() >= 15 and phases.keys() >= set(PHASES[:3])
