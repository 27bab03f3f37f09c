"""How long `train_default.py` may train for a given cost, so that models of different speed can be compared."""

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train_default import Run

TIMED_STEPS = 4  # the fastest counts; the first of a size is slower


def affordable_epochs(run: "Run", cpu_minutes: float) -> float:
    """The epochs that cost so much CPU time in all threads of this process, from a few steps of each image size.

    A run that goes on keeps the epochs that it was begun with. The steps change `run`, which has to be thrown away.

    Args:
        run: A new run, at its first step.
        cpu_minutes: CPU time of all training steps; measuring the accuracy is not counted.
    """
    if run.processes.num_processes > 1:
        raise SystemExit("--cpu-minutes measures one process only. Give --epochs instead, or start one process.")
    written = run.folder / "run.json"
    if written.exists():
        return json.loads(written.read_text())["epochs"]
    seconds_per_step, begin = 0.0, 0.0
    for end, *_ in run.phases:
        run.step = round(begin * run.total_steps)
        times = []
        for _ in range(TIMED_STEPS):
            before = time.process_time()
            run.train_step()
            times.append(time.process_time() - before)
        seconds_per_step += (end - begin) * min(times)
        begin = end
    return round(60 * cpu_minutes / seconds_per_step / run.steps_per_epoch, 3)
