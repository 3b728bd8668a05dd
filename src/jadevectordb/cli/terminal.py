"""How commands show things: tables and colours on a terminal, plain text in a pipe, JSON for programs.

Colours, spinners and progress bars appear on a terminal only; results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH_CHARACTERS = 160  # of a table that is not shown on a terminal, where no window says how wide it is


def console(*, stderr: bool = False, plain_width: int = PLAIN_WIDTH_CHARACTERS) -> Console:
    """A console on the real stdout or stderr. rich is imported here, so that `jade --help` need not wait for it."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=plain_width)
    return made


def accept_any_character() -> None:
    """Characters that the terminal's encoding lacks become question marks instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), title: str = ""
) -> Table:
    """Cells are shown as they are: square brackets in data are not markup. right: columns of numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def print_json(value: object) -> None:
    """A JSON document: indented on a terminal, on a line of its own in a pipe."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def compact(metadata: Mapping[str, Any]) -> str:
    """Metadata for one cell."""
    return ", ".join(f"{key}={_short(value)}" for key, value in metadata.items())


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def bytes_text(count: int) -> str:
    """1.5 MB and the like, powers of ten."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on stderr while the block runs, on a terminal only."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield
        return
    with shown.status(what):
        yield
