"""What every `jade cluster` question shares: which cluster is meant, its client, and the local cluster's processes where it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from jadevectordb.cli.local_cluster import LocalCluster, LocalNode
from jadevectordb.cli.output import format_option
from jadevectordb.cli.places import connection_options, is_curl, names_server, open_client, timeout_given
from jadevectordb.client import Client
from jadevectordb.client.core import timeouts_of

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FOLDER = "jade-cluster"
_LOCAL_S = 20.0  # for a question to the cluster on this machine, retries included: a failover takes less
data_option = click.option(
    "--data", metavar="DIR", default=_FOLDER, show_default=True, help="Folder of a cluster on this machine."
)


def asks(function: _Function) -> _Function:
    """The options of every question over REST; the command gets `data` and `output`."""
    return connection_options()(data_option(format_option(function)))


@contextmanager
def client_of(data: str) -> Iterator[Client]:
    folder = Path(data)
    if not names_server() and (folder / "cluster.json").exists():
        local = LocalCluster.open(folder)
        if is_curl():
            raise click.UsageError("--curl shows a request to one server: name it with --url.")
        with local.client(timeouts=timeouts_of(timeout_given() or _LOCAL_S)) as client:
            yield client
    else:
        with open_client() as client:
            yield client


def ask(data: str, method: str, path: str) -> Any:
    with client_of(data) as client:
        return client.call(method, f"/v1/cluster/{path}")


def segment(text: str) -> str:
    return quote(text, safe="")


def local_nodes(data: str) -> list[LocalNode] | None:
    if names_server() or not (Path(data) / "cluster.json").exists():
        return None
    return LocalCluster.open(Path(data)).nodes
