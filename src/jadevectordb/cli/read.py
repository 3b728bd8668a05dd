"""Commands that read: search, get, count. In a folder or on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import numpy as np

import jadevectordb as jade
from jadevectordb.cli import terminal
from jadevectordb.cli.arguments import filter_option, json_value
from jadevectordb.cli.output import CSV, TABLE, YAML, format_option, show_facts, show_plain, show_records
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    connection_options,
    name_argument,
    open_client,
    open_database,
    place_argument,
)
from jadevectordb.client import Database as RemoteDatabase
from jadevectordb.client import Hits as RemoteHits

if TYPE_CHECKING:
    from jadevectordb.cli.places import AnyDatabase

    AnyHits: TypeAlias = jade.Hits | RemoteHits


@click.command(cls=PlaceCommand)
@place_argument
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
@click.option(
    "--embed", metavar="TEXT", help="Search by the meaning of a text: a server with embeddings makes its vector."
)
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Hits wanted.")
@filter_option
@click.option(
    "--recall", type=float, default=0.95, show_default=True, help="Share of the true best k to find; 1 is exact."
)
@click.option("--vectors", is_flag=True, help="Print the stored vectors too (JSON only).")
@click.option("--explain", is_flag=True, help="Print what the search did.")
@connection_options()
@format_option
def search(
    place: Place,
    name: str,
    vector_id: str | None,
    vector: list[Any] | None,
    file: Path | None,
    text: str | None,
    embed: str | None,
    k: int,
    condition: dict[str, Any] | None,
    recall: float,
    vectors: bool,
    explain: bool,
    output: str,
) -> None:
    """Find the vectors of NAME most like one, best first."""
    if sum(given is not None for given in (vector_id, vector, file, embed)) > 1:
        raise click.UsageError("Give one of --id, --vector, --file and --embed.")
    if vector_id is None and vector is None and file is None and text is None and embed is None:
        raise click.UsageError("Say what to search by: --id, --vector, --file, --text or --embed.")
    queries: list[Any] = [vector] if file is None else _queries(file)
    if embed is not None:
        queries = [_embedded(place, embed)]
    options: dict[str, Any] = {
        "id": vector_id,
        "k": k,
        "filter": condition,
        "recall": recall,
        "text": text,
        "explain": explain,
    }
    with open_database(place, name, dimension=1 if queries[0] is None else len(queries[0])) as database:
        found = [(at, _search(database, query, vectors, options)) for at, query in enumerate(queries)]
    if output == CSV:
        show_plain(CSV, None, [record for at, hits in found for record in _records(hits, None if file is None else at)])
    for at, hits in found:
        match output:
            case "json" | "yaml":
                if at and output == YAML:
                    click.echo("---")
                show_plain(output, _plain(hits, vectors, None if file is None else at), [])
            case "table":
                _show(hits, f"query {at}" if len(queries) > 1 else "")


def _search(database: AnyDatabase, query: Any, vectors: bool, options: dict[str, Any]) -> AnyHits:
    if isinstance(database, RemoteDatabase):
        include = ("metadata", "vector", "version") if vectors else ("metadata", "version")
        return database.search(query, include=include, **options)
    return database.search(query, **options)


def _embedded(place: Place, text: str) -> list[float]:
    if place.folder is not None:
        raise jade.JadeError(
            jade.ErrorCode.INVALID_ARGUMENT, "--embed needs a server with embeddings: give a URL instead of a folder."
        )
    with open_client(place) as client:
        answer = client.call("POST", "/v1/embeddings/generate", {"input": text, "input_type": "query"})
    vector: list[float] = answer["embeddings"][0]
    return vector


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


def _plain(hits: AnyHits, vectors: bool, query: int | None) -> dict[str, object]:
    plain: dict[str, object] = {} if query is None else {"query": query}
    plain["hits"] = [hit.as_dict(vector=vectors) for hit in hits]
    if hits.explanation is not None:
        plain["explanation"] = hits.explanation.as_dict()
    return plain


def _records(hits: AnyHits, query: int | None) -> list[dict[str, Any]]:
    """A line of CSV a hit; metadata as JSON."""
    first = {} if query is None else {"query": query}
    return [
        {**first, "rank": rank, "score": hit.score, "id": hit.id, "metadata": hit.metadata}
        for rank, hit in enumerate(_each(hits), start=1)
    ]


def _each(hits: AnyHits) -> list[Any]:
    """Hits of either kind: they have the same fields."""
    return list(hits)


def _show(hits: AnyHits, title: str) -> None:
    console = terminal.console()
    if hits:
        rows = (
            (i + 1, f"{hit.score:.4f}", hit.id, terminal.compact(hit.metadata)) for i, hit in enumerate(_each(hits))
        )
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


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.argument("ids", nargs=-1, required=True)
@click.option("--vectors", is_flag=True, help="Print the vectors too (not in tables).")
@connection_options()
@format_option
def get(place: Place, name: str, ids: tuple[str, ...], vectors: bool, output: str) -> None:
    """Print what is stored under IDS. Exit code 1 when one of them isn't there."""
    with open_database(place, name) as database:
        items = database.get(list(ids))
        plain = [None if item is None else item.as_dict(vector=vectors) for item in items]
    there = [item for item in plain if item is not None]
    if output != TABLE or there:
        show_records(output, there, ("id", "version", "metadata"), value=plain, right=("version",))
    missing = [wanted for wanted, item in zip(ids, items, strict=True) if item is None]
    if missing:
        raise jade.JadeError(jade.ErrorCode.NOT_FOUND, f"Not in {name}: {', '.join(missing)}.")


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@filter_option
@connection_options()
@format_option
def count(place: Place, name: str, condition: dict[str, Any] | None, output: str) -> None:
    """Print how many vectors there are, or match."""
    with open_database(place, name) as database:
        found = database.count(condition)
    show_facts(output, {"count": found}, str(found))


COMMANDS = (search, get, count)
