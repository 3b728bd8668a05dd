"""A client of several nodes: which it uses, when it goes on, what it learns: without sockets, then with processes killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mapped_server import write_map

import jadevectordb as jade
from jadevectordb.client.address import Address
from jadevectordb.client.call import Answer, Call, read_as
from jadevectordb.client.core import Retries, addresses_of
from jadevectordb.client.nodes import ClusterNodes, Nodes, _Node
from jadevectordb.model.errors import ErrorCode, JadeError

A, B, C = (Address.of(f"http://h{n}:1") for n in (1, 2, 3))
GONE = JadeError(ErrorCode.UNAVAILABLE, "no connection", details={"phase": "connect"})
LOST = JadeError(ErrorCode.UNAVAILABLE, "it broke", details={"phase": "send"})


def said(code: ErrorCode, **details: object) -> JadeError:
    return JadeError(code, "the node's own word", details={"status": 503, **details})


def call(*, repeatable: bool = True, wait_s: float = 0.0) -> Call[object]:
    return Call("GET", "/x", read_as(object), repeatable=repeatable, wait_s=wait_s)


# Decisions


def test_one_node_is_used_until_it_fails() -> None:
    nodes = Nodes((A, B, C), 0.0)
    assert [nodes.choose(t) for t in (0, 1, 2)] == [A, A, A]
    nodes.failed(A, GONE, 3.0)
    assert nodes.choose(3.0) == B and nodes.choose(100.0) == B  # no reason to go back
    nodes.failed(B, said(ErrorCode.STALE_MAP), 100.0)
    assert nodes.choose(100.0) == C
    nodes.failed(C, LOST, 100.1)
    assert nodes.choose(100.1) == A


def test_when_all_failed_the_one_that_rested_longest_is_tried() -> None:
    nodes = Nodes((A, B), 0.0)
    nodes.failed(A, GONE, 0.0)
    nodes.failed(B, GONE, 0.1)
    assert nodes.choose(0.1) == A
    nodes.failed(A, GONE, 0.2)  # rests longer every time
    assert nodes.choose(0.2) == B
    nodes.answered(B, Answer(200, {}, b""))
    assert nodes.choose(0.2) == B


def test_clients_spread_over_the_nodes_given() -> None:
    assert {Nodes((A, B, C), chance / 10).choose(0.0) for chance in range(11)} == {A, B, C}


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_DATABASE, ErrorCode.INVALID_ARGUMENT, ErrorCode.FORBIDDEN])
def test_an_answer_is_no_failure_of_the_node(code: ErrorCode) -> None:
    nodes = Nodes((A, B), 0.0)
    nodes.failed(A, JadeError(code, "no", details={"status": 404}), 0.0)
    assert nodes.choose(0.0) == A


def test_the_map_is_asked_for_when_an_answer_names_a_newer_one() -> None:
    nodes = Nodes((A,), 0.0)
    nodes.answered(A, Answer(200, {}, b""))
    assert not nodes.wants_map(0.0)  # a single node names none
    nodes.answered(A, Answer(200, {"x-jade-map": "7"}, b""))
    assert nodes.wants_map(0.0) and not nodes.wants_map(0.1)
    told = ClusterNodes(True, 7, [_Node("http://h1:1"), _Node("http://h2:1"), _Node("http://h3:1", False), _Node("")])
    assert nodes.learn(told) == [] and nodes.known == (A, B)
    assert not nodes.wants_map(100.0)
    nodes.answered(B, Answer(200, {"x-jade-map": "8"}, b""))
    assert nodes.wants_map(100.0)
    assert nodes.learn(ClusterNodes(True, 8, [_Node("http://h3:1")])) == [B] and nodes.known == (A, C)
    assert nodes.learn(ClusterNodes(True, 6, [])) == [] and nodes.known == (A, C)  # an old answer that came late
    for odd in ("", "-1", "x", "9" * 40):
        nodes.answered(A, Answer(200, {"x-jade-map": odd}, b""))
        assert not nodes.wants_map(1000.0)


def test_the_last_living_node_of_a_cluster_is_no_single_server() -> None:
    """All of a cluster die one after the other: who saw the others die waits for any to come back, as long as his call may take."""
    nodes = Nodes((A,), 0.0)
    assert nodes.tries == 1  # nothing is known of a cluster
    nodes.learn(ClusterNodes(True, 7, [_Node("http://h1:1"), _Node("http://h2:1", False), _Node("http://h3:1", False)]))
    assert nodes.known == (A,) and nodes.tries == 2
    now_s, attempt, tried = 0.0, 0, []
    while now_s < 19.0:
        attempt += 1
        tried.append(nodes.choose(now_s))
        nodes.failed(tried[-1], GONE, now_s)
        pause_s = Retries().pause_s(call(), GONE, attempt, 20.0 - now_s, 1.0, nodes.tries)
        assert pause_s is not None and pause_s <= 1.0
        now_s += pause_s + 0.01
    assert tried[:3] == [A, B, C] and {A, B, C} == set(tried[-3:])
    nodes.answered(C, Answer(200, {}, b""))
    assert nodes.choose(now_s) == C


def test_what_is_learnt_is_no_way_down_from_tls_nor_around_a_proxy() -> None:
    for url in ("https://h1", "http://h1/base"):
        nodes = Nodes((Address.of(url),), 0.0)
        nodes.learn(ClusterNodes(True, 1, [_Node("http://h2:1"), _Node("nonsense")]))
        assert nodes.count == 1


def test_a_node_that_hangs_leaves_time_for_another() -> None:
    nodes = Nodes((A, B), 0.0)
    assert nodes.until(call(), 100.0, 160.0) == 130.0
    assert nodes.until(call(), 100.0, 100.2) == 100.2
    assert nodes.until(call(wait_s=50.0), 100.0, 160.0) == 150.5
    assert nodes.until(call(repeatable=False), 100.0, 160.0) == 160.0
    assert Nodes((A,), 0.0).until(call(), 100.0, 160.0) == 160.0


def test_calls_go_on_to_every_node_at_once_and_then_wait_while_there_is_time() -> None:
    retries = Retries()
    pauses = [retries.pause_s(call(), GONE, attempt, 30.0, 1.0, 3) for attempt in range(1, 12)]
    assert pauses[:2] == [0.0, 0.0] and pauses[2] == 0.05 and pauses[-1] == 1.0
    assert retries.pause_s(call(), GONE, 50, 0.5, 1.0, 3) is None
    assert Retries(attempts_max=1).pause_s(call(), GONE, 1, 30.0, 1.0, 3) is None
    assert retries.pause_s(call(), GONE, 4, 30.0, 1.0, 1) is None  # alone, as often as was said


@pytest.mark.parametrize(
    "error, repeatable, once",
    [
        (GONE, True, True),
        (LOST, True, False),
        (said(ErrorCode.UNAVAILABLE), True, True),
        (said(ErrorCode.UNAVAILABLE, undecided=True), True, False),
        (said(ErrorCode.UNAVAILABLE, written=3, failed=2), True, False),
        (said(ErrorCode.STALE_MAP), True, True),
        (said(ErrorCode.CLOSED), True, True),
        (said(ErrorCode.TIMEOUT), True, False),
        (JadeError(ErrorCode.INVALID_ARGUMENT, "no", details={"status": 400}), False, False),
        (JadeError(ErrorCode.CLOSED, "the client itself is closed"), False, False),
    ],
)  # fmt: skip
def test_only_what_does_no_harm_twice_is_repeated_elsewhere(error: JadeError, repeatable: bool, once: bool) -> None:
    retries = Retries()
    assert (retries.pause_s(call(), error, 1, 30.0, 0.5, 3) is not None) is repeatable
    assert (retries.pause_s(call(repeatable=False), error, 1, 30.0, 0.5, 3) is not None) is once
    if error.code is ErrorCode.TIMEOUT:  # that a wait took too long is an answer
        assert retries.pause_s(call(wait_s=5.0), error, 1, 30.0, 0.5, 3) is None


def test_several_urls() -> None:
    assert (
        addresses_of("http://h1:1, http://h2:1,http://h1:1") == (A, B) == addresses_of(["http://h1:1", "http://h2:1"])
    )
    for wrong in ("http://a,", [], "http://a,https://b", "http://a,http://b/c", 7, [7]):
        with pytest.raises(JadeError) as caught:
            addresses_of(wrong)  # type: ignore[arg-type]
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with jade.Client(["http://h1:1", "http://h2:1"]) as client:
        assert client.url == "http://h1:1,http://h2:1"


# Real processes


class Node:
    def __init__(self, name: str, folder: Path, map_file: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.mapped_server", name, str(folder / name), str(map_file)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.url = ""
        self.map_file = map_file

    def ready(self) -> None:
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the server did not start"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Node]]:
    map_file = tmp_path / "map.json"
    write_map(map_file, 1, [])
    nodes = [Node(f"n{n}", tmp_path, map_file) for n in (1, 2, 3)]
    try:
        for node in nodes:
            node.ready()
        write_map(map_file, 2, [(f"n{n}", node.url, True) for n, node in enumerate(nodes, 1)])
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def learn(client: jade.Client) -> None:
    """Call until it knows all nodes: who can't be asked for them in time is asked again some seconds later."""
    until_s = time.monotonic() + 60
    while not client._core.nodes._is_cluster:
        assert time.monotonic() < until_s
        assert client.info().version


