"""Nodes in processes of their own are killed, stopped and started again: who asks them hears of it, and finds them again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import NODE_BEAT_S
from jadevectordb.ports.node_calls import Asked, Count, Ping, SnapshotRead
from tests.hosting_world import wait_until
from tests.node_process import NodeProcess, node_process
from tests.transport_world import WAIT_S, Answers, Scripted, answering, ask, asking, begin

HANG = Count(asked=Asked(database="hang", shards=(0,)))
COUNT = Count(asked=Asked(database="d", shards=(0,)))


def pause(wait_s: float) -> None:
    threading.Event().wait(wait_s)


def ask_until_answered(transport: FramedTransport, address: str) -> int:
    counted: int = ask(transport, address, COUNT).count
    return counted


def begin_hanging(transport: FramedTransport, node: NodeProcess, count: int, timeout_s: float = 10 * WAIT_S) -> Answers:
    """So many calls have arrived at the node, which answers none of them."""
    while True:
        ask_until_answered(transport, node.address)
        connections, answers = transport.peers()[0].connections, Answers()
        for number in range(count):
            begin(transport, node.address, HANG, answers, number, timeout_s=timeout_s)
        # behind the calls on the same connection, so those have arrived
        if ask_until_answered(transport, node.address) == node.pid and transport.peers()[0].connections == connections:
            return answers


def without_a_new_connection(use: Callable[[FramedTransport, NodeProcess], object]) -> None:
    """One connection lasts while it is used so. A busy machine may hold one of the two ends up for longer than silence is borne,
    so it is looked at some times; who gives up a connection by mistake does so every time.
    """
    with asking() as transport, node_process() as node:
        for _ in range(8):
            ask_until_answered(transport, node.address)
            connections = transport.peers()[0].connections
            with suppress(JadeError):
                use(transport, node)
                if transport.peers()[0].connections == connections:
                    return
    raise AssertionError("the connection was given up every time")


def test_kill_9_ends_what_is_under_way_and_a_new_process_is_found() -> None:
    with asking() as transport, node_process() as first:
        answers = begin_hanging(transport, first, 20)
        connections = transport.peers()[0].connections
        first.kill()
        for _, _, error in answers.wait(20):
            assert isinstance(error, JadeError)
            assert error.code is ErrorCode.UNAVAILABLE and error.details["sent"] is True and "process" in error.message
        with pytest.raises(JadeError) as raised:
            transport.call(first.address, COUNT, WAIT_S)
        assert raised.value.code is ErrorCode.UNAVAILABLE
        with node_process(first.port) as second:
            assert ask_until_answered(transport, second.address) == second.pid != first.pid
            (state,) = transport.peers()
            assert state.connected and state.connections > connections and state.node == "process"


def test_a_stopped_node_times_out_and_is_given_up_and_found_again() -> None:
    """Its kernel still takes what is sent: only silence tells."""
    with asking() as transport, node_process() as node:
        long, short = begin_hanging(transport, node, 1), Answers()
        connections = transport.peers()[0].connections
        node.pause()
        begin(transport, node.address, COUNT, short, timeout_s=0.1)
        assert short.error().code is ErrorCode.TIMEOUT
        lost = long.error()
        assert lost.code is ErrorCode.UNAVAILABLE and lost.details["sent"] is True and "silent" in lost.message
        node.go_on()
        assert ask_until_answered(transport, node.address) == node.pid
        assert transport.peers()[0].connections > connections


def test_a_short_pause_costs_no_connection() -> None:
    def use(transport: FramedTransport, node: NodeProcess) -> None:
        answers = Answers()
        node.pause()
        try:
            begin(transport, node.address, COUNT, answers)
            pause(2 * NODE_BEAT_S)
        finally:
            node.go_on()
        _, answer, error = answers.wait(1)[0]
        if error is not None:
            raise error
        assert answer.count == node.pid

    without_a_new_connection(use)


def test_an_idle_connection_stays() -> None:
    """Pings are answered, both ways, for longer than silence is borne."""

    def use(transport: FramedTransport, node: NodeProcess) -> None:
        pause(4.0)
        assert ask_until_answered(transport, node.address) == node.pid

    without_a_new_connection(use)


_ASKER = """
import sys
from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.ports.node_calls import Asked, Count, Ping

transport = FramedTransport(NodeIdentity("asker", "c1", "secret"), SystemClock())
def ask():
    transport.begin(sys.argv[1], Count(asked=Asked(database="d", shards=(0,))), 1e6, told)

def told(answer, error):
    if error is not None and error.details.get("sent") is False:  # on a busy machine connecting may take too long
        transport.after(0.1, ask)

transport.run(ask)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_calls_of_an_asker_that_is_gone_are_given_up(how: signal.Signals) -> None:
    scripted = Scripted()
    with answering(scripted) as server:
        asker = subprocess.Popen(
            [sys.executable, "-c", _ASKER, server.address],
            cwd=Path(__file__).parent.parent.parent,
            stdin=subprocess.PIPE,
        )
        try:
            scripted.next()
            asker.send_signal(how)
            assert len(scripted.wait_given_up(1)) == 1
            wait_until(lambda: server.connections == 0)
        finally:
            asker.kill()
            asker.communicate()


def test_calls_go_on_while_a_node_is_killed_again_and_again() -> None:
    """Each call ends once, with its own node's answer or an error; the other node's calls all succeed."""
    wrong: list[object] = []
    stop = threading.Event()
    counts = {"answered": 0, "failed": 0}
    with asking() as transport, node_process() as steady:

        def ask_steady() -> None:
            while not stop.is_set():
                read = ask(transport, steady.address, SnapshotRead(snapshot="s", path="p", offset=0, length=70_000))
                if read != bytes(70_000):
                    wrong.append(read)

        def ask_shaky(address: str) -> None:
            while not stop.is_set():
                try:
                    transport.call(address, Ping(), WAIT_S)
                    counts["answered"] += 1
                except JadeError as error:
                    if error.code is not ErrorCode.UNAVAILABLE:
                        wrong.append(error)
                    counts["failed"] += 1
                    pause(0.005)

        with node_process() as shaky:
            port, address = shaky.port, shaky.address
        threads = [threading.Thread(target=ask_steady), threading.Thread(target=ask_shaky, args=(address,))]
        for thread in threads:
            thread.start()
        for _ in range(4):
            with node_process(port) as shaky:
                before = counts["answered"]
                ask_until_answered(transport, shaky.address)
                while counts["answered"] < before + 20:
                    pause(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and counts["failed"] > 0


def test_nothing_is_left_open() -> None:
    scripted = Scripted()
    scripted.at_once = scripted.pong

    def round_trip() -> None:
        with answering(scripted) as server, asking() as transport:
            ask(transport, server.address, Ping())

    def left_open() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    round_trip()
    files, threads = left_open()
    for _ in range(5):
        round_trip()
    # What others have left may end meanwhile, and a thread that has nothing to do any more still ends
    wait_until(lambda: left_open()[0] <= files and left_open()[1] <= threads, lambda: (left_open(), files, threads))
