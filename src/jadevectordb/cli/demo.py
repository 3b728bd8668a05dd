"""`jade demo`: what the database does, on real data, in half a minute; every figure is measured while you watch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

import jadevectordb as jade

if TYPE_CHECKING:
    from jadevectordb.cli.demo_crash import Killed, Recovered
    from jadevectordb.cli.demo_show import Show

_HITS = 3  # kills in the middle of a write
_KILLS_MAX = 6  # where the machine is so busy that some come too late
_BATCHES = 12  # acknowledged before each kill


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the databases here: a new or empty folder.")
@click.option("--keep", is_flag=True, help="Don't remove the temporary folder at the end.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the WordNet files, if not data/wordnet of the checkout.",
)
@click.option("--cluster", is_flag=True, help="Three nodes instead, one of them killed while it writes and searches.")
def demo(folder: Path | None, keep: bool, data: Path | None, cluster: bool) -> None:
    """Show what it does, on real data, in half a minute.

    Loads, searches, measures, kills itself in the middle of a write, and looks what is left.

    Ends with exit code 1 when a promise was not kept: recall far below what was asked, or an acknowledged write lost.
    """
    # Loaded here, so that `jade --help` need not wait for them
    if cluster:
        from jadevectordb.cli import demo_cluster

        if folder is not None:
            raise jade.JadeError(jade.ErrorCode.INVALID_ARGUMENT, "--folder does not go with --cluster; --keep does.")
        if not demo_cluster.run(data, keep):
            raise click.exceptions.Exit(1)
        return
    from jadevectordb.cli import demo_data, demo_search
    from jadevectordb.cli.demo_show import Show

    words = demo_data.load(data)
    show = Show()
    show.title(
        f"JadeVectorDB {jade.__version__}",
        "A vector database in your process. Everything you see is measured on this machine, now.",
    )
    with _place(folder, keep) as (place, stays):
        with jade.open(place / "wordnet") as store:
            database = store.create_database("wordnet", words.vectors.shape[1], schema=demo_search.SCHEMA)
            demo_search.load(show, database, words)
            demo_search.search(show, database, words)
            recall_kept = demo_search.recall(show, database, words)
        writes_kept = _durability(show, place / "batches")
        _next_steps(show, place if stays else None)
    if not (recall_kept and writes_kept):
        raise click.exceptions.Exit(1)


@contextmanager
def _place(folder: Path | None, keep: bool) -> Iterator[tuple[Path, bool]]:
    """A fresh folder, and whether it stays."""
    if folder is None:
        made = Path(tempfile.mkdtemp(prefix="jade-demo-"))
        try:
            yield made, keep
        finally:
            if not keep:
                shutil.rmtree(made, ignore_errors=True)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise jade.JadeError(jade.ErrorCode.ALREADY_EXISTS, f"{folder} is not an empty folder: name a new one.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise jade.JadeError(jade.ErrorCode.IO_ERROR, f"{folder} can't be made ({error.strerror}).") from error
    yield folder, True


def _durability(show: Show, folder: Path) -> bool:
    """Kill a writer several times; whether every promise was kept."""
    from jadevectordb.cli import demo_crash, demo_writer

    show.act(
        "Kill it while it writes",
        f"Another process writes batches of {demo_writer.BATCH_ROWS} vectors and prints each acknowledgement. It is ended by "
        f"kill -9 until {_HITS} kills have hit in the middle of a write; each time the folder is opened at once and every "
        "vector compared with what was sent.",
    )
    demo_writer.create(folder)
    promised: set[int] = set()
    rows: list[list[str]] = []
    tail: list[str] = []
    missing = strange = hits = 0
    while hits < _HITS and len(rows) < _KILLS_MAX:
        with show.bar(f"kill {len(rows) + 1}: batches acknowledged", _BATCHES) as done:
            killed = demo_crash.write_and_kill(folder, max(promised, default=0) + 1, _BATCHES, done)
        if killed.unplanned:
            show.verdict(False, f"the writing process ended by itself: {killed.unplanned.splitlines()[-1]}")
            return False
        promised.update(killed.acknowledged)
        with show.busy("opening the folder and comparing"):
            found = demo_crash.recover(folder, promised, killed.in_flight)
        missing, strange = missing + len(found.missing), strange + len(found.strange)
        rows.append(_kill_row(len(rows) + 1, len(promised), killed, found))
        if killed.in_flight is not None:
            hits, tail = hits + 1, killed.tail
            if found.in_flight_there:
                promised.add(killed.in_flight)  # it was seen: from now on it must stay
    if tail:
        show.say("the last lines of the last writer that was hit:", style="dim")
        show.code("\n".join([*tail, "Killed"]))
    columns = ["kill", "acked", "found", "torn", "reopened in", "batch being written"]
    show.table(columns, rows, columns[:-1])
    show.verdict(missing == 0, "every acknowledged batch is there, bit for bit")
    show.verdict(strange == 0, "nothing half-written, nothing that was not sent; all checksums are right")
    return missing == 0 and strange == 0


def _kill_row(number: int, promised: int, killed: Killed, found: Recovered) -> list[str]:
    in_flight = "none, it was between two"
    if killed.in_flight is not None:
        in_flight = "there, whole" if found.in_flight_there else "not there at all"
    there, torn = promised - len(found.missing), len(found.strange)
    return [str(number), str(promised), str(there), str(torn), f"{found.seconds * 1e3:.0f} ms", in_flight]


def _next_steps(show: Show, folder: Path | None) -> None:
    show.act("Next", "README.md starts with an example, docs/ says how it works, `make bench` compares it with others.")
    show.code(
        "import jadevectordb as jade\n"
        'db = jade.open("my-data").create_database("words", dimension=384)\n'
        'db.upsert(["a", "b"], vectors, [{"pos": "noun"}, {"pos": "verb"}])\n'
        'db.search(query, k=10, filter={"pos": "noun"})'
    )
    show.gap()
    show.code("jade --help")
    if folder is not None:
        show.code(f"jade search {folder / 'wordnet'} wordnet --text restoration -k 3")
    show.gap()
