"""The logs of a cluster's databases as its master looks after them: made, cut and deleted by name, without reading an entry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from jadevectordb.adapters.jetstream_api import ApiError, Deadline, delete_stream, stream_refused
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.model.ids import Sequence, ShardId

_DROP_S = 30.0
_CREATE_S, _CREATE_S_A_SHARD = 4.0, 0.25  # the master has other things to do; it asks again


class JetStreamShardLogs:
    """`control.loop.ShardLogs`. The connection is the caller's to close."""

    def __init__(self, connection: NatsConnection, cluster: str, *, replicas: int = 3) -> None:
        self._connection = connection
        self._cluster = cluster
        self._replicas = replicas

    def _log(self, database: str) -> JetStreamLog:
        return JetStreamLog(self._connection, self._cluster, database, replicas=self._replicas)

    def create(self, database: str, shards: int) -> None:
        log = self._log(database)
        try:
            log.ensure_streams(map(ShardId, range(shards)), _CREATE_S + _CREATE_S_A_SHARD * shards)
        finally:
            log.close()

    def drop(self, database: str, shards: int) -> None:
        log = self._log(database)
        streams = [log.stream(ShardId(shard)) for shard in range(shards)]
        log.close()

        async def delete(stream: str, deadline: Deadline) -> None:
            try:
                await delete_stream(self._connection, stream, deadline)
            except ApiError as error:
                raise stream_refused(stream, error) from error

        async def delete_all() -> None:
            deadline = Deadline(self._connection, _DROP_S)
            await asyncio.gather(*(delete(stream, deadline) for stream in streams))

        self._connection.call(delete_all(), _DROP_S)

    def truncate(self, database: str, up_to: Mapping[int, int]) -> None:
        log = self._log(database)
        try:
            log.truncate({ShardId(shard): Sequence(sequence) for shard, sequence in up_to.items()})
        finally:
            log.close()
