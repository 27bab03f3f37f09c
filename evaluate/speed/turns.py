"""Contestants of a benchmark that take turns, each in a process of its own.

So each has its own threads, settings and memory, and its own version of this package where that is what is compared.
"""

import json
import signal
import subprocess
import sys
import tempfile
from typing import Any

from hf_models.errors import InputError

from . import worker


class Worker:
    """A process that runs one contestant; see `worker.py`.

    Args:
        name: What it is called in errors.
        python: The Python that runs it, of this environment or another.

    Raises:
        InputError: It cannot be started, or cannot do what it is asked for.
    """

    def __init__(self, name: str, python: str = sys.executable):
        self.name = name
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        command = [python, "-P", "-W", "ignore", worker.__file__]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
            )
        except OSError as error:
            raise InputError(f"{python}: cannot be run ({error.strerror}). Name a Python.") from None

    def ask(self, **request) -> Any:
        """The answer to a request of `worker.main`, when it is done."""
        try:
            self.process.stdin.write(f"{json.dumps(request)}\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise InputError(f"{self.name}: its process ended ({self._why()}).") from None
        if "error" in answer:
            raise InputError(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End the process, also in the middle of a run."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _why(self) -> str:
        code = self.process.wait()
        if code < 0:
            advice = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return signal.Signals(-code).name + advice
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {code}"
