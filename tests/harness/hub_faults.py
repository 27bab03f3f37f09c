"""What goes wrong between a client and the Hub, for `Hub.inject`."""

from collections.abc import Callable
from threading import Event

from .hub_double import Fault
from .hub_routes import Request, Response


def failing(status: int) -> Fault:
    """An error of the server."""
    return lambda request, respond: Response(status, {"error": "injected"})


def cut(after: int) -> Fault:
    """The connection breaks after so many bytes of the body."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        response = respond()
        response.cut = after
        return response

    return fault


def changed(body: Callable[[bytes], bytes]) -> Fault:
    """Other bytes than those that were asked for, under the same headers; of another length too, if so wished."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        response = respond()
        response.body = body(response.body)
        return response

    return fault


def wrong_length(difference: int) -> Fault:
    """A `Content-Length` that is not that of the body."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        response = respond()
        response.headers["Content-Length"] = str(len(response.body) + difference)
        response.cut = len(response.body)
        return response

    return fault


def stalled(until: Event, seconds: float) -> Fault:
    """No answer before `until` is set, such as `Hub.closing`, or so many seconds have passed."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        until.wait(seconds)
        return respond()

    return fault


def paused(after: int, until: Event) -> Fault:
    """The body stops after so many bytes, and the connection stays open until `until` is set."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        response = respond()
        response.cut, response.held = after, until
        return response

    return fault


def after(action: Callable[[], object]) -> Fault:
    """Something happens on the server right after the answer is made, such as a commit."""

    def fault(request: Request, respond: Callable[[], Response]) -> Response:
        response = respond()
        action()
        return response

    return fault
