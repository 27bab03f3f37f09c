"""The choreography of every evaluation: measure the images, reduce the records, keep the rows."""

import hashlib
from typing import Any

import transformers

from hf_models import __version__
from hf_models.errors import InputError

from .evaluation import Evaluation
from .journal import Journal
from .machine import choose_device, machine
from .measuring import Measured, measure_images
from .processes import Processes
from .results import ACCURACY, merge_results
from .settings import Settings


def run(evaluation: Evaluation, settings: Settings) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Evaluate, in one process or in each of several.

    What is measured is kept in a journal beside `settings.results` until the rows are there.

    Returns:
        The rows, as in the results, and the details; both are empty in all processes but the first.

    Raises:
        InputError: An image or an output of the model cannot be used, or a file cannot be written.
    """
    device = choose_device(settings.device)
    journal = Journal(settings.results, _key(evaluation), settings.resume)
    processes = Processes(device)
    evaluation.model.to(processes.device)
    measured = measure_images(evaluation, settings, journal, processes)
    processes.close()
    if measured is None:
        return [], {}
    try:
        _check_number(evaluation, len(measured.records))
        outcome = evaluation.reduce(measured.records)
    except InputError:
        journal.remove()
        raise
    rows = _rows(evaluation, outcome.metrics, measured, device)
    if settings.results:
        merge_results(settings.results, rows, ACCURACY)
    journal.remove()
    return rows, outcome.details


def _key(evaluation: Evaluation) -> dict[str, str]:
    """All that a record depends on, as the journal keeps it."""
    loaded, selection = evaluation.loaded, evaluation.selection
    preparation = loaded.model.config.to_json_string() + loaded.processor.to_json_string()
    return {
        "evaluation": type(evaluation).__name__,
        "version": __version__,
        "model": f"{loaded.name}, {loaded.revision}",
        "config": hashlib.sha256(preparation.encode()).hexdigest()[:16],
        "data": f"{selection.data.name}, {selection.data.fingerprint}",
        "limit": str(selection.limit),
        "dtype": loaded.dtype,
        **evaluation.depends_on,
    }


def _check_number(evaluation: Evaluation, number: int) -> None:
    """Refuse the result of a data set that held more or fewer images than it said."""
    data, expected = evaluation.selection.data, evaluation.selection.count
    if number == 0 or expected not in (None, number):
        raise InputError(
            f"{data.name}: {number:,} images were read, {expected or 'some'} expected. Nothing was written."
        )


def _rows(evaluation: Evaluation, metrics: dict[str, float], measured: Measured, device: str) -> list[dict[str, str]]:
    """One row for each metric, a percentage."""
    loaded, selection = evaluation.loaded, evaluation.selection
    about = {
        "model": loaded.name,
        "revision": loaded.revision,
        "data": selection.title,
        "fingerprint": selection.data.fingerprint,
        "options": evaluation.options,
        "dtype": loaded.dtype,
        "processor": evaluation.processor,
        "size": evaluation.size,
        "n": str(len(measured.records)),
        "seconds": f"{measured.seconds:.3f}",
        **machine(device, loaded.kernels),
        "transformers": transformers.__version__,
    }
    return [
        about | {"metric": selection.prefix + metric, "value": f"{value:.4f}"} for metric, value in metrics.items()
    ]
