"""What a search costs in the server beyond the engine: CPU seconds of the server process per request, by protocol.

    .venv/bin/python bench/serving.py [--rows 100000]

One client on the same machine sends the same queries over REST with a raw body, REST with JSON and gRPC; the engine's own share
is measured in this process on the same data. The figures are CPU, not wall time, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import jadevectordb as jade
from datasets import glove

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(folder: Path) -> tuple[subprocess.Popen[str], str, str]:
    command = [sys.executable, "-m", "jadevectordb", "serve", "--data", str(folder), "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [*command, "--auth", "open-loopback", "--log-level", "warning"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    rest, grpc = re.search(r"REST http://(\S+)", line), re.search(r"gRPC (\S+)", line)
    assert rest is not None and grpc is not None, line
    return process, rest[1], grpc[1]


def over_http(address: str, path: str, bodies: list[bytes], content_type: str, count: int) -> None:
    connection = http.client.HTTPConnection(address)
    headers = {"Content-Type": content_type}
    for i in range(count):
        connection.request("POST", path, bodies[i % len(bodies)], headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
    connection.close()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--requests", type=int, default=4000)
    given = arguments.parse_args()
    data = glove(given.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with jade.open(folder) as store:
            database = store.create_database("bench", dimension=data.train.shape[1])
            for at in range(0, len(data.train), 1000):
                rows = data.train[at : at + 1000]
                database.upsert([str(at + i) for i in range(len(rows))], rows)
            database.wait_indexed()
            for query in data.queries:
                database.search(query, k=10)
            before = time.process_time()
            for i in range(given.requests):
                database.search(data.queries[i % len(data.queries)], k=10)
            engine_us = (time.process_time() - before) / given.requests * 1e6
        print(f"engine {engine_us:.0f} us a search")
        process, address, _ = start(folder)
        try:
            queries = [np.ascontiguousarray(q, "<f4") for q in data.queries]
            path = "/v2/databases/bench/search"
            kinds = {
                "REST raw": (path + "?k=10&include=", [q.tobytes() for q in queries], "application/octet-stream"),
                "REST raw, metadata": (path + "?k=10", [q.tobytes() for q in queries], "application/octet-stream"),
                "REST JSON": (
                    path,
                    [json.dumps({"vector": q.tolist(), "k": 10}).encode() for q in queries],
                    "application/json",
                ),
            }
            for kind, (target, bodies, content_type) in kinds.items():
                over_http(address, target, bodies, content_type, 300)
                before = cpu_s(process.pid)
                started = time.perf_counter()
                over_http(address, target, bodies, content_type, given.requests)
                wall = time.perf_counter() - started
                used = (cpu_s(process.pid) - before) / given.requests * 1e6
                beyond = used - engine_us
                print(
                    f"{kind}: {used:.0f} us CPU a request, {beyond:.0f} beyond the engine; {given.requests / wall:.0f}/s"
                )
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
