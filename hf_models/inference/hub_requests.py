"""Requests to the Hub: what its ids look like, and that each request comes to an end."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # ORG/NAME


@contextmanager
def limited_requests() -> Iterator[None]:
    """Give up on a Hub that does not answer, and report retries to nobody: the last error says what went wrong.

    huggingface_hub asks for commits and lists of files without a limit, and repeats a request for headers with one of
    its own, a minute. Here no wait is longer than `HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT` say.
    """
    client, verbosity = get_session(), logging.get_verbosity()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "request": [*hooks["request"], _limit]}
    logging.set_verbosity(logging.CRITICAL)
    shown = not are_progress_bars_disabled()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
        logging.set_verbosity(verbosity)
        client.event_hooks = hooks


def _limit(request: Any) -> None:
    """Lower the limits of a request, of the HTTP library that huggingface_hub happens to use."""
    longest = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        kind: min(limits.get(kind) or longest, longest) for kind in ("connect", "read", "write", "pool")
    }
