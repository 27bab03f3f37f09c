"""Feed mutated files to every reader: each must be read, or refused by an `InputError` of one line.

    python tests/fuzz/fuzz.py --runs 100000

Anything else is a finding: another exception, a crash, more than 10 seconds of processor time or 4 GB of memory, a
file left behind, a pickle that ran. An input depends only on the seed, its reader and its number, so `--only READER
--first NUMBER --runs 1` repeats it. A finding's traceback is printed, and the exit status is 1.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before anything reads them; threads do not fork
SECONDS, MEMORY = 10, 4 * 2**30


class TimeOver(BaseException):
    """Not an Exception, so that no reader takes it for a damaged file."""


def fuzz_one(reader, value, folder: Path) -> str:
    """Read one input in a folder of its own: "accepted", "refused" or what went wrong."""
    from hf_models.errors import InputError

    folder.mkdir()
    os.chdir(folder)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(value)
        outcome = "accepted"
    except InputError as error:
        outcome = "refused"
        if not str(error).isprintable() or len(str(error)) > 8000:
            outcome = f"a message of more than one line: {str(error)[:200]!r}"
    except (Exception, TimeOver):
        outcome = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.chdir(folder.parent)
    strays = [path.name for path in folder.rglob("*") if path.name not in FILES]
    shutil.rmtree(folder)
    return f"left behind: {strays}" if strays else outcome


FILES = {
    *("x.pth", "x.safetensors", "config.json", "model.safetensors", "model.safetensors.index.json", "arguments.json"),
    *(
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "preprocessor_config.json",
        "model.json",
    ),
    *("conversion_report.json", "x.jpg", "mask.png", "x.csv", "x.csv.progress-0.jsonl", "real.json", "x.parquet"),
    *("x.tar", "x.json"),
}


def work(name: str, seed: int, first: int, last: int, log: Path) -> None:
    """Run inputs first to last - 1, with limits; one line of the log for each."""
    import readers

    def over(*_):
        raise TimeOver(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGPROF, over)
    reader = readers.READERS[name]
    seeds = reader.seeds()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    folder = Path("input").absolute()
    with log.open("a") as file:
        for number in range(first, last):
            chance = random.Random(f"{seed}:{name}:{number}")
            value = reader.mutate(seeds[number % len(seeds)], chance)
            file.write(json.dumps(fuzz_one(reader, value, folder)) + "\n")
            file.flush()


def prepare() -> None:
    """Import everything once, and keep the libraries quiet."""
    import checkpoint_readers
    import datasets
    import readers  # noqa: F401
    import transformers

    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    checkpoint_readers.make_converted()


def fuzz(name: str, seed: int, first: int, runs: int) -> tuple[Counter, dict[int, str]]:
    """Run a reader's inputs in a child process, and go on in another where one dies or hangs."""
    log, outcomes = Path("log").absolute(), []
    log.write_text("")
    while len(outcomes) < runs:
        child = os.fork()
        if child == 0:
            try:
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, 1)  # what C libraries print
                os.dup2(devnull, 2)
                work(name, seed, first + len(outcomes), first + runs, log)
            except BaseException:
                Path("broken").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)
        status = wait(child, log)
        outcomes = [json.loads(line) for line in log.read_text().splitlines()]
        if status == 1:
            sys.exit(f"the fuzzer itself is broken: {Path('broken').read_text()}")
        if status:
            outcomes.append(f"the process ended with status {status}")
            log.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
            shutil.rmtree("input", ignore_errors=True)
    counts = Counter(outcome if outcome in ("accepted", "refused") else "finding" for outcome in outcomes)
    return counts, {first + i: o for i, o in enumerate(outcomes) if o not in ("accepted", "refused")}


def wait(child: int, log: Path) -> int:
    """The exit status of a child, which is killed if it answers nothing for long, not even to a signal."""
    size, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()
        elif time.monotonic() - since > 6 * SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs, of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument("--only", action="append", help="only this reader; may be given again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")
        prepare()
        found = fuzz_all(options)
        os.chdir("/")
    sys.exit(found)


def fuzz_all(options: argparse.Namespace) -> bool:
    """Fuzz each reader, print a line for it and its findings; whether there are any."""
    import readers

    chosen = options.only or list(readers.READERS)
    total = sum(readers.READERS[name].share for name in chosen)
    found = False
    print(f"{'reader':36}{'inputs':>8}{'accepted':>10}{'refused':>9}{'findings':>10}{'seconds':>9}")
    for name in chosen:
        start = time.monotonic()
        runs = max(1, -(-options.runs * readers.READERS[name].share // total))
        counts, findings = fuzz(name, options.seed, options.first, runs)
        numbers = f"{runs:8}{counts['accepted']:10}{counts['refused']:9}{counts['finding']:10}"
        print(f"{name:36}{numbers}{time.monotonic() - start:9.0f}", flush=True)
        shown = {}
        for number, outcome in findings.items():
            shown.setdefault(outcome.splitlines()[-1][:60], (number, outcome))
        for number, outcome in shown.values():
            print(f"--- {name}, input {number}:\n{outcome}", flush=True)
        found |= bool(findings)
    return found


if __name__ == "__main__":
    main()
