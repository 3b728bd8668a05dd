"""Three servers, appenders and a follower at work, and servers that are killed, stopped and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jadevectordb.adapters.jetstream_api import Deadline, stream_state
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.jetstream.log_world import Appenders, Follower, check_history, write
from tests.nats_cluster import NatsCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path, servers=3) as cluster:
        yield cluster


@pytest.fixture
def connection(cluster: NatsCluster) -> Iterator[NatsConnection]:
    connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
    yield connection
    connection.close()


@pytest.fixture
def log(connection: NatsConnection) -> Iterator[JetStreamLog]:
    log = JetStreamLog(connection, "tests", "db", append_s=20)
    log.ensure_streams([0, 1])
    yield log
    log.close()


def leader(connection: NatsConnection, log: JetStreamLog, shard: int) -> str:
    return connection.call(stream_state(connection, log.stream(shard), Deadline(connection, 20)), 20).leader


@pytest.mark.parametrize("parts", [1, 4])
def test_the_streams_leader_is_killed(
    cluster: NatsCluster, connection: NatsConnection, log: JetStreamLog, parts: int
) -> None:
    follower = Follower(log, 0)
    appenders = Appenders(log, 0, parts=parts)
    appenders.wait_for_more(100)
    killed = leader(connection, log, 0)
    cluster.kill(killed)
    appenders.wait_for_more(100)
    cluster.restart(killed, wait=False)
    appenders.wait_for_more(100)
    check_history(appenders.stop(), follower, log, 0)


def test_a_planned_stop_of_each_server_in_turn(
    cluster: NatsCluster, connection: NatsConnection, log: JetStreamLog
) -> None:
    follower = Follower(log, 0)
    appenders = Appenders(log, 0)
    for name in cluster.names:
        appenders.wait_for_more(50)
        led = leader(connection, log, 0) == name
        handed = cluster.stop(name)
        assert not led or log.stream(0) in handed
        appenders.wait_for_more(50)
        cluster.restart(name)
    acknowledged = appenders.stop()
    assert appenders.unavailable == 0
    check_history(acknowledged, follower, log, 0)


def test_all_servers_are_killed_and_started_again(
    cluster: NatsCluster, connection: NatsConnection, log: JetStreamLog
) -> None:
    follower = Follower(log, 0)
    appenders = Appenders(log, 0)
    appenders.wait_for_more(200)
    for name in cluster.names:
        cluster.kill(name)
    for name in cluster.names:
        cluster.restart(name, wait=False)
    appenders.wait_for_more(200)
    check_history(appenders.stop(), follower, log, 0)


def test_without_a_majority_appends_say_so_and_readers_wait(cluster: NatsCluster, connection: NatsConnection) -> None:
    log = JetStreamLog(connection, "tests", "db", append_s=1.5)
    log.ensure_streams([0])
    follower = Follower(log, 0)
    log.append([(0, write("before"))])
    follower.wait_for(1)
    for name in cluster.names[1:]:
        cluster.kill(name)
    with pytest.raises(JadeError) as caught:
        log.append([(0, write("lost?", request="r"))])
    assert caught.value.code is ErrorCode.UNAVAILABLE and caught.value.retryable
    assert "undecided" in caught.value.details
    for name in cluster.names[1:]:
        cluster.restart(name, wait=False)
    patient = JetStreamLog(connection, "tests", "db", append_s=30)
    sequences = patient.append([(0, write("lost?", request="r"))])
    assert sequences == [2]  # once, whether the first try was stored or not
    follower.wait_for(2)
    assert follower.sequences == [1, 2] and follower.errors == []
    patient.close()
    log.close()