def test_one_url_is_enough_to_survive_the_death_of_its_node(three: list[Node]) -> None:
    with jade.Client(three[0].url, timeout=60.0) as client:
        learn(client)
        three[0].kill()
        assert client.info().version
        three[1].kill()
        assert client.info().version
        answered = client.call("GET", "/v2/cluster/map")
        assert answered["is_cluster"] and [node["rest"] for node in answered["nodes"]] == [n.url for n in three]


def test_one_that_was_called_dead_is_found_when_it_is_the_only_one_left(three: list[Node]) -> None:
    map_file = three[0].map_file
    write_map(map_file, 3, [("n1", three[0].url, True), ("n2", three[1].url, False), ("n3", three[2].url, False)])
    with jade.Client(three[0].url, timeout=60.0) as client:
        learn(client)
        assert client.call("GET", "/v2/cluster/map")["version"] == 3
        three[0].kill()
        three[1].kill()
        assert client.info().version


def test_threads_notice_nothing_of_nodes_that_die(three: list[Node]) -> None:
    errors: list[BaseException] = []
    counts = [0] * 4
    halfway, finish = threading.Event(), threading.Event()

    def work(number: int) -> None:
        try:
            while not finish.is_set():
                client.info()
                counts[number] += 1
                if min(counts) > 20:
                    halfway.set()
        except BaseException as error:
            errors.append(error)
            halfway.set()

    with jade.Client([node.url for node in three], timeout=60.0) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for node in three[:2]:
            assert halfway.wait(60)
            node.kill()
            counts[:] = [0] * 4
            halfway.clear()
        assert halfway.wait(60)
        finish.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_node_that_hangs_is_left_within_the_time_of_the_call(three: list[Node]) -> None:
    with jade.Client(three[0].url, timeout=jade.Timeouts(5.0, 2.0, 60.0)) as client:
        learn(client)
        os.kill(three[0].process.pid, signal.SIGSTOP)
        try:
            assert client.info().version
        finally:
            os.kill(three[0].process.pid, signal.SIGCONT)


