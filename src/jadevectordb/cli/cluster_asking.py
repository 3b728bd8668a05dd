"""What every `jade cluster` question shares: which cluster is meant, its client, and the local cluster's processes where it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

import jadevectordb as jade
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode
from jadevectordb.cli.output import format_option
from jadevectordb.cli.places import (
    connection_options,
    is_curl,
    names_server,
    open_client,
    option_names_server,
    timeout_given,
)
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


def wait_option(default_s: float, help: str, *, show: bool = True) -> Callable[[_Function], _Function]:
    """--wait, in seconds; the command gets `wait_s`."""
    kind = click.FloatRange(min=0)
    return click.option("--wait", "wait_s", type=kind, default=default_s, show_default=show, help=help)


def _local(data: str) -> LocalCluster | None:
    """The cluster on this machine that is meant, if one is. Raises NOT_FOUND for a folder that was named and holds none."""
    source = click.get_current_context().get_parameter_source("data")
    if source is not None and source is not click.core.ParameterSource.DEFAULT:
        if option_names_server():
            raise click.UsageError("--data and a server are two places: name one of them.")
        return LocalCluster.open(Path(data))
    if names_server() or not (Path(data) / "cluster.json").exists():
        return None
    return LocalCluster.open(Path(data))


@contextmanager
def client_of(data: str) -> Iterator[Client]:
    """Where nobody answers, the error says which cluster was meant and how it is started."""
    local = _local(data)
    if local is not None and is_curl():
        raise click.UsageError("--curl shows a request to one server: name it with --url.")
    opened = open_client() if local is None else local.client(timeouts=timeouts_of(timeout_given() or _LOCAL_S))
    try:
        with opened as client:
            yield client
    except jade.JadeError as error:
        why = "" if error.details.get("phase") != "connect" else _nobody_there(data, local)
        if not why:
            raise
        raise jade.JadeError(error.code, f"{why} {error.message}", details=error.details) from None


def _nobody_there(data: str, local: LocalCluster | None) -> str:
    if local is None:
        missing = f"There is no cluster in {data}, which `jade cluster up` would make."
        return "" if names_server() else missing
    if any(node.is_running for node in local.nodes):
        return ""
    return f"No node of the cluster in {local.folder} is running: `jade cluster up --data {local.folder}` starts them."


def ask(data: str, method: str, path: str) -> Any:
    with client_of(data) as client:
        return client.call(method, f"/v1/cluster/{path}")


def segment(text: str) -> str:
    return quote(text, safe="")


def local_nodes(data: str) -> list[LocalNode] | None:
    local = _local(data)
    return None if local is None else local.nodes


def node_id(data: str, name: str) -> str:
    """Of a node on this machine also by its number."""
    return next((node.id for node in local_nodes(data) or () if name in (node.id, node.id.removeprefix("n"))), name)
