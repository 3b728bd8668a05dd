"""What a node of a cluster can be told: who it is, where the others are, and which of them keep the replicated log.

    HOST:PEER_PORT                  an entry of `join`: where a node answers the others
    HOST:CLIENT_PORT:ROUTE_PORT     an entry of `nats_nodes`: where a node's nats-server answers nodes, and the other servers

Without `nats_nodes` every node of `join` and this one keep the log, with ports as far from their peer ports as this node's are:
right wherever all nodes are set alike, as on machines of their own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import SHARDS_MAX

Port = Annotated[int, Meta(ge=1, le=65535)]
REPLICATION_MAX = 7
SECRET_CHARACTERS_MIN = 16
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_NATS_URL = re.compile(r"(nats|tls)://(?:[^@/\s]+@)?[^@/\s]+")


class ClusterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    node_id: str = ""  # its name in the cluster, for its whole life; letters, digits, - and _
    name: str = "jade"  # of the cluster: the same on all nodes
    zone: str = ""  # nodes that may fail together; replicas are spread over zones
    join: list[str] = []  # HOST:PEER_PORT of the nodes, the same list everywhere; this node may be among them
    peer_host: str = "127.0.0.1"  # host that the other nodes connect to
    peer_port: Port = 9081
    bind_host: str = ""  # address to listen on for other nodes; empty = peer_host
    rest_url: str = ""  # what clients are told to connect to; empty = made from server.host and the port
    nats_client_port: Port = 9082  # of this node's nats-server: for nodes
    nats_route_port: Port = 9083  # for the other nats-servers
    nats_monitor_port: Port = 9084  # for this machine only
    nats_nodes: list[
        str
    ] = []  # HOST:CLIENT_PORT:ROUTE_PORT of the nodes that keep the log; empty = those of join and this one
    nats_urls: list[str] = []  # servers that somebody else runs instead: nats://[USER:PASSWORD@]HOST:PORT
    secret: str = ""  # the same on all nodes
    secret_file: str = ""  # a file that holds it
    tls_certificate: str = ""  # PEM files: nodes show each other certificates that tls_ca signed
    tls_key: str = ""
    tls_ca: str = ""
    replication: Annotated[int, Meta(ge=1, le=REPLICATION_MAX)] = (
        3  # replicas of a shard, of databases made without saying
    )
    shards: Annotated[int, Meta(ge=1, le=SHARDS_MAX)] = 4  # of databases made without saying
    lease_s: Annotated[float, Meta(ge=1, le=60)] = 3.0  # of the master; another takes over when it was not renewed
    dead_after_s: Annotated[float, Meta(ge=1, le=60)] = 3.0  # a node that has said nothing for so long is not asked
    replace_after_s: Annotated[float, Meta(ge=1)] = 60.0  # and after so long its replicas are made anew elsewhere
    start_s: Annotated[float, Meta(ge=1)] = 120.0  # to wait for enough of the others when starting


class NodeAddress(msgspec.Struct, frozen=True):
    """Where a node answers other nodes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


class NatsNode(msgspec.Struct, frozen=True):
    """Where the nats-server of a node answers."""

    host: str
    client_port: int
    route_port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.client_port}:{self.route_port}"


def own_address(settings: ClusterSettings) -> NodeAddress:
    return NodeAddress(settings.peer_host, settings.peer_port)


def peers(settings: ClusterSettings) -> tuple[NodeAddress, ...]:
    """The other nodes that were named, in order, each once."""
    named = (_node_address(text) for text in settings.join)
    return tuple(dict.fromkeys(address for address in named if address != own_address(settings)))


def own_nats(settings: ClusterSettings) -> NatsNode:
    return NatsNode(settings.peer_host, settings.nats_client_port, settings.nats_route_port)


def nats_nodes(settings: ClusterSettings) -> tuple[NatsNode, ...]:
    """The nodes that run a nats-server, in order, each once; none when somebody else runs them (`nats_urls`)."""
    if settings.nats_urls:
        return ()
    if settings.nats_nodes:
        return tuple(dict.fromkeys(map(_nats_node, settings.nats_nodes)))
    to_client, to_route = (port - settings.peer_port for port in (settings.nats_client_port, settings.nats_route_port))
    derived = [NatsNode(peer.host, peer.port + to_client, peer.port + to_route) for peer in peers(settings)]
    return tuple(sorted({own_nats(settings), *derived}, key=str))


def keeps_log(settings: ClusterSettings) -> bool:
    """Whether this node runs a nats-server."""
    return own_nats(settings) in nats_nodes(settings)


