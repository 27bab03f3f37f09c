"""Makes our classes known to the common tests, and holds a family's skips to those of ConvNext of transformers."""

import re
from collections import Counter, defaultdict

from transformers.models.auto import modeling_auto

from hf_models.auto import FAMILIES

YARDSTICK = "convnext"

# The common tests look classes up by name, in tables that `AutoModel.register` leaves alone.
for config, model, classifier, backbone in FAMILIES:
    modeling_auto.MODEL_MAPPING_NAMES[config.model_type] = model.__name__
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[config.model_type] = classifier.__name__
    modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES[config.model_type] = backbone.__name__

outcomes = defaultdict(Counter)  # family -> outcome -> number of tests
skips = defaultdict(dict)  # family -> (test, reason without class names) -> node id


def pytest_runtest_logreport(report):
    if report.passed and (report.when != "call" or hasattr(report, "context")):  # only subtests have a context
        return
    _, suite, test = report.nodeid.split("::")
    family, _ = suite.split("__")
    outcomes[family][report.outcome] += 1
    if report.skipped:
        reason = re.sub(r"<class '.*?'>|\w+(Model|ForImageClassification|Backbone)\b", "<class>", report.longrepr[2])
        skips[family][test, reason] = report.nodeid


def unexplained():
    """Skips of our families that ConvNext does not share, as (node id, reason)."""
    if YARDSTICK not in skips:  # not selected in this run
        return []
    return [
        (node_id, reason)
        for family in {config.model_type for config, *_ in FAMILIES} & skips.keys()
        for (test, reason), node_id in skips[family].items()
        if (test, reason) not in skips[YARDSTICK]
    ]


def pytest_sessionfinish(session):
    if unexplained() and not session.exitstatus:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    for family, counts in sorted(outcomes.items()):
        counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "skipped", "failed"))
        terminalreporter.write_line(f"{family:18} {counted}")
    for node_id, reason in unexplained():
        terminalreporter.write_line(f"{node_id}: skipped, but not by {YARDSTICK}: {reason}", red=True)
