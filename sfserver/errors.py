"""What the user can mend. The command line prints it as one line, without a traceback."""

USER_ERROR = 2
CANCELLED = 130
"""Exit codes, as shells know them."""


class UserError(ValueError):
    """`str(error)` is one sentence with the value, the limit and the remedy."""


def quoted(value: object, most: int = 80) -> str:
    """What somebody else wrote, fit for a sentence: on one line, without control characters, and not all of it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
