"""What commands print for people: wide where nothing has a width, plain where nobody sees."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType

_WIDTH_OF_PIPES = 200


def console() -> Console:
    """Return the standard output; a pipe gets long lines rather than broken ones."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    # Colours can be forced by the environment; a pipe gets none all the same.
    return Console(highlight=False, width=_WIDTH_OF_PIPES, force_terminal=False, color_system=None)


def show(view: RenderableType) -> None:
    """Print a view, without the spaces that fill its lines."""
    printer = console()
    if printer.is_terminal:
        printer.print(view)
        return
    with printer.capture() as captured:
        printer.print(view)
    for line in captured.get().splitlines():
        print(line.rstrip())
