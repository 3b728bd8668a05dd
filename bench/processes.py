"""Searches per second of a server with one process and with more, in one run: the same data, queries and clients, in turns.

    .venv/bin/python bench/processes.py [--rows 100000] [--processes 2] [--clients 16]

The clients are connections of one cheap process (it only sends prepared bytes and finds the ends of answers) on the same machine, so
their CPU is taken from the server's: `client` says how much. On a machine with other work, answers a CPU second say more than the
rate. The system gives each connection to a process by a hash, so a few connections may all be with one; with 16 they are shared about
evenly. With writing, one more connection upserts all the time, and how many of its own writes the next search on another connection
missed is counted.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import jadevectordb as jade
from datasets import glove

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def start(folder: Path, processes: int) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "jadevectordb", "serve", "--data", str(folder), "--port", "0", "--grpc-port", "-1"]
    command += ["--auth", "open-loopback", "--log-level", "warning", "--processes", str(processes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"REST http://(\S+)", line)
    assert found is not None, line
    return process, found[1]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def request_of(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask_for(address: str, requests: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Each connection has one request under way. (answers a second, their times in s)"""
    host, port = address.split(":")
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, float] = {}
    held: dict[socket.socket, bytes] = {}
    number = 0
    for _ in range(clients):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        held[connection] = b""
    times: list[float] = []
    started = time.perf_counter()
    for connection in held:
        sent[connection] = time.perf_counter()
        connection.sendall(requests[number % len(requests)])
        number += 1
    while (now := time.perf_counter()) - started < seconds:
        for key, _ in selector.select(1.0):
            connection = key.fileobj  # type: ignore[assignment]
            data = held[connection] + connection.recv(1 << 16)
            end = data.find(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", data[:end]) if end > 0 else None
            if length is None or len(data) < end + 4 + int(length[1]):
                held[connection] = data
                continue
            assert data.startswith(b"HTTP/1.1 200"), data[:300]
            held[connection] = b""
            now = time.perf_counter()
            times.append(now - sent[connection])
            sent[connection] = now
            connection.sendall(requests[number % len(requests)])
            number += 1
    took = time.perf_counter() - started
    for connection in held:
        connection.close()
    return len(times) / took, times


class Writer(threading.Thread):
    """Upserts, and looks for each on another connection."""

    def __init__(self, address: str, path: str, dimension: int) -> None:
        super().__init__(daemon=True)
        self.address, self.path, self.dimension = address, path, dimension
        self.written = self.missed = 0
        self.stopping = False

    def run(self) -> None:
        connections = [http.client.HTTPConnection(self.address) for _ in range(8)]
        generator = np.random.default_rng(5)
        headers = {"content-type": "application/json"}
        while not self.stopping:
            vector = generator.standard_normal(self.dimension).round(4).tolist()
            writes, reads = generator.choice(len(connections), 2, replace=False)
            for at, path, body in (
                (writes, self.path + "/vectors", {"ids": [f"w{self.written}"], "values": [vector]}),
                (reads, self.path + "/search", {"vector": vector, "k": 1, "include": []}),
            ):
                connections[at].request("POST", path, json.dumps(body), headers)
                answer = connections[at].getresponse()
                found = json.loads(answer.read())
                assert answer.status == 200, found
            self.missed += found["hits"][0]["id"] != f"w{self.written}"
            self.written += 1
        for connection in connections:
            connection.close()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--seconds", type=float, default=4.0)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    data = glove(given.rows)
    dimension = data.train.shape[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with jade.open(folder) as store:
            database = store.create_database("bench", dimension=dimension)
            for at in range(0, len(data.train), 1000):
                rows = data.train[at : at + 1000]
                database.upsert([str(at + i) for i in range(len(rows))], rows)
            database.wait_indexed()
        path = "/v2/databases/bench"
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(given.rounds):
            for processes in (1, given.processes):
                server, address = start(folder, processes)
                try:
                    measure(address, path, data.queries, dimension, processes, given, rates, server.pid)
                finally:
                    server.terminate()
                    server.wait()
    for (kind, processes), found in rates.items():
        against = np.median(found) / np.median(rates[kind, 1])
        print(
            f"{kind}, {processes} process{'es' * (processes > 1)}: median {np.median(found):.0f}/s ({against:.2f} x one process)"
        )


def measure(
    address: str,
    path: str,
    queries: np.ndarray,
    dimension: int,
    processes: int,
    given: argparse.Namespace,
    rates: dict[tuple[str, int], list[float]],
    pid: int,
) -> None:
    for recall in (0.95, 0.99):
        requests = [
            request_of(f"{path}/search?k=10&recall={recall}&include=", np.ascontiguousarray(q, "<f4").tobytes())
            for q in queries
        ]
        ask_for(address, requests, given.clients, 1.0)
        for writing in (False, True):
            writer = Writer(address, path, dimension)
            if writing:
                writer.start()
            pids = [pid, *children(pid)]
            before, mine = cpu_s(pids), time.process_time()
            rate, times = ask_for(address, requests, given.clients, given.seconds)
            used, client = cpu_s(pids) - before, time.process_time() - mine
            kind = f"recall {recall}{', writing' if writing else ''}"
            rates.setdefault((kind, processes), []).append(rate)
            line = f"{kind}, {processes}: {rate:.0f}/s, p50 {np.median(times) * 1e3:.2f} ms, p99 {np.quantile(times, 0.99) * 1e3:.2f} ms"
            line += f"; cores busy: server {used / given.seconds:.2f}, client {client / given.seconds:.2f}"
            line += f"; {rate * given.seconds / used:.0f} answers a CPU second"
            if writing:
                writer.stopping = True
                writer.join()
                line += f"; {writer.written / given.seconds:.0f} writes/s, {writer.missed} of {writer.written} missed"
                assert writer.missed == 0
            print(line, flush=True)


if __name__ == "__main__":
    main()
