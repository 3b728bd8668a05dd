"""Servers that somebody else runs: nothing is started, but whether they are fit to hold the log is checked.

Over a client's connection a server tells its version and the largest message it takes, not whether it syncs before it
acknowledges: only its system account may ask for that. With a URL for that account every server is asked; without one the
result says that it was not checked, and an operator has to vouch for `sync_interval: always`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from jadevectordb.adapters.nats_config import VERSION_MIN, parse_version
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_monitor import ServerFacts, check_facts, sync_always
from jadevectordb.model.errors import ErrorCode, JadeError

_CONNECT_S = 5.0
_FIRST_S = 10.0  # for any server to answer, which may be busy
_ANSWERS_S = 1.0  # after it: all servers answer at once, and nobody says how many they are
_PAYLOAD_MIN = 4 << 20  # an entry is about 1 MB, a single vector with the largest metadata about 2 MB


@dataclass(frozen=True, slots=True)
class ExternalCheck:
    """servers: what each said of itself; empty when they could not be asked. unchecked: what nobody knows, "" = nothing."""

    version: str
    payload_max: int
    servers: tuple[ServerFacts, ...]
    unchecked: str


def check_external(
    connection: NatsConnection, system_url: str | None, *, connect_s: float = _CONNECT_S
) -> ExternalCheck:
    """system_url: of one of the servers, with a user of their system account. Raises CONFLICT, UNAVAILABLE."""
    version, payload_max = connection.call(_client_facts(connection, connect_s), connect_s)
    check_facts(
        ServerFacts("(the one connected to)", version, True, payload_max),
        version_min=VERSION_MIN,
        payload_min=_PAYLOAD_MIN,
    )
    servers: tuple[ServerFacts, ...] = ()
    unchecked = "whether the servers sync before they acknowledge was not checked: no access to their system account"
    if system_url is not None:
        servers, unchecked = tuple(asyncio.run(_ask_all(system_url, connect_s))), ""
        for facts in servers:
            check_facts(facts, version_min=VERSION_MIN, payload_min=_PAYLOAD_MIN)
    return ExternalCheck(version, payload_max, servers, unchecked)


async def _client_facts(connection: NatsConnection, connect_s: float) -> tuple[str, int]:
    try:
        client = (await asyncio.wait_for(connection.connected(), connect_s)).client
    except TimeoutError:
        refusal = connection.state.refusal
        raise JadeError(
            ErrorCode.UNAVAILABLE, f"no NATS server could be reached within {connect_s:g} s ({refusal})"
        ) from None
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}", client.max_payload


async def _ask_all(url: str, connect_s: float) -> list[ServerFacts]:
    client = Client()
    answers: list[ServerFacts] = []
    answered = asyncio.Event()

    async def hear(message: Msg) -> None:
        answer = json.loads(message.data)
        server, jsz = answer.get("server"), answer.get("data")
        if server and jsz:
            answers.append(ServerFacts(str(server.get("name")), str(server.get("ver")), sync_always(jsz), 0))
            answered.set()

    async def ignore(_error: Exception) -> None:
        pass

    try:
        await asyncio.wait_for(
            client.connect(
                [url],
                allow_reconnect=False,
                max_reconnect_attempts=1,
                connect_timeout=math.ceil(connect_s),
                error_cb=ignore,
            ),
            connect_s,
        )
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=hear)
        await client.publish("$SYS.REQ.SERVER.PING.JSZ", b"", reply=inbox)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), _FIRST_S)
        await asyncio.sleep(_ANSWERS_S)
    except (OSError, TimeoutError, nats.errors.Error, ValueError) as error:
        raise JadeError(
            ErrorCode.UNAVAILABLE, f"the system account of the NATS servers could not be asked ({error})"
        ) from error
    finally:
        await client.close()
    if not answers or any(parse_version(facts.version) is None for facts in answers):
        raise JadeError(ErrorCode.CONFLICT, "the user of the system URL is not one of the servers' system account")
    return answers
