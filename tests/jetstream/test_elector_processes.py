"""The election between real processes over a replicated store: who is killed, stopped or resigns is followed by a higher term."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.jetstream_shard_logs import JetStreamShardLogs
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, Sequence, ShardId
from jadevectordb.model.operations import Delete, Entry
from tests.nats_cluster import SECRET, NatsCluster

WAIT_S = 60.0


class CandidateProcess:
    def __init__(self, name: str, bucket: str, urls: list[str], told: queue.Queue[tuple[str, str, str]]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.jetstream.elector_process", name, bucket, SECRET, *urls],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self._told = told
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, value = line.strip().partition(" ")
            self._told.put((self.name, word, value))

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._thread.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("nats"), servers=3) as cluster:
        yield cluster


def test_masters_that_are_killed_stopped_or_resign_are_followed(cluster: NatsCluster) -> None:
    told: queue.Queue[tuple[str, str, str]] = queue.Queue()
    seen: list[tuple[str, str, str]] = []

    def until(word: str, name: str | None = None, value: str | None = None) -> tuple[str, str]:
        while True:
            seen.append(told.get(timeout=WAIT_S))
            who, what, which = seen[-1]
            if what == word and name in (None, who) and value in (None, which):
                return who, which

    with contextlib.ExitStack() as stack:
        candidates = {}
        for name in ("n1", "n2", "n3"):
            candidates[name] = CandidateProcess(name, "election", cluster.urls, told)
            stack.callback(candidates[name].close)
        first, term = until("gained")
        assert term == "1"

        candidates[first].kill()
        second, term = until("gained")
        assert second != first and term == "2"

        stopped = candidates[second].process
        stopped.send_signal(signal.SIGSTOP)
        third, term = until("gained")
        assert third not in (first, second) and term == "3"
        stopped.send_signal(signal.SIGCONT)
        assert until("lost") == (second, "2")
        candidates[second].say("term")
        assert until("term", second) == (second, "None")

        candidates[third].say("resign")
        fourth, term = until("gained")
        assert fourth == second and term == "4"
    gained = [int(value) for _, what, value in seen if what == "gained"]
    assert gained == [1, 2, 3, 4]


def test_logs_are_made_cut_and_deleted_by_name_and_again(cluster: NatsCluster) -> None:
    connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
    logs = JetStreamShardLogs(connection, "tests", replicas=3)
    log = JetStreamLog(connection, "tests", "d1", replicas=3)
    try:
        logs.create("d1", 2)
        logs.create("d1", 2)
        log.ensure_streams([ShardId(0), ShardId(1)])
        for n in range(5):
            log.append([(ShardId(1), Entry(Delete(["a"], None), HybridTime(n), NodeId("n1"), RequestId(f"r{n}")))])
        logs.truncate("d1", {0: 7, 1: 3})
        logs.truncate("d1", {1: 2})
        assert (log.first(ShardId(1)), log.last(ShardId(1))) == (Sequence(4), Sequence(5))
        assert (log.first(ShardId(0)), log.last(ShardId(0))) == (Sequence(1), Sequence(0))
        logs.drop("d1", 2)
        logs.drop("d1", 2)
        with pytest.raises(JadeError) as caught:
            log.last(ShardId(1))
        assert caught.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(JadeError) as caught:
            logs.truncate("d1", {1: 4})
        assert caught.value.code is ErrorCode.NOT_FOUND
    finally:
        log.close()
        connection.close()
