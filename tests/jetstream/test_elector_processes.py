"""The election between real processes over a replicated store: who is killed, stopped or resigns is followed by a higher term."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.jetstream_shard_logs import JetStreamShardLogs
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, Sequence, ShardId
from jadevectordb.model.operations import Delete, Entry
from tests.hosting_world import wait_until
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
    """A busy machine may hold up a master for longer than its lease, so that another follows unasked: then that one is meant."""
    told: queue.Queue[tuple[str, str, str]] = queue.Queue()
    seen: list[tuple[str, str, str]] = []
    candidates: dict[str, CandidateProcess] = {}

    def until(name: str, word: str, value: str | None = None) -> str:
        while True:
            seen.append(told.get(timeout=WAIT_S))
            who, what, which = seen[-1]
            if who == name and what == word and value in (None, which):
                return which

    def term_of(name: str) -> int | None:
        candidates[name].say("term")
        term = until(name, "term")
        return None if term == "None" else int(term)

    def master(*names: str) -> tuple[str, int]:
        """Which of them is master now, and of what term."""
        until_s = time.monotonic() + WAIT_S
        while True:
            for name in names:
                term = term_of(name)
                if term is not None:
                    return name, term
            assert time.monotonic() < until_s, seen

    with contextlib.ExitStack() as stack:
        for name in ("n1", "n2", "n3"):
            candidates[name] = CandidateProcess(name, "election", cluster.urls, told)
            stack.callback(candidates[name].close)
        first, first_term = master(*candidates)

        candidates[first].kill()
        left = [name for name in candidates if name != first]
        second, second_term = master(*left)
        assert second_term > first_term

        stopped = candidates[second].process
        stopped.send_signal(signal.SIGSTOP)
        (other,) = (name for name in left if name != second)
        third, third_term = master(other)
        assert third_term > second_term
        stopped.send_signal(signal.SIGCONT)
        woken_term = term_of(second)
        assert woken_term is None or woken_term > third_term
        if (second, "lost", str(second_term)) not in seen:
            until(second, "lost", str(second_term))

        candidates[third].say("resign")
        _, fourth_term = master(second)
        assert fourth_term > third_term
    while not told.empty():
        seen.append(told.get())
    gained = [value for _, what, value in seen if what == "gained"]
    assert len(set(gained)) == len(gained), "two had the same term"


def test_logs_are_made_cut_and_deleted_by_name_and_again(cluster: NatsCluster) -> None:
    connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
    logs = JetStreamShardLogs(connection, "tests", replicas=3)
    log = JetStreamLog(connection, "tests", "d1", replicas=3, append_s=WAIT_S)
    try:
        logs.create("d1", 2)
        logs.create("d1", 2)
        log.ensure_streams([ShardId(0), ShardId(1)])
        for n in range(5):
            log.append([(ShardId(1), Entry(Delete(["a"], None), HybridTime(n), NodeId("n1"), RequestId(f"r{n}")))])
        logs.truncate("d1", {0: 7, 1: 3})
        logs.truncate("d1", {1: 2})
        # A leader that was just elected may be a moment behind
        wait_until(lambda: (log.first(ShardId(1)), log.last(ShardId(1))) == (Sequence(4), Sequence(5)))
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


def test_no_logs_are_made_without_a_server_that_the_others_have_not_seen(cluster: NatsCluster) -> None:
    for name in cluster.names:
        cluster.kill(name)
    for name in ("n1", "n2"):
        cluster.restart(name, wait=False)
    cluster.wait_ready()
    connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
    logs = JetStreamShardLogs(connection, "tests", replicas=3)
    try:
        with pytest.raises(JadeError, match=r"no place for 3 copies of a log: .*; start it") as refused:
            logs.create("d2", 2)
        assert refused.value.code is ErrorCode.UNAVAILABLE
        cluster.restart("n3")
        wait_until(lambda: is_made(logs, "d2"))
    finally:
        connection.close()


def is_made(logs: JetStreamShardLogs, database: str) -> bool:
    """As the master asks: again and again."""
    try:
        logs.create(database, 2)
    except JadeError as error:
        assert error.code is ErrorCode.UNAVAILABLE
        return False
    return True
