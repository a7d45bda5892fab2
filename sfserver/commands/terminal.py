"""Everything that the command line says, made safe for a terminal.

Paths, names of files and what others wrote may hold codes that move the cursor, change the title or worse. None of them
gets through: whoever prints anything but a fixed sentence prints it by one of these.
"""

from __future__ import annotations

import typer
from rich.console import Console
from sfwire.messages import fit

_MOST_CHARS = 100_000


def safe(text: object) -> str:
    """`text` with a question mark for every control character but newline and tab."""
    return fit(str(text), _MOST_CHARS)


def say(sentence: object, *, err: bool = False) -> None:
    """One line, on stdout or stderr."""
    typer.echo(safe(sentence), err=err)


def tell(console: Console, sentence: object) -> None:
    """One line on a console that may also show a bar, as it is: no markup, no wrapping."""
    console.print(safe(sentence), markup=False, soft_wrap=True)
