"""The memory that a command takes at most."""

import os
import subprocess
import sys
from pathlib import Path

# not getrusage, whose peak includes that of the process which started this one
COMMAND = """
import sys
from hf_models.cli import app

app(sys.argv[1:], standalone_mode=False)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_memory(*arguments: str, cwd: Path) -> int:
    """Run `hf-models` in a folder, on one thread; returns its peak in KB, PyTorch included."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])
