"""What the user can mend. The command line prints it as one line, without a traceback."""


class UserError(ValueError):
    """`str(error)` is one sentence with the value, the limit and the remedy."""
