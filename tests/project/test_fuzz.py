"""A short run of the fuzzer: every reader answers damaged files with one line; see `tests/fuzz/fuzz.py`."""

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[1] / "fuzz" / "fuzz.py"


def test_short_run():
    done = subprocess.run([sys.executable, FUZZER, "--runs", "1000"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs, accepted, refused, findings = (
        sum(int(line.split()[-5 + column]) for line in done.stdout.splitlines()[1:]) for column in range(4)
    )
    assert inputs >= 1000 and findings == 0
    assert accepted > 100 and refused > 500, "neither all is refused nor all accepted"
