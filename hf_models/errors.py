"""The one error for input that cannot be used."""

MAX_LENGTH = 1000


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line, `what: what is wrong. What to do.`; the command line prints it and exits with status 2.
    Names in it may come from a hostile file, so what could move the cursor or start a line is escaped.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: object) -> str:
    """Text of unknown origin for a terminal: characters without a printed form are escaped, the middle of long text
    is left out."""
    text = str(text)
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH // 2 - 5]} ... {text[-MAX_LENGTH // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: BaseException) -> str:
    """What an error of another library says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
