"""The disk of a running server fills up: reads, searches and signing in with what is known go on, writes say so, and it mends itself."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.faults.disks import mounted, needs_root
from tests.hosting_world import wait_until
from tests.rpc_world import Caller, Failed
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

DIMENSION = 32
ROWS = 100
_RECOVERY_S = 90.0
_ADMIN = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}


class Served:
    """A server whose disk is small, and what it acknowledged."""

    def __init__(self, server: ServerProcess, disk: Path) -> None:
        self.server = server
        self.ballast = disk / "ballast"
        self.token = self.sign_in()
        self.numbers: list[int] = []

    def sign_in(self) -> str:
        answer = self.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD}, expected=200)
        token: str = answer["token"]
        return token

    def call(self, method: str, path: str, body: Any = None, expected: int | None = 200) -> Any:
        headers = {"Content-Type": "application/octet-stream"} if isinstance(body, bytes) else {}
        status, answer = self.server.call(method, path, body, headers, getattr(self, "token", ""))
        assert expected is None or status == expected, f"{method} {path}: {status} {answer}"
        return answer if expected is not None else (status, answer)

    def write(self, number: int) -> bool:
        """Whether it was taken; when not, it was refused as it should be."""
        names, vectors = batch(number)
        header = ('{"ids":[' + ",".join(f'"{name}"' for name in names) + "]}").encode()
        header += b" " * (-(4 + len(header)) % 4)
        status, answer = self.call(
            "POST",
            "/v2/databases/d/vectors",
            struct.pack("<I", len(header)) + header + vectors.tobytes(),
            expected=None,
        )
        if status == 200:
            self.numbers.append(number)
            return True
        assert_full(status, answer)
        return False

    def fill(self) -> None:
        """To the last block, and on until writes are refused again and again."""
        with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        number, refused = (self.numbers[-1] if self.numbers else 0) + 1, 0
        while refused < 5:
            refused += not self.write(number)
            number += 1
            with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
                file.write(bytes(4096))

    def check(self) -> None:
        """Exactly what was acknowledged is there and found."""
        assert self.call("POST", "/v2/databases/d/count", {})["count"] == ROWS * len(self.numbers)
        for number in (*self.numbers[:3], *self.numbers[-3:]):
            names, vectors = batch(number)
            got = self.call(
                "POST", "/v2/databases/d/vectors/get", {"ids": [names[0], names[-1]], "include": ["vector"]}
            )["vectors"]
            assert [np.float32(one["vector"]).tobytes() for one in got] == [vectors[0].tobytes(), vectors[-1].tobytes()]
            hits = self.call("POST", "/v2/databases/d/search", {"vector": vectors[7].tolist(), "k": 1, "recall": 1})[
                "hits"
            ]
            assert hits[0]["id"] == names[7]

    def mends_itself(self, number: int) -> None:
        """Soon after there is space, without anybody's help."""
        until = time.monotonic() + _RECOVERY_S
        while not self.write(number):
            assert time.monotonic() < until, "writes are refused although there is space"


def batch(number: int) -> tuple[list[str], np.ndarray]:
    vectors = np.random.default_rng(number).standard_normal((ROWS, DIMENSION)).astype("<f4")
    return [f"{number}.{n}" for n in range(ROWS)], vectors


def assert_full(status: int, answer: Any) -> None:
    assert status == 503, answer
    assert answer["code"] == "DISK_FULL" and answer["retryable"] and answer["retry_after"] >= 1, answer
    assert "nothing was written" in answer["message"]


@contextlib.contextmanager
def on_small_disk(tmp_path: Path, size: str) -> Iterator[Served]:
    """The data and the log on a disk of this size."""
    with (
        mounted(tmp_path / "disk", "tmpfs", f"size={size},mode=700") as disk,
        serving(disk / "data", auth="required", env=_ADMIN) as server,
    ):
        served = Served(server, disk)
        served.call("POST", "/v2/databases", {"name": "d", "dimension": DIMENSION, "metric": "euclidean"}, expected=201)
        for number in range(5):
            assert served.write(number)
        yield served


@pytest.mark.root
@needs_root
def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path) -> None:
    with on_small_disk(tmp_path, "24m") as served:
        call = served.call
        call("POST", "/v2/databases", {"name": "other", "dimension": 2}, expected=201)
        call("POST", "/v1/users", {"username": "ann", "password": "a long password 1"}, expected=201)
        key = call("POST", "/v1/api-keys", {"description": "k"}, expected=201)["api_key"]
        for _ in range(2):
            served.fill()
            served.check()
            _refuses_every_write(served)
            _reads_go_on(served, key)
            served.check()
            served.ballast.unlink()
            served.mends_itself(served.numbers[-1] + 1000)
            served.check()
            served.sign_in()
        _is_as_new(served)


