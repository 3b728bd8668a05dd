"""The demo's face: headings, one sentence on why, figures, tables. Plain text in a pipe, never wider than the window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH_CHARACTERS = 100
_WIDTH_MAX_CHARACTERS = 110  # longer lines are hard to read
_INDENT = (0, 0, 0, 2)
_GAP_CELLS, _EDGE_CELLS = 3, 2  # of the screen, between two columns of a table and around it


def _fit(wanted: list[int], is_text: list[bool], room: int) -> list[int]:
    """Widths of columns: numbers what they want, texts what they want or an even share of what is left, the rest to the last."""
    left = room - sum(width for width, text in zip(wanted, is_text, strict=True) if not text)
    texts = sum(is_text)
    widths = []
    for width, text in zip(wanted, is_text, strict=True):
        if not text:
            widths.append(width)
            continue
        widths.append(max(1, min(width, left // texts)))
        left, texts = left - widths[-1], texts - 1
    return widths


class Show:
    """Prints the acts of the demo. console: given by tests."""

    def __init__(self, console: Console | None = None) -> None:
        probe = console or Console(highlight=False)
        width = min(probe.width, _WIDTH_MAX_CHARACTERS) if probe.is_terminal else _PIPE_WIDTH_CHARACTERS
        self._console = console or Console(highlight=False, width=width)
        self._live = self._console.is_terminal
        self._act = 0

    def title(self, title: str, text: str) -> None:
        self._console.print()
        self._console.print(Text(title, style="bold green"))
        self._console.print(Text(text))

    def act(self, title: str, why: str) -> None:
        """A new chapter."""
        self._act += 1
        self._console.print()
        self._console.print(Rule(Text(f"{self._act}  {title}", style="bold"), align="left", style="green"))
        self.say(why, style="dim")
        self._console.print()

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Padding(Text(text, style=style), _INDENT, expand=False))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and figures in two columns."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold", style="bold")
        for name, value in pairs:
            grid.add_row(Text(name), Text(value))
        self._console.print(Padding(grid, _INDENT, expand=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
        """numbers: names of the columns to align right and to show whole; other cells are cut where the window is narrow."""
        wanted = [max(cell_len(cells[at]) for cells in (columns, *rows)) for at in range(len(columns))]
        is_text = [column not in numbers for column in columns]
        room = self._console.width - _EDGE_CELLS - _GAP_CELLS * len(columns)
        widths = _fit(wanted, is_text, room)
        made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for column, width, text in zip(columns, widths, is_text, strict=True):
            made.add_column(column, justify="left" if text else "right", width=width, no_wrap=True, overflow="ellipsis")
        for row in rows:
            made.add_row(*map(Text, row))
        self._console.print(Padding(made, (0, 0, 0, 1), expand=False))  # its edge is the other blank

    def code(self, text: str) -> None:
        for line in text.splitlines():
            self._console.print(Padding(Text(line, style="cyan"), (0, 0, 0, 4), expand=False))

    def verdict(self, holds: bool, text: str) -> None:
        """A promise and whether it was kept."""
        mark, style = ("kept  ", "bold green") if holds else ("BROKEN", "bold red")
        self._console.print(Padding(Text.assemble((mark, style), "  ", text), _INDENT, expand=False))

    def gap(self) -> None:
        self._console.print()

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar while the block runs, on a terminal only; gives a function to say how much is done."""
        if not self._live:
            yield lambda _: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """A spinner while the block runs, on a terminal only."""
        if not self._live:
            yield
            return
        with self._console.status(what):
            yield
