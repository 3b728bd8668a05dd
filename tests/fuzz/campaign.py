"""The fuzzer at work: a real server, several connections, and what must hold in the meantime and at the end.

- every request that keeps to HTTP is answered within 10 s, never with a status above 500 that was not meant;
- no answer shows a trace, and the log has none;
- the server's memory does not grow with the number of requests;
- a database that nobody asked for is at the end, byte for byte, what it was.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from tests.fuzz.bodies import DIMENSION, metadata, numbers
from tests.fuzz.exchange import Connection, Wrong
from tests.fuzz.requests import request_of
from tests.fuzz.rpcs import RpcFuzzer
from tests.fuzz.values import DATABASES, IDS
from tests.serving import ServerProcess, serving

GROWTH_BYTES_MAX = 96 << 20  # from the end of the warm-up to the end, whatever the number of requests
GRPC_SHARE = 8  # one gRPC call for so many requests over HTTP
VECTORS_MAX = 3000  # of a target, beyond which it is made anew
WRONG_MAX = 10  # things that are wrong, after which it stops
_TIDY_S = 1.0
_TELL_S = 60.0
UNTOUCHED = "untouched"


@dataclass
class Report:
    requests: int = 0
    calls: int = 0
    seconds: float = 0.0
    warm_bytes: int = 0
    end_bytes: int = 0
    statuses: Counter[str] = dataclass_field(default_factory=Counter)
    wrong: list[str] = dataclass_field(default_factory=list)

    def __str__(self) -> str:
        statuses = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        memory = f"memory {self.warm_bytes >> 20} -> {self.end_bytes >> 20} MiB"
        return f"{self.requests} requests and {self.calls} gRPC calls in {self.seconds:.0f} s; {memory}; {statuses}"


class Campaign:
    """folder: for the server's data. connections: threads that send at the same time."""

    def __init__(self, server: ServerProcess, seed: int, connections: int = 4) -> None:
        self.server = server
        self.seed = seed
        self.report = Report()
        self._connections = connections
        self.progress: Callable[[str], None] | None = None
        self._sent: dict[int, int] = {}  # by the number each connection began with
        self._told_s = monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))

    def run(self, first: int, count: int) -> Report:
        """Requests `first` to `first + count`; stops early when much is wrong."""
        started = monotonic()
        self.make_databases()
        before = self.untouched()
        warm_up = max(count // 5, min(count, 2000))
        for start, end in ((first, first + warm_up), (first + warm_up, first + count)):
            self._send(start, end)
            self.report.warm_bytes = self.report.warm_bytes or self.memory_bytes()
        self.report.end_bytes = self.memory_bytes()
        self.report.seconds = monotonic() - started
        if not self.report.wrong:
            self._examine(before)
        return self.report

    def _send(self, start: int, end: int) -> None:
        with ThreadPoolExecutor(self._connections + 1) as pool:
            work = [
                pool.submit(self._connection, range(start + n, end, self._connections))
                for n in range(self._connections)
            ]
            work.append(pool.submit(self._grpc, range(start, end, GRPC_SHARE)))
            while not all(one.done() for one in work):
                wait(work, timeout=_TIDY_S)
                self._tidy()
                self._tell()
            for one in work:
                one.result()

    def _connection(self, numbers: range) -> None:
        connection = Connection(*self._address)
        statuses: Counter[str] = Counter()
        start = numbers.start
        for number in numbers:
            if self._stop.is_set():
                break
            request = request_of(self.seed, number)
            try:
                statuses[str(connection.send(request) or "closed")] += 1
                self._sent[start] = self._sent.get(start, 0) + 1
            except (Wrong, OSError) as problem:
                self._wrong(
                    f"{problem}\n  in answer to {request}\n  again: python -m tests.fuzz --seed {self.seed} --replay {number}"
                )
        connection.close()
        with self._lock:
            self.report.requests += sum(statuses.values())
            self.report.statuses += statuses

    def _grpc(self, numbers: range) -> None:
        fuzzer = RpcFuzzer(self.server.grpc)
        statuses: Counter[str] = Counter()
        for number in numbers:
            if self._stop.is_set():
                break
            try:
                statuses[f"gRPC {fuzzer.call(self.seed, number)}"] += 1
            except (Wrong, OSError) as problem:
                self._wrong(f"{problem}\n  again: python -m tests.fuzz --seed {self.seed} --replay-grpc {number}")
        fuzzer.close()
        with self._lock:
            self.report.calls += sum(statuses.values())
            self.report.statuses += statuses

    def _tell(self) -> None:
        """A line a minute."""
        if self.progress is not None and monotonic() - self._told_s > _TELL_S:
            self._told_s = monotonic()
            self.progress(
                f"{sum(list(self._sent.values()))} requests, memory {self.memory_bytes() >> 20} MiB, {len(self.report.wrong)} wrong"
            )

    def _wrong(self, what: str) -> None:
        with self._lock:
            self.report.wrong.append(what)
            if len(self.report.wrong) >= WRONG_MAX:
                self._stop.set()

    # The server's databases

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.server.call(method, path, body)
        assert status < 500, f"{method} {path}: {status} {answer}"
        return answer

    def make_databases(self) -> None:
        chance = Random(self.seed)
        for name in DATABASES:
            self._make_target(name)
        made = self._call("POST", "/v2/databases", {"name": UNTOUCHED, "dimension": DIMENSION, "index": "FLAT"})
        self._untouched_id = made["id"]
        rows = [{"id": f"u{n}", "values": numbers(chance), "metadata": metadata(chance)} for n in range(500)]
        self._call("POST", f"/v2/databases/{made['id']}/vectors", {"vectors": rows})

    def _make_target(self, name: str) -> None:
        at = DATABASES.index(name)
        shape = {
            "metric": ("cosine", "euclidean", "dot", "cosine")[at],
            "shards": (1, 1, 2, 1)[at],
            "schema": {"body": "text"},
        }
        made = self._call("POST", "/v2/databases", {"name": name, "dimension": DIMENSION, **shape})
        rows = [[0.1 + n, 1.0, -0.5, 2.0] for n in range(len(IDS))]
        if "id" in made:
            self._call("POST", f"/v2/databases/{made['id']}/vectors", {"ids": list(IDS), "values": rows})

    def _tidy(self) -> None:
        """What the fuzzer made goes, what it broke is made again: so that memory has no reason to grow."""
        kept = {self._untouched_id}
        names = set()
        for database in self._call("GET", "/v2/databases")["databases"]:
            name = database["name"]
            whole = database["dimension"] == DIMENSION and database["vectors"] < VECTORS_MAX
            if name in DATABASES and name not in names and whole:
                names.add(name)
            elif database["id"] not in kept:
                self._call("DELETE", f"/v2/databases/{database['id']}")
        for name in set(DATABASES) - names:
            self._make_target(name)
        for user in self._call("GET", "/v1/users")["users"]:
            self._call("DELETE", f"/v1/users/{user['user_id']}")

    def untouched(self) -> bytes:
        """All of the database that no request names: ids, versions, metadata, vectors."""
        scrolled = self._call(
            "POST",
            f"/v2/databases/{self._untouched_id}/vectors/scroll",
            {"limit": 1000, "include": ["metadata", "vector"]},
        )
        assert len(scrolled["vectors"]) == 500
        return repr(scrolled["vectors"]).encode()

    # The end

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    def _examine(self, before: bytes) -> None:
        wrong = self.report.wrong
        if self.server.process.poll() is not None:
            wrong.append("the server has died")
            return
        if self.untouched() != before:
            wrong.append("a database was changed that no request named")
        if self.report.end_bytes - self.report.warm_bytes > GROWTH_BYTES_MAX:
            wrong.append(f"memory grew from {self.report.warm_bytes} to {self.report.end_bytes} bytes")
        log = self.server.log()
        for sign in ("Traceback", "nobody foresaw"):
            if sign in log:
                at = log.index(sign)
                wrong.append(f"the log has a trace: {log[max(0, at - 500) : at + 3000]}")


def run(
    folder: Path,
    seed: int,
    count: int,
    first: int = 0,
    connections: int = 4,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """A server of its own, and all checks; `Report.wrong` is empty when all is well."""
    environment = {
        "JADEVECTORDB_LIMITS_LOGIN_FAILURES_MAX": "1000000",
        "JADEVECTORDB_LIMITS_REGISTRATIONS_PER_HOUR": "1000000",
    }
    with serving(folder / "data", env=environment) as server:
        campaign = Campaign(server, seed, connections)
        campaign.progress = progress
        report = campaign.run(first, count)
        if not report.wrong and server.stop() != 0:
            report.wrong.append("the server did not stop in order")
        if report.wrong:
            report.wrong.append(f"end of its log: {server.log()[-3000:]}")
    return report