def _refuses_every_write(served: Served) -> None:
    one = {"id": "x", "values": [1.0] * DIMENSION, "metadata": {}}
    first = batch(served.numbers[0])[0][0]
    big = {"filler": "x" * 200_000}
    refused = [
        ("POST", "/v2/databases", {"name": "another", "dimension": 2}),
        ("POST", "/v1/databases", {"name": "another", "vectorDimension": 2}),
        ("POST", "/v1/databases/d/vectors", {**one, "metadata": big}),
        ("POST", "/v1/databases/d/vectors/batch", {"vectors": [{**one, "metadata": big}]}),
        ("PUT", f"/v1/databases/d/vectors/{first}", {**one, "metadata": big}),
        ("POST", "/v2/databases/d/vectors/metadata", {"ids": [first], "metadata": big}),
        ("POST", "/v1/users", {"username": "bob", "password": "a long password 1"}),
        ("POST", "/v1/api-keys", {"description": "k"}),
        ("PATCH", "/v2/databases/d", {"description": "other"}),
        ("PATCH", "/v2/databases/d", {"index": "FLAT"}),
        ("PUT", "/v1/databases/d/lifecycle", {"maxAgeDays": 3000}),
        ("DELETE", "/v2/databases/other", None),
    ]
    for method, path, body in refused:
        status, answer = served.call(method, path, body, expected=None)
        assert status == 503, f"{method} {path}: {status} {answer}"
        assert_full(status, answer)
    _is_refused_over_grpc(served)


def _is_refused_over_grpc(served: Served) -> None:
    with grpc.insecure_channel(served.server.grpc) as channel:
        call = Caller(channel, (("authorization", f"Bearer {served.token}"),))
        vectors = {"packed": np.ones((ROWS * 20, DIMENSION), np.float32).tobytes()}
        columns = {"ids": [f"g{n}" for n in range(ROWS * 20)], "vectors": vectors}
        failed = call.fails("VectorService/UpsertVectors", database="d", columns=columns)
        assert (failed.code, failed.retryable) == ("DISK_FULL", True), failed
        method, request = call.method("VectorService/BulkUpsert", "stream_stream", database="d", columns=columns)
        with pytest.raises(grpc.RpcError) as caught:
            list(method(iter([request, request]), timeout=60, metadata=call.metadata))
        assert Failed(caught.value).code == "DISK_FULL"
        assert call("VectorService/CountVectors", database="d").count == ROWS * len(served.numbers)


def _reads_go_on(served: Served, key: str) -> None:
    """Everything that only looks, with a session, with a key, with a password."""
    call, server = served.call, served.server
    for path in (
        "/health",
        "/health/live",
        "/v1/users",
        "/v1/api-keys",
        "/v1/auth/me",
        "/v2/databases",
        "/v2/databases/other",
        "/v2/databases/d/stats",
        "/metrics",
        "/status",
        "/v1/security/audit-log",
        "/v2/logs",
        "/v1/alerts",
        "/v1/databases/d/analytics/stats",
    ):
        call("GET", path)
    assert server.call("GET", "/v2/databases", headers={"X-API-Key": key})[0] == 200
    basic = {"Authorization": "Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"}  # the admin's
    assert server.call("GET", "/v1/auth/me", headers=basic)[0] == 200
    status, answer = server.call("POST", "/v1/auth/login", {"username": "admin", "password": "wrong"})
    assert status == 401, answer
    status, answer = server.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})
    # A session is a record: it can't be kept now, and the answer says why
    assert status == 200 or assert_full(status, answer) is None
    hits = call("POST", "/v1/databases/d/search", {"queryVector": [1.0] * DIMENSION, "topK": 3})
    assert len(hits["results"]) == 3


def _is_as_new(served: Served) -> None:
    """Nothing of what was refused is there, everything can be done, and the log stayed small."""
    call = served.call
    assert {one["name"] for one in call("GET", "/v2/databases")["databases"]} == {"d", "other"}
    assert {one["username"] for one in call("GET", "/v1/users")["users"]} == {"admin", "ann"}
    call("DELETE", "/v2/databases/other")
    call("PATCH", "/v2/databases/d", {"index": "FLAT"})
    call("POST", "/v2/databases/d/wait-indexed", {"timeout_s": 60})
    assert call("GET", "/v2/databases/d/stats")["trouble"] == ""
    wait_until(lambda: served.server.call("GET", "/health/ready")[0] == 200)  # the disk is looked at every few seconds
    served.check()
    log = served.server.log()
    assert "Traceback" not in log and len(log) < 1 << 20
    assert served.server.stop() == 0


@pytest.mark.root
@needs_root
def test_a_server_starts_on_a_full_disk_for_reading(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "tmpfs", "size=24m,mode=700") as disk:
        with serving(disk / "data", auth="required", env=_ADMIN) as server:
            served = Served(server, disk)
            served.call(
                "POST", "/v2/databases", {"name": "d", "dimension": DIMENSION, "metric": "euclidean"}, expected=201
            )
            for number in range(5):
                assert served.write(number)
            numbers, token = served.numbers, served.token
            served.fill()
            server.kill()
        with serving(disk / "data", auth="required", env=_ADMIN) as server:
            again = Served.__new__(Served)
            again.server, again.token, again.numbers, again.ballast = server, token, numbers, served.ballast
            again.check()
            again.ballast.unlink()
            again.mends_itself(5000)
            again.check()