def test_the_asynchronous_client_does_the_same(three: list[Node]) -> None:
    async def run() -> None:
        async with jade.AsyncClient(three[0].url, timeout=60.0) as client:
            until_s = time.monotonic() + 60
            while not client._core.nodes._is_cluster:
                assert time.monotonic() < until_s
                await client.info()
            three[0].kill()
            answers = await asyncio.gather(*(client.info() for _ in range(20)))
            assert len(answers) == 20
            three[2].kill()
            assert (await client.info()).version

    asyncio.run(run())


class LosesAnswers:
    """A node that does what it is asked and dies before it says so: requests go on to a real server, answers are dropped."""

    def __init__(self, url: str) -> None:
        self._server = Address.of(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asker = self._listener.accept()[0]
                request = asker.recv(1 << 16)
                with (
                    contextlib.closing(asker),
                    socket.create_connection((self._server.host, self._server.port)) as real,
                ):
                    real.sendall(request)
                    self.done += real.recv(1 << 16).startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def test_a_write_lands_once_although_its_node_dies(three: list[Node]) -> None:
    url = three[1].url
    with contextlib.closing(LosesAnswers(url)) as dying, jade.Client(url) as direct:
        direct.create_database("words", 2).upsert(["a"], [[1.0, 0.0]])
        with jade.Client([dying.url, url], timeout=60.0) as client:
            words = client.database("words")

            def dying_is_next() -> None:
                client._core.nodes._current = client._core.nodes.given[0]
                client._core.nodes._resting.clear()

            before = dying.done
            dying_is_next()
            written = words.upsert(["b"], [[0.0, 1.0]])
            assert dying.done == before + 1 and words.count() == 2
            kept = words.get("b")
            assert written.duplicate and kept is not None and kept.version == written.version
            dying_is_next()
            with pytest.raises(JadeError) as caught:  # nobody knows whether it was done: not for the client to repeat
                client.drop_database("words")
            assert caught.value.code is ErrorCode.UNAVAILABLE


def test_when_no_node_is_left_the_error_says_so_in_time(three: list[Node]) -> None:
    with jade.Client([node.url for node in three], timeout=3.0) as client:
        for node in three:
            node.kill()
        with pytest.raises(JadeError) as caught:
            client.info()
        if caught.value.code is not ErrorCode.TIMEOUT:  # the time may run out in the midst of an attempt
            assert caught.value.code is ErrorCode.UNAVAILABLE and "No connection" in caught.value.message
