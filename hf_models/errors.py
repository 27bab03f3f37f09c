"""The one error for input that cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line, `what: what is wrong. What to do.`; the command line prints it and exits with status 2.
    """