def secret_of(settings: ClusterSettings) -> str:
    """The cluster's secret. Raises INVALID_ARGUMENT when the file can't be read or it is too short; never shows it."""
    secret = settings.secret
    if settings.secret_file:
        try:
            secret = Path(settings.secret_file).read_text("utf-8").strip()
        except OSError as error:
            raise _wrong(f"cluster.secret_file: {settings.secret_file} can't be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise _wrong(f"cluster.secret_file: {settings.secret_file} is not a text file.") from None
    if len(secret) < SECRET_CHARACTERS_MIN:
        source = "cluster.secret_file" if settings.secret_file else "cluster.secret"
        raise _wrong(
            f"{source} has {len(secret)} characters, at least {SECRET_CHARACTERS_MIN} are needed: make one with "
            "`openssl rand -hex 32` and give it to all nodes."
        )
    return secret


def check_cluster(settings: ClusterSettings, *, processes: int) -> None:
    """Raises INVALID_ARGUMENT naming the setting. What is set wrong is told even where the cluster is off."""
    for text in settings.join:
        _node_address(text)
    for text in settings.nats_nodes:
        _nats_node(text)
    for text in settings.nats_urls:
        if not _NATS_URL.fullmatch(text):
            raise _wrong("cluster.nats_urls: write each as nats://HOST:PORT or nats://USER:PASSWORD@HOST:PORT.")
    if settings.node_id and not _NAME.fullmatch(settings.node_id):
        raise _wrong(f"cluster.node_id is {settings.node_id!r:.80}: use 1 to 64 letters, digits, '-' and '_'.")
    if not _NAME.fullmatch(settings.name):
        raise _wrong(f"cluster.name is {settings.name!r:.80}: use 1 to 64 letters, digits, '-' and '_'.")
    if not _ZONE.fullmatch(settings.zone):
        raise _wrong(f"cluster.zone is {settings.zone!r:.80}: use up to 64 letters, digits, '.', '-' and '_'.")
    _check_tls(settings)
    if settings.enabled:
        _check_enabled(settings, processes)


def _check_enabled(settings: ClusterSettings, processes: int) -> None:
    if not settings.node_id:
        raise _wrong("cluster.node_id is missing: a node needs a name that it keeps, such as --node-id n1.")
    if bool(settings.secret) == bool(settings.secret_file):
        given = "both" if settings.secret else "neither"
        raise _wrong(
            f"cluster.secret and cluster.secret_file: {given} is given, one is needed. All nodes have the same secret; "
            "`openssl rand -hex 32 > FILE` makes one."
        )
    secret_of(settings)
    if not settings.peer_host or settings.peer_host in ("0.0.0.0", "::"):
        raise _wrong(
            f"cluster.peer_host is {settings.peer_host!r}: give the host name or address by which the other nodes reach this one "
            "(cluster.bind_host says where to listen)."
        )
    if settings.lease_s > settings.replace_after_s:
        raise _wrong("cluster.replace_after_s must not be shorter than cluster.lease_s.")
    if processes > 1:
        raise _wrong(f"server.processes is {processes}: a node of a cluster is one process. Leave it at 1; add nodes.")
    _check_ports(settings)
    _check_log(settings)


def _check_ports(settings: ClusterSettings) -> None:
    taken: dict[int, str] = {}
    for name in ("peer_port", "nats_client_port", "nats_route_port", "nats_monitor_port"):
        port = getattr(settings, name)
        if port in taken:
            raise _wrong(f"cluster.{taken[port]} and cluster.{name} are both {port}: give each a port of its own.")
        taken[port] = name


def _check_log(settings: ClusterSettings) -> None:
    if settings.nats_urls and settings.nats_nodes:
        raise _wrong(
            "cluster.nats_urls and cluster.nats_nodes: give one; the first are servers that somebody else runs."
        )
    for node in nats_nodes(settings):
        if not (0 < node.client_port < 65536 and 0 < node.route_port < 65536):
            raise _wrong(
                f"cluster.join: the ports of the nats-server of {node.host} would be outside 1 to 65535: give cluster.nats_nodes."
            )
    keepers = len(nats_nodes(settings))
    if keepers == 2:
        raise _wrong(
            "Two nodes would keep the log: when one is away, the other can't decide anything. Name three or more in "
            "cluster.join (the same list on all nodes), or one in cluster.nats_nodes."
        )


def _check_tls(settings: ClusterSettings) -> None:
    paths = {name: getattr(settings, f"tls_{name}") for name in ("certificate", "key", "ca")}
    if any(paths.values()) and not all(paths.values()):
        raise _wrong("cluster.tls_certificate, cluster.tls_key and cluster.tls_ca go together: give all three or none.")
    for name, path in paths.items():
        if path and not Path(path).is_file():
            raise _wrong(f"cluster.tls_{name}: there is no file {path}.")


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _node_address(text: str) -> NodeAddress:
    host, ports = _split(text, 1)
    if host is None:
        raise _wrong(f"cluster.join holds {text!r:.80}: write each as HOST:PEER_PORT, such as db2:9081.")
    return NodeAddress(host, ports[0])


def _nats_node(text: str) -> NatsNode:
    host, ports = _split(text, 2)
    if host is None:
        raise _wrong(
            f"cluster.nats_nodes holds {text!r:.80}: write each as HOST:CLIENT_PORT:ROUTE_PORT, such as db2:9082:9083."
        )
    return NatsNode(host, *ports)


def _split(text: str, count: int) -> tuple[str | None, list[int]]:
    """(host, its ports); None for a host when the text is not of that form."""
    host, *written = text.strip().rsplit(":", count)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None, []  # an IPv6 address without brackets, or a URL
    ports = [int(port) for port in written if port.isascii() and port.isdigit() and len(port) <= 5]
    if (
        len(ports) != count
        or not host
        or not host.isprintable()
        or set(host) & set(" /@")
        or not all(0 < p < 65536 for p in ports)
    ):
        return None, []
    return host, ports


def _wrong(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
