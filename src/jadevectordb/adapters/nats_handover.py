"""Before a planned stop: what this server leads is handed to others, so that the cluster waits 30 ms instead of an election.

Leadership moves by request: each stream's and the servers' own group's. The latter may only be asked for by the system
account, so this opens two connections of its own, and closes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import nats.errors
from nats.aio.client import Client

from jadevectordb.adapters.nats_config import CLIENT_USER, SYSTEM_USER, NatsServerConfig
from jadevectordb.adapters.nats_monitor import meta_group, streams_led
from jadevectordb.adapters.nats_tls import client_context

HANDOVER_S_MAX = 2.0  # it takes some 30 ms where anybody can take over
_ASK_S = 1.0
_LOOK_S = 0.02


def hand_over(config: NatsServerConfig) -> list[str]:
    """Hand over what this server leads; what was handed over. Failing is no error: an election does it later."""
    try:
        return asyncio.run(asyncio.wait_for(_hand_over(config), HANDOVER_S_MAX))
    except (TimeoutError, OSError, ValueError, nats.errors.Error):
        return []


async def _hand_over(config: NatsServerConfig) -> list[str]:
    streams = streams_led(config.monitoring, config.name)
    passwords = config.credentials
    done: list[str] = []
    if streams:
        client = await _connect(config, CLIENT_USER, passwords.client_password)
        try:
            asked = [_step_down(client, f"$JS.API.STREAM.LEADER.STEPDOWN.{name}") for name in streams]
            answers = await asyncio.gather(*asked)
            done += [name for name, stepped_down in zip(streams, answers, strict=True) if stepped_down]
        finally:
            await client.close()
    if meta_group(config.monitoring).leader == config.name:
        client = await _connect(config, SYSTEM_USER, passwords.system_password)
        try:
            if await _step_down(client, "$JS.API.META.LEADER.STEPDOWN"):
                done.append("meta")
                await _until_led_by_another(config)
        finally:
            await client.close()
    return done


async def _connect(config: NatsServerConfig, user: str, password: str) -> Client:
    client = Client()

    async def ignore(_error: Exception) -> None:
        pass

    await client.connect(
        [config.client_url()],
        user=user,
        password=password,
        tls=client_context(config.tls) if config.tls else None,
        allow_reconnect=False,
        connect_timeout=2,
        max_reconnect_attempts=1,
        error_cb=ignore,
    )
    return client


async def _step_down(client: Client, subject: str) -> bool:
    with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
        answer: dict[str, Any] = json.loads((await client.request(subject, b"", timeout=_ASK_S)).data)
        return bool(answer.get("success"))
    return False


async def _until_led_by_another(config: NatsServerConfig) -> None:
    while meta_group(config.monitoring).leader in ("", config.name):
        await asyncio.sleep(_LOOK_S)
