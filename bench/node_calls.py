"""What calls between nodes cost: CPU of the coordinator a fan-out to several nodes, and CPU of a node a call it answers.

Every node is a process of its own on this machine; a search of them carries a query and answers ten hits with metadata, of the
sizes that real ones have, and finds nothing: what is measured is everything around the search. Beside it the floor: the same
number of bytes to and fro over bare connections in the same kind of loop, without numbers, decoding, timeouts or callbacks.
"From threads" is what a thread that waits for one call after another pays, both threads of the asking process together.

    .venv/bin/python bench/node_calls.py [--nodes 4] [--fans 5000] [--dimension 128] [--runs 3] [--tls]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.framed_server import FramedServer
from jadevectordb.adapters.loop_thread import LoopThread
from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.ports.node_calls import Asked, Found, Search

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TIMEOUT_S = 30.0


def found() -> Found:
    return Found(
        ids=[f"document-{number:08}" for number in range(10)],
        scores=[0.9 - number / 100 for number in range(10)],
        versions=list(range(1_000_000, 1_000_010)),
        metadata=[b'{"category":"shoes","price":%d}' % number for number in range(10)],
        watermarks=[(0, 123_456), (1, 123_457)],
        search_us=100.0,
    )


def search(dimension: int) -> Search:
    query = np.random.default_rng(1).standard_normal(dimension, np.float32)
    return Search(
        asked=Asked(
            database="9f8b1c", shards=(0, 1), map_version=17, at_least=((0, 123_456), (1, 123_457)), wait_s=0.5
        ),
        query=query.tobytes(),
        options={"k": 10, "recall": 0.95},
    )


class AtOnce:
    def __init__(self) -> None:
        self._found = found()

    def answer(self, call: Any, reply: Callable[[Any, Exception | None], None]) -> None:
        reply(self._found, None)


class Echo(asyncio.Protocol):
    """Answers every so many bytes with so many."""

    def __init__(self, asked_bytes: int, answer: bytes) -> None:
        self._asked_bytes, self._answer, self._held = asked_bytes, answer, 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        while self._held >= self._asked_bytes:
            self._held -= self._asked_bytes
            self._transport.write(self._answer)


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def node(addresses: Any, tls: TlsFiles | None, stop: Any) -> None:
    server = FramedServer("127.0.0.1", 0, AtOnce(), NodeIdentity("node", "bench", "secret"), tls=tls)
    addresses.put(server.address)
    stop.wait()


def bare_node(addresses: Any, asked_bytes: int, answer: bytes, stop: Any) -> None:
    thread = LoopThread("bare")

    async def listen() -> None:
        server = await thread.loop.create_server(lambda: Echo(asked_bytes, answer), "127.0.0.1", 0)
        addresses.put(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    thread.run(lambda: thread.start(listen()))
    stop.wait()


class Fans:
    """So many fan-outs of a call, so many at once, begun in the loop; each ends when the last node has answered."""

    def __init__(
        self, transport: FramedTransport, addresses: list[str], call: Search, total: int, at_once: int
    ) -> None:
        self._transport, self._addresses, self._call = transport, addresses, call
        self._left, self._at_once = total, at_once
        self._running = 0
        self.failed = 0
        self.latencies_s: list[float] = []
        self.ended = multiprocessing.Event()

    def begin(self) -> None:
        for _ in range(self._at_once):
            self._fan()

    def _fan(self) -> None:
        if not self._left:
            if not self._running:
                self.ended.set()
            return
        self._left -= 1
        self._running += 1
        waiting = len(self._addresses)
        began_s = time.perf_counter()

        def answered(answer: Any, error: Exception | None) -> None:
            nonlocal waiting
            waiting -= 1
            self.failed += error is not None
            if not waiting:
                self._running -= 1
                self.latencies_s.append(time.perf_counter() - began_s)
                self._fan()

        for address in self._addresses:
            self._transport.begin(address, self._call, _TIMEOUT_S, answered)


class BareFans(asyncio.Protocol):
    """The same over bare connections: bytes counted, nothing read."""

    def __init__(self, fans: BareRun) -> None:
        self._fans, self._held = fans, 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        while self._held >= self._fans.answer_bytes:
            self._held -= self._fans.answer_bytes
            self._fans.answered()


class BareRun:
    """Fans one after another, or in rounds of several at once."""

    def __init__(self, asked: bytes, answer_bytes: int, total: int, at_once: int) -> None:
        self.asked, self.answer_bytes, self._left, self._at_once = asked, answer_bytes, total, at_once
        self.connections: list[Any] = []
        self._waiting = 0
        self.ended = multiprocessing.Event()

    def round(self) -> None:
        if self._left <= 0:
            self.ended.set()
            return
        self._left -= self._at_once
        self._waiting = self._at_once * len(self.connections)
        for _ in range(self._at_once):
            for connection in self.connections:
                connection.transport.write(self.asked)

    def answered(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self.round()


def measure(begin: Callable[[], None], ended: Any, processes: list[Any], fans: int, calls: int) -> tuple[float, float]:
    """CPU us of this process a fan-out, and of a node a call."""
    nodes_s = sum(cpu_s(process.pid) for process in processes)
    own_s = time.process_time()
    begin()
    ended.wait()
    own_s = time.process_time() - own_s
    nodes_s = sum(cpu_s(process.pid) for process in processes) - nodes_s
    return own_s / fans * 1e6, nodes_s / calls * 1e6


def certificates(folder: Path) -> TlsFiles:
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    files = TlsFiles(certificate=folder / "node.pem", key=folder / "node.key", authority=folder / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(str(files.certificate))
    leaf.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(files.authority))
    return files


def start(context: Any, target: Any, nodes: int, *arguments: Any) -> tuple[list[Any], list[str], Any]:
    addresses, stop = context.Queue(), context.Event()
    processes = [context.Process(target=target, args=(addresses, *arguments, stop)) for _ in range(nodes)]
    for process in processes:
        process.start()
    return processes, [addresses.get() for _ in processes], stop


def framed(context: Any, given: argparse.Namespace, tls: TlsFiles | None) -> None:
    processes, addresses, stop = start(context, node, given.nodes, tls)
    transport = FramedTransport(NodeIdentity("asker", "bench", "secret"), SystemClock(), tls=tls)
    call = search(given.dimension)
    for address in addresses:
        for _ in range(500):
            transport.call(address, call, _TIMEOUT_S)
    for at_once in (1, 16):
        for _ in range(given.runs):
            fans = Fans(transport, addresses, call, given.fans, at_once)
            fan_us, call_us = measure(
                lambda fans=fans: transport.run(fans.begin), fans.ended, processes, given.fans, given.fans * given.nodes
            )
            p50, p99 = np.percentile(fans.latencies_s, [50, 99]) * 1e6
            print(
                f"framed{' + TLS' if tls else ''}, {at_once:2} at once: {fan_us:6.1f} us CPU a fan, "
                f"{call_us:5.1f} us a call at a node, p50 {p50:,.0f} us, p99 {p99:,.0f} us, {fans.failed} failed"
            )
    began_s, own_s = time.perf_counter(), time.process_time()
    for _ in range(given.fans):
        transport.call(addresses[0], call, _TIMEOUT_S)
    print(
        f"from a thread, one call: {(time.process_time() - own_s) / given.fans * 1e6:6.1f} us CPU, "
        f"{(time.perf_counter() - began_s) / given.fans * 1e6:,.0f} us"
    )
    transport.close()
    end(processes, stop)


def bare(context: Any, given: argparse.Namespace) -> None:
    asked = b"".join(wire.pack(1, wire.CALL, 2, wire.encode(search(given.dimension))))
    answer = b"".join(wire.pack(1, wire.ANSWER, 0, wire.encode(found())))
    print(f"a call has {len(asked)} bytes, its answer {len(answer)}")
    processes, addresses, stop = start(context, bare_node, given.nodes, len(asked), answer)
    thread = LoopThread("bare")
    for at_once in (1, 16):
        for _ in range(given.runs):
            run = BareRun(asked, len(answer), given.fans, at_once)

            async def connect(run: BareRun = run) -> None:
                for address in addresses:
                    host, _, port = address.rpartition(":")
                    _, protocol = await thread.loop.create_connection(lambda: BareFans(run), host, int(port))
                    run.connections.append(protocol)
                run.round()

            fan_us, call_us = measure(
                lambda connect=connect: thread.run(lambda: thread.start(connect())),
                run.ended,
                processes,
                given.fans,
                given.fans * given.nodes,
            )
            print(f"bare,   {at_once:2} at once: {fan_us:6.1f} us CPU a fan, {call_us:5.1f} us a call at a node")
    thread.close()
    end(processes, stop)


def end(processes: list[Any], stop: Any) -> None:
    stop.set()
    for process in processes:
        process.kill()  # its loop thread has nothing to put in order
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--fans", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    bare(context, given)
    framed(context, given, None)
    if given.tls:
        with tempfile.TemporaryDirectory() as folder:
            framed(context, given, certificates(Path(folder)))


if __name__ == "__main__":
    main()
