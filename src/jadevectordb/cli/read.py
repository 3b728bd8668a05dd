"""Commands that read: search, get, count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import (
    JSON,
    filter_option,
    folder_argument,
    format_option,
    json_value,
    name_argument,
    open_database,
)


@click.command()
@folder_argument
@name_argument
@click.option("--id", "vector_id", help="Search by a stored vector; it is left out of the hits.")
@click.option(
    "--vector", metavar="JSON", callback=json_value(list, "[0.1, 0.2]"), help="Search by these values: a JSON array."
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Search by each row of a .npy file (one vector, or a vector a row).",
)
@click.option("--text", help="Search the text fields by words; with a vector too, both rankings are fused.")
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Hits wanted.")
@filter_option
@click.option(
    "--recall", type=float, default=0.95, show_default=True, help="Share of the true best k to find; 1 is exact."
)
@click.option("--vectors", is_flag=True, help="Print the stored vectors too (JSON only).")
@click.option("--explain", is_flag=True, help="Print what the search did.")
@format_option
def search(
    folder: Path,
    name: str,
    vector_id: str | None,
    vector: list[Any] | None,
    file: Path | None,
    text: str | None,
    k: int,
    condition: dict[str, Any] | None,
    recall: float,
    vectors: bool,
    explain: bool,
    output: str,
) -> None:
    """Find the vectors of NAME most like one, best first."""
    if sum(given is not None for given in (vector_id, vector, file)) > 1:
        raise click.UsageError("Give one of --id, --vector and --file.")
    if vector_id is None and vector is None and file is None and text is None:
        raise click.UsageError("Say what to search by: --id, --vector, --file or --text.")
    queries: list[Any] = [vector] if file is None else _queries(file)
    with open_database(folder, name) as database:
        for at, query in enumerate(queries):
            hits = database.search(
                query, id=vector_id, k=k, filter=condition, recall=recall, text=text, explain=explain
            )
            if output == JSON:
                terminal.print_json(_plain(hits, vectors, None if file is None else at))
            else:
                _show(hits, f"query {at}" if len(queries) > 1 else "")


def _queries(file: Path) -> list[Any]:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise jade.JadeError(jade.ErrorCode.INVALID_ARGUMENT, f"{file} is not a whole .npy file of numbers.") from error
    if not isinstance(values, np.ndarray) or values.ndim not in (1, 2):
        raise jade.JadeError(
            jade.ErrorCode.INVALID_ARGUMENT, f"{file} must hold one array: one vector, or a vector a row."
        )
    return list(np.atleast_2d(values))


def _plain(hits: jade.Hits, vectors: bool, query: int | None) -> dict[str, object]:
    plain: dict[str, object] = {} if query is None else {"query": query}
    plain["hits"] = [hit.as_dict(vector=vectors) for hit in hits]
    if hits.explanation is not None:
        plain["explanation"] = hits.explanation.as_dict()
    return plain


def _show(hits: jade.Hits, title: str) -> None:
    console = terminal.console()
    if hits:
        rows = ((i + 1, f"{hit.score:.4f}", hit.id, terminal.compact(hit.metadata)) for i, hit in enumerate(hits))
        console.print(terminal.table(("", "score", "id", "metadata"), rows, right=("", "score"), title=title))
    else:
        click.echo(f"{title}: nothing matches." if title else "Nothing matches.")
    if hits.explanation is not None:
        _show_explanation(hits.explanation.as_dict())


def _show_explanation(plan: dict[str, Any]) -> None:
    columns = (
        "segment",
        "strategy",
        "reason",
        "rows",
        "matches",
        "compared",
        "lists",
        "nprobe",
        "filter_us",
        "search_us",
    )
    rows = [
        [f"{segment[c]:.0f}" if c.endswith("_us") else segment[c] for c in columns]
        for segment in plan["segments"]
        if segment["rows"]
    ]
    if rows:  # none for words alone
        terminal.console().print(terminal.table(columns, rows, right=columns[3:]))
    words = f", words {' '.join(plan['text_terms'])}" if plan["text_terms"] else ""
    fused = f", fused by {plan['fusion']}" if plan["fusion"] else ""
    click.echo(f"recall asked {plan['recall']}, {plan['total_us']:.0f} us in all{words}{fused}")


@click.command()
@folder_argument
@name_argument
@click.argument("ids", nargs=-1, required=True)
@click.option("--vectors", is_flag=True, help="Print the vectors too (JSON only).")
@format_option
def get(folder: Path, name: str, ids: tuple[str, ...], vectors: bool, output: str) -> None:
    """Print what is stored under IDS. Exit code 1 when one of them isn't there."""
    with open_database(folder, name) as database:
        items = database.get(list(ids))
        if output == JSON:
            terminal.print_json([None if item is None else item.as_dict(vector=vectors) for item in items])
        else:
            rows = [(item.id, item.version, terminal.compact(item.metadata)) for item in items if item is not None]
            if rows:
                terminal.console().print(terminal.table(("id", "version", "metadata"), rows, right=("version",)))
        missing = [wanted for wanted, item in zip(ids, items, strict=True) if item is None]
    if missing:
        raise jade.JadeError(jade.ErrorCode.NOT_FOUND, f"Not in {name}: {', '.join(missing)}.")


@click.command()
@folder_argument
@name_argument
@filter_option
@format_option
def count(folder: Path, name: str, condition: dict[str, Any] | None, output: str) -> None:
    """Print how many vectors there are, or match."""
    with open_database(folder, name) as database:
        found = database.count(condition)
    if output == JSON:
        terminal.print_json({"count": found})
    else:
        click.echo(found)


COMMANDS = (search, get, count)
