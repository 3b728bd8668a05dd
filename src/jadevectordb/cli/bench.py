"""`jade bench`: how fast searches of one's own data are on this machine, and what they find."""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import jadevectordb as jade
from jadevectordb.cli.arguments import filter_option
from jadevectordb.cli.output import format_option, show_facts
from jadevectordb.cli.places import (
    Place,
    PlaceCommand,
    connection_options,
    name_argument,
    open_database,
    place_argument,
)

if TYPE_CHECKING:
    from jadevectordb.cli.places import AnyDatabase

_QUERIES = 200
_COMPARED = 50  # queries that are repeated exactly, to see what was found
_WARM_UP = 20


@click.command(cls=PlaceCommand)
@place_argument
@name_argument
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="How long to search.")
@click.option("--clients", type=click.IntRange(1, 64), default=1, show_default=True, help="Searches at the same time.")
@click.option("-k", "--k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Hits wanted.")
@click.option("--recall", type=float, default=0.95, show_default=True, help="Share of the true best k to find.")
@filter_option
@connection_options(curl=False)
@format_option
def bench(
    place: Place,
    name: str,
    seconds: float,
    clients: int,
    k: int,
    recall: float,
    condition: dict[str, Any] | None,
    output: str,
) -> None:
    """Search NAME again and again, and say how fast that was and what it found.

    The queries are vectors of NAME, slightly changed. Recall is measured by repeating some of them exactly. Threads of one
    Python process do the asking: a server may be able to do more.
    """
    options: dict[str, Any] = {"k": k, "recall": recall, "filter": condition}
    with open_database(place, name) as database:
        queries = _queries(database)
        for query in queries[:_WARM_UP]:
            database.search(query, **options)
        walls, elapsed = _searched(database, queries, options, seconds, clients)
        found = _recall(database, queries[:_COMPARED], options)
    p50, p95, p99 = (float(np.percentile(walls, at)) * 1e3 for at in (50, 95, 99))
    show_facts(
        output,
        {
            "searches": len(walls),
            "searches a second": round(len(walls) / elapsed, 1),
            "p50 ms": round(p50, 3),
            "p95 ms": round(p95, 3),
            "p99 ms": round(p99, 3),
            f"recall@{k} found": round(found, 4),
            "recall asked for": recall,
            "clients": clients,
        },
    )


def _queries(database: AnyDatabase) -> list[Any]:
    """Stored vectors with a little noise (bits as they are), so that no query is its own answer."""
    items: list[Any] = list(islice(database.items(), _QUERIES))
    if not items:
        raise jade.JadeError(jade.ErrorCode.INVALID_ARGUMENT, "The database is empty: there is nothing to search.")
    if database.metric == "hamming":
        return [item.vector for item in items]
    noise = np.random.default_rng(1)
    return [
        item.vector + noise.normal(0, 0.1 * (float(np.std(item.vector)) or 1.0), len(item.vector)) for item in items
    ]


def _searched(
    database: AnyDatabase, queries: list[Any], options: dict[str, Any], seconds: float, clients: int
) -> tuple[list[float], float]:
    """(wall seconds of every search, seconds in all). The first error of any thread is raised."""
    walls: list[list[float]] = [[] for _ in range(clients)]
    errors: list[jade.JadeError] = []
    until = time.perf_counter() + seconds

    def search(number: int) -> None:
        at = number * len(queries) // clients
        try:
            while (started := time.perf_counter()) < until and not errors:
                database.search(queries[at % len(queries)], **options)
                walls[number].append(time.perf_counter() - started)
                at += 1
        except jade.JadeError as error:
            errors.append(error)

    started = time.perf_counter()
    threads = [threading.Thread(target=search, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [wall for each in walls for wall in each], time.perf_counter() - started


def _recall(database: AnyDatabase, queries: list[Any], options: dict[str, Any]) -> float:
    shares = []
    for query in queries:
        exact = {hit.id for hit in database.search(query, **{**options, "recall": 1.0})}
        found = {hit.id for hit in database.search(query, **options)}
        shares.append(len(found & exact) / len(exact) if exact else 1.0)
    return float(np.mean(shares))


COMMANDS = (bench,)
