"""`jade serve` and `jade config`: start a server from settings, and show where each setting came from."""

from __future__ import annotations

import os
from typing import Any

import click

_FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "grpc_port": "server.grpc_port",
    "data": "server.data",
    "auth": "auth.mode",
    "registration": "auth.registration",
    "processes": "server.processes",
    "threads": "server.threads",
    "tls_certificate": "tls.certificate",
    "tls_key": "tls.key",
    "tls_client_ca": "tls.client_ca",
    "log_level": "log.level",
    "log_format": "log.format",
    "log_file": "log.file",
    "cluster": "cluster.enabled",
    "node_id": "cluster.node_id",
    "cluster_name": "cluster.name",
    "join": "cluster.join",
    "peer_host": "cluster.peer_host",
    "peer_port": "cluster.peer_port",
    "zone": "cluster.zone",
    "secret_file": "cluster.secret_file",
    "replication": "cluster.replication",
    "shards": "cluster.shards",
}


def _settings(command: Any) -> Any:
    """The options that both commands take."""
    options = [
        click.option("--config", metavar="FILE", help="Settings file (TOML)."),
        click.option("--host", help="Address to listen on (default 127.0.0.1)."),
        click.option("--port", type=int, help="REST port (default 8080; 0 = any free one)."),
        click.option("--grpc-port", type=int, help="gRPC port (default 9080; 0 = any free one; -1 = none)."),
        click.option("--data", metavar="FOLDER", help="Folder of the databases (default ./jade-data)."),
        click.option("--auth", metavar="MODE", help="required (default), or open-loopback for development."),
        click.option("--registration", metavar="WHEN", help="Self-registration: auto (only on loopback), on, off."),
        click.option(
            "--processes", type=int, help="Processes that answer searches; one of them writes (default 1; Linux)."
        ),
        click.option("--threads", type=int, help="Requests that may wait for the disk at once (default 8)."),
        click.option("--tls-certificate", metavar="FILE", help="PEM certificate: turns TLS on."),
        click.option("--tls-key", metavar="FILE", help="PEM key of the certificate."),
        click.option("--tls-client-ca", metavar="FILE", help="Clients must show a certificate signed by it."),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
        click.option("--log-format", metavar="FORMAT", help="auto, json or text."),
        click.option("--log-file", metavar="FILE", help="Log to this file instead of standard error."),
        click.option(
            "--cluster", is_flag=True, default=None, help="Be a node of a cluster; needs --node-id and --secret-file."
        ),
        click.option("--node-id", metavar="NAME", help="This node's name in the cluster; it keeps it."),
        click.option("--cluster-name", metavar="NAME", help="The cluster's, the same on all nodes (default jade)."),
        click.option(
            "--join",
            metavar="HOST:PORT,...",
            help="Where the nodes answer each other (port 9081 unless set); the same on all nodes.",
        ),
        click.option("--peer-host", metavar="HOST", help="Where the other nodes reach this one (default 127.0.0.1)."),
        click.option("--peer-port", type=int, help="Port for the other nodes (default 9081)."),
        click.option("--zone", metavar="NAME", help="Replicas of a shard are spread over zones."),
        click.option("--secret-file", metavar="FILE", help="The cluster's secret, the same on all nodes."),
        click.option(
            "--replication", type=int, help="Replicas of a shard unless a database says otherwise (default 3)."
        ),
        click.option("--shards", type=int, help="Shards of a database unless it says otherwise (default 4)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _load(config: str | None, flags: dict[str, Any]) -> Any:
    from jadevectordb.settings.sources import load

    return load(config, os.environ, {_FLAGS[name]: value for name, value in flags.items()})


@click.command()
@_settings
def serve(config: str | None, **flags: Any) -> None:
    """Start a server: REST on port 8080, gRPC on 9080, data in ./jade-data; with --cluster, a node of a cluster.

    Settings come from a TOML file, then the environment (JADEVECTORDB_PORT, JADEVECTORDB_LOG_LEVEL, ...), then flags; the later
    wins. `jade config show` lists all of them. SIGTERM or Ctrl-C finishes running requests and stops.
    """
    from jadevectordb.server import run

    run(_load(config, flags))


@click.group()
def config() -> None:
    """The settings of a server."""


@config.command("show")
@_settings
def config_show(config: str | None, **flags: Any) -> None:
    """List every setting, its value, and where the value came from."""
    rows = [(name, _text(value), origin) for name, value, origin in _load(config, flags).shown()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value == "" else str(value)


COMMANDS = (serve, config)
