"""What a running nats-server says of itself through its monitoring port, which listens on this machine only.

Traps. A server that starts may name itself the metadata leader before any other server answered: it counts as leader only
with enough replicas at hand to decide anything. /varz keeps what it found at the first question, so one that was asked
before JetStream ran never tells of it: that is read from /jsz. And the file a server was started with is not what it runs
with when somebody reloaded or replaced it: whether it syncs before it acknowledges is asked of the server, not read from the file.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jadevectordb.adapters.nats_config import Address, parse_version
from jadevectordb.model.errors import ErrorCode, JadeError

_ANSWER_BYTES_MAX = 64 << 20
ASK_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """sync_always: None when JetStream is off. max_payload: 0 = it did not say."""

    name: str
    version: str
    sync_always: bool | None
    max_payload: int


@dataclass(frozen=True, slots=True)
class MetaGroup:
    """From /jsz: who leads the servers' own group. leader: "" = nobody. online: servers at hand, this one included."""

    leader: str
    size: int
    online: int

    def is_ready(self, own_name: str, servers: int) -> bool:
        """Whether metadata can be changed. servers: how many the cluster has when it is whole."""
        if servers == 1:
            return True
        if not self.leader or self.size < servers // 2 + 1:
            return False
        return self.leader != own_name or self.online >= self.size // 2 + 1


def ask(monitoring: Address, path: str) -> dict[str, Any]:
    """The answer to one question. Raises OSError when nobody answers, ValueError when it is not what was expected."""
    connection = http.client.HTTPConnection(monitoring.host, monitoring.port, timeout=ASK_S_MAX)
    try:
        connection.request("GET", path)
        answer = connection.getresponse().read(_ANSWER_BYTES_MAX)
    except http.client.HTTPException as error:
        raise OSError(f"{monitoring} does not answer as a nats-server does ({error!r})") from error
    finally:
        connection.close()
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise ValueError(f"{monitoring}{path} answered {answer[:80]!r}")
    return found


def server_facts(monitoring: Address) -> ServerFacts:
    """Raises OSError, ValueError as `ask`."""
    varz = ask(monitoring, "/varz")
    return ServerFacts(
        name=str(varz.get("server_name", "")),
        version=str(varz.get("version", "")),
        sync_always=sync_always(ask(monitoring, "/jsz")),
        max_payload=int(varz.get("max_payload", 0)),
    )


def sync_always(jsz: dict[str, Any]) -> bool | None:
    """None when JetStream is off."""
    config = jsz.get("config")
    return None if not config or jsz.get("disabled") else bool(config.get("sync_always", False))


def meta_group(monitoring: Address) -> MetaGroup:
    found = ask(monitoring, "/jsz").get("meta_cluster") or {}
    replicas = found.get("replicas") or []
    online = 1 + sum(1 for replica in replicas if not replica.get("offline", False))
    return MetaGroup(str(found.get("leader", "")), int(found.get("cluster_size", 1)), online)


def streams_led(monitoring: Address, name: str) -> list[str]:
    """The replicated streams that this server leads."""
    led = []
    for stream in _streams(monitoring):
        cluster = stream.get("cluster") or {}
        if cluster.get("leader") == name and cluster.get("replicas"):
            led.append(str(stream["name"]))
    return led


def stored(monitoring: Address) -> dict[str, int]:
    """By stream of which this server has a copy: the last sequence in it. Raises OSError, ValueError as `ask`."""
    return {str(stream["name"]): int((stream.get("state") or {}).get("last_seq", 0)) for stream in _streams(monitoring)}


def _streams(monitoring: Address) -> Iterator[dict[str, Any]]:
    for account in ask(monitoring, "/jsz?accounts=true&streams=true&limit=100000").get("account_details") or []:
        yield from account.get("stream_detail") or []


def check_facts(facts: ServerFacts, *, version_min: tuple[int, int, int], payload_min: int) -> None:
    """Raises CONFLICT when the running server is not fit to hold the log, saying what to change."""
    version = parse_version(facts.version)
    trouble = None
    if facts.sync_always is None:
        trouble = "does not run JetStream; enable it"
    elif not facts.sync_always:
        trouble = (
            "does not sync before it acknowledges, so a power failure would lose acknowledged writes; "
            "set `sync_interval: always` in its jetstream block"
        )
    elif version is None or version < version_min:
        trouble = f"is version {facts.version}, but {'.'.join(map(str, version_min))} or newer is needed"
    elif 0 < facts.max_payload < payload_min:
        trouble = f"takes messages up to {facts.max_payload} bytes only; set `max_payload: {payload_min}`"
    if trouble:
        raise JadeError(
            ErrorCode.CONFLICT,
            f"the nats-server {facts.name!r} {trouble}",
            details={"server": facts.name, "sync_always": facts.sync_always, "version": facts.version},
        )
