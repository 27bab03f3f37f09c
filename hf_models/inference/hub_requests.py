"""Requests to the Hub: what its ids look like, that each request comes to an end, and that hiccups end none."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # ORG/NAME
HICCUPS = (500, 502, 503, 504)  # what a server answers that may be well again in a moment
WAITS = (1, 2, 4, 8)  # seconds before it is asked again


@contextmanager
def limited_requests() -> Iterator[None]:
    """Give up on a Hub that does not answer, and go on where it only stumbles.

    huggingface_hub repeats most requests by itself, which is reported to nobody: the last error says what went wrong.
    It does not repeat the request for a file that a server answers with an error of its own; here it is, and a line
    on standard error says so.

    huggingface_hub asks for commits and lists of files without a limit, and repeats a request for headers with one of
    its own, a minute. Here no wait is longer than `HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT` say.
    """
    client, verbosity = get_session(), logging.get_verbosity()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "request": [*hooks["request"], _limit]}
    send = client.send
    client.send = _repeating(send)
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
        client.send = send


def _limit(request: Any) -> None:
    """Lower the limits of a request, of the HTTP library that huggingface_hub happens to use."""
    longest = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        kind: min(limits.get(kind) or longest, longest) for kind in ("connect", "read", "write", "pool")
    }


def _repeating(send: Callable[..., Any]) -> Callable[..., Any]:
    """The method that sends a request, which asks for a file again after a hiccup of the server."""

    def send_again(request: Any, **kwargs) -> Any:
        for wait in WAITS:
            response = send(request, **kwargs)
            if request.method != "GET" or response.status_code not in HICCUPS:
                return response
            response.close()
            print(f"{request.url.host}: answered {response.status_code}, asked again in {wait} s", file=sys.stderr)
            time.sleep(wait)
        return send(request, **kwargs)

    return send_again
