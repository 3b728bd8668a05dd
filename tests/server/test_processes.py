"""A server of several processes, over real ones: what one writes all read at once, who lost a right has lost it everywhere, and any
of them may be killed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

DIMENSION = 8
JSON = {"Content-Type": "application/json"}
_UNTIL_S = 60.0
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="several processes need Linux")


class Connection:
    """One kept connection, so one process of the server: whichever the system gave it to."""

    def __init__(self, server: ServerProcess, **headers: str) -> None:
        self.http = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        self.headers = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.http.connect()

    @property
    def port(self) -> int:
        port: int = self.http.sock.getsockname()[1]
        return port

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.http.request(method, path, sent, self.headers)
        answer = self.http.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def close(self) -> None:
        self.http.close()


def readers_of(server: ServerProcess) -> list[int]:
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in listed if b"jadevectordb.reader" in command_of(int(pid))]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # one that built an index, and ended just now
        return b""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _UNTIL_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def sockets_of(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:
            continue
    return found


def process_of(server: ServerProcess, connection: Connection) -> int:
    """The process at the other end of a connection."""
    mine = f":{connection.port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(mine) and fields[3] == "01" and not fields[1].endswith(mine):
            inode = f"socket:[{fields[9]}]"
            for pid in (server.process.pid, *readers_of(server)):
                if inode in sockets_of(pid):
                    return pid
    raise AssertionError("nobody has the connection")


Each = Callable[..., dict[int, Connection]]


@pytest.fixture()
def one_to_each() -> Iterator[Each]:
    """`one_to_each(server, **headers)`: a connection to every process of a server, by process; closed after the test."""
    opened: list[Connection] = []

    def connect(server: ServerProcess, **headers: str) -> dict[int, Connection]:
        found = _one_to_each(server, headers)
        opened.extend(found.values())
        return found

    yield connect
    for connection in opened:
        connection.close()


def _one_to_each(server: ServerProcess, headers: dict[str, str]) -> dict[int, Connection]:
    wanted = {server.process.pid, *readers_of(server)}
    found: dict[int, Connection] = {}
    end = time.monotonic() + _UNTIL_S  # one of them may only begin to listen
    while time.monotonic() < end:
        connection = Connection(server, **headers)
        connection.call("GET", "/health")  # it is accepted by now
        pid = process_of(server, connection)
        if pid in wanted and pid not in found:
            found[pid] = connection
        else:
            connection.close()
        if found.keys() == wanted:
            return found
    raise AssertionError(f"no connection reached {wanted - found.keys()}")


def vector(seed: int) -> list[float]:
    return np.random.default_rng(seed).standard_normal(DIMENSION).round(4).tolist()  # type: ignore[no-any-return]


def passed_on(server: ServerProcess) -> int:
    found = re.search(r"^jadevectordb_passed_requests ([0-9.e+]+)", server.call("GET", "/metrics")[1], re.M)
    assert found is not None
    return int(float(found[1]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("processes") / "data", "--processes", "3") as running:
        assert len(readers_of(running)) == 2
        yield running


@pytest.fixture()
def database(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    body = {"name": request.node.name[:100], "dimension": DIMENSION, "schema": {"body": "text"}, "shards": 2}
    status, made = server.call("POST", "/v2/databases", body)
    assert status == 201, made
    return f"/v2/databases/{made['id']}"


def test_figures_are_of_the_whole_server(server: ServerProcess, database: str, one_to_each: Each) -> None:
    """The first test of this server: what another did may be counted a moment after it."""
    connections = one_to_each(server)
    assert server.call("POST", database + "/vectors", {"ids": ["a"], "values": [vector(1)]})[0] == 200
    line = r'^jadevectordb_requests_total{[^}]*route="/v2/databases/{db}/search",status="200"} ([0-9.e+]+)'

    def counted() -> int:
        found = re.search(line, server.call("GET", "/metrics")[1], re.M)
        return 0 if found is None else int(float(found[1]))

    before = counted()
    for connection in connections.values():
        for _ in range(20):
            status, answer = connection.call("POST", database + "/search", {"vector": vector(1)})
            assert status == 200
        # Whoever asks over the same connection is told of what just happened
        name = database.rsplit("/", 1)[1]
        body = {"query_id": answer["query_id"], "rating": 5}
        status, noted = connection.call("POST", f"/v1/databases/{name}/analytics/feedback", body)
        assert status in (200, 201), noted
    until(lambda: counted() == before + 20 * len(connections), "all searches counted")


def test_what_one_process_acknowledged_every_other_reads(
    server: ServerProcess, database: str, one_to_each: Each
) -> None:
    connections = list(one_to_each(server).values())
    generator = np.random.default_rng(1)
    for i in range(500):
        writes, reads = (connections[k] for k in generator.integers(0, len(connections), 2))
        body = {"ids": [f"v{i}"], "values": [vector(i)], "metadata": [{"n": i}]}
        assert writes.call("POST", database + "/vectors", body)[0] == 200
        match i % 5:
            case 0:
                hits = reads.call("POST", database + "/search", {"vector": vector(i), "k": 1})[1]["hits"]
                assert [(hit["id"], hit["metadata"]) for hit in hits] == [(f"v{i}", {"n": i})]
            case 1:
                assert reads.call("GET", f"{database}/vectors/v{i}")[1]["metadata"] == {"n": i}
            case 2:
                assert reads.call("POST", database + "/count", {}) == (200, {"count": i + 1})
            case 3:
                body = {"ids": [f"v{i}", f"v{i + 1}"]}
                assert reads.call("POST", database + "/vectors/exists", body)[1] == {"exists": [True, False]}
            case _:
                batch = reads.call("POST", database + "/search/batch", {"vectors": [vector(i), vector(0)], "k": 1})[1]
                assert [item["hits"][0]["id"] for item in batch["results"]] == [f"v{i}", "v0"]


def test_reads_of_different_processes_never_go_back(server: ServerProcess, database: str, one_to_each: Each) -> None:
    """While another connection writes: what one process showed, the next one shows too, and no token goes with it."""
    connections = list(one_to_each(server).values())

    seen_enough = threading.Event()

    def write() -> None:
        writes = Connection(server)
        for i in itertools.count():
            if seen_enough.is_set():
                break
            body = {"ids": [f"v{i}"], "values": [vector(i)]}
            assert writes.call("POST", database + "/vectors", body)[0] == 200
        writes.close()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        counts: list[int] = []
        try:
            while not writing.done() and len(set(counts)) < 100:
                counts += [reads.call("POST", database + "/count", {})[1]["count"] for reads in connections]
        finally:
            seen_enough.set()
        writing.result()
    assert counts == sorted(counts)


def test_readers_answer_themselves_like_the_writer(server: ServerProcess, database: str, one_to_each: Each) -> None:
    name = database.rsplit("/", 1)[1]
    body = {
        "ids": [f"v{i}" for i in range(300)],
        "values": [vector(i) for i in range(300)],
        "metadata": [{"n": i, "body": f"word{i % 7} tree"} for i in range(300)],
    }
    assert server.call("POST", database + "/vectors", body)[0] == 200
    assert server.call("POST", database + "/wait-indexed", {})[0] == 200
    connections = one_to_each(server)
    asked = [
        ("POST", database + "/search", {"vector": vector(3), "k": 7, "include": ["metadata", "vector", "version"]}),
        ("POST", database + "/search", {"vector": vector(3), "k": 7, "filter": {"n": {"$lt": 50}}}),
        ("POST", database + "/search", {"text": "word3", "k": 5}),
        ("POST", database + "/search", {"vector": [1.0], "k": 5}),
        ("POST", database + "/search", {"vector": vector(1), "k": 5, "no_such": 1}),
        ("GET", database + "/vectors/v17", None),
        ("GET", database + "/vectors/none", None),
        ("POST", database + "/vectors/get", {"ids": ["v1", "none", "v2"]}),
        ("POST", f"/v1/databases/{name}/search", {"queryVector": vector(5), "topK": 4}),
        ("POST", f"/v1/databases/{name}/search/advanced", {"queryVector": vector(5), "topK": 4, "filters": {"n": 5}}),
        ("POST", f"/v1/databases/{name}/search", {"query\\u0054ext": "word3", "topK": 4}),
        ("GET", f"/v1/databases/{name}/vectors/v9", None),
        ("GET", "/v2/databases/none/vectors/v9", None),
        ("GET", database, None),
        ("DELETE", database + "/search", None),
    ]
    writer = connections.pop(server.process.pid)
    for reader in connections.values():
        until(lambda reader=reader: _answers_itself(server, reader, database), "a reader that is in step")  # type: ignore[misc]
    for method, path, sent in asked:
        expected = writer.call(method, path, sent)
        for reader in connections.values():
            assert _stable(reader.call(method, path, sent)) == _stable(expected), (method, path, sent)


def _stable(answer: tuple[int, Any]) -> tuple[int, Any]:
    """Without what differs from request to request."""
    status, body = answer
    if isinstance(body, dict):
        own = {"query_id", "queryId", "queryTimeMs", "request_id", "requestId", "timestamp"}
        body = {name: value for name, value in body.items() if name not in own}
    return status, body


def _answers_itself(server: ServerProcess, reader: Connection, database: str) -> bool:
    before = passed_on(server)
    assert reader.call("POST", database + "/count", {})[0] == 200
    return passed_on(server) == before


def test_changes_of_a_database_count_at_once_everywhere(
    server: ServerProcess, database: str, one_to_each: Each
) -> None:
    connections = one_to_each(server)
    for round_ in range(3):
        for pid, connection in connections.items():
            name = f"d-{round_}-{pid}"
            status, made = connection.call("POST", "/v2/databases", {"name": name, "dimension": DIMENSION})
            assert status == 201
            path = f"/v2/databases/{name}"
            assert connection.call("POST", path + "/vectors", {"ids": ["a"], "values": [vector(1)]})[0] == 200
            for other in connections.values():
                assert other.call("POST", path + "/count", {}) == (200, {"count": 1})
            assert connection.call("PATCH", path, {"name": name + "x", "index": "FLAT"})[0] == 200
            for other in connections.values():
                assert other.call("POST", path + "/count", {})[0] == 404
                assert other.call("POST", path + "x/search", {"vector": vector(1)})[1]["hits"][0]["id"] == "a"
            assert connection.call("PATCH", path + "x", {"schema": {"body": "text"}})[0] == 200
            body = {"ids": ["b"], "values": [vector(2)], "metadata": [{"body": "elm"}]}
            assert connection.call("POST", path + "x/vectors", body)[0] == 200
            for other in connections.values():
                assert [h["id"] for h in other.call("POST", path + "x/search", {"text": "elm"})[1]["hits"]] == ["b"]
            assert connection.call("DELETE", path + "x")[0] == 200
            for other in connections.values():
                assert other.call("POST", f"/v2/databases/{made['id']}/count", {})[0] == 404


def test_a_body_that_is_large_and_one_that_is_refused_pass_through(
    server: ServerProcess, database: str, one_to_each: Each
) -> None:
    ids = [f"r{i}" for i in range(20_000)]
    header = json.dumps({"ids": ids}).encode()
    header += b" " * (-(4 + len(header)) % 4)
    block = np.zeros((len(ids), DIMENSION), "<f4")
    block[:, 0] = 1
    body = len(header).to_bytes(4, "little") + header + block.tobytes() + b""
    for connection in one_to_each(server, Content_Type="application/octet-stream").values():
        status, answer = connection.call("POST", database + "/vectors", body)
        assert (status, answer["count"]) == (200, len(ids))
        assert connection.call("POST", database + "/vectors", body[:-4])[0] == 400


@pytest.fixture()
def guarded(tmp_path: Path) -> Iterator[ServerProcess]:
    env = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path / "data", "--processes", "3", auth="required", env=env) as running:
        yield running


def test_a_revocation_counts_from_the_next_request_in_every_process(guarded: ServerProcess, one_to_each: Each) -> None:
    status, signed_in = guarded.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})
    assert status == 200
    token = signed_in["token"]
    made = guarded.call("POST", "/v2/databases", {"name": "d", "dimension": DIMENSION}, token=token)[1]
    path = f"/v2/databases/{made['id']}"
    guarded.call("POST", path + "/vectors", {"ids": ["a"], "values": [vector(1)]}, token=token)
    for _ in range(5):
        status, key = guarded.call("POST", "/v1/api-keys", {"description": "k", "permissions": ["read"]}, token=token)
        assert status in (200, 201), key
        connections = one_to_each(guarded, X_API_Key=key["api_key"])
        for connection in connections.values():
            for _ in range(3):  # the second and third time it is remembered
                assert connection.call("POST", path + "/search", {"vector": vector(1)})[0] == 200
            assert connection.call("POST", path + "/vectors", {"ids": ["b"], "values": [vector(2)]})[0] == 403
        status, _ = guarded.call("DELETE", f"/v1/api-keys/{key['key_id']}", token=token)
        assert status in (200, 204)
        for connection in connections.values():
            assert connection.call("POST", path + "/search", {"vector": vector(1)})[0] == 401
            assert connection.call("GET", path + "/vectors/a")[0] == 401
            connection.close()
    nobody = one_to_each(guarded)
    for connection in nobody.values():
        assert connection.call("POST", path + "/search", {"vector": vector(1)})[0] == 401


def test_grants_and_passwords_are_decided_alike_everywhere(guarded: ServerProcess, one_to_each: Each) -> None:
    admin = guarded.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})[1]["token"]
    made = guarded.call("POST", "/v2/databases", {"name": "d", "dimension": DIMENSION}, token=admin)[1]
    path = f"/v2/databases/{made['id']}"
    body = {"username": "reader", "password": "a long enough password", "roles": ["user"]}
    status, user = guarded.call("POST", "/v1/users", body, token=admin)
    assert status == 201, user
    status, signed_in = guarded.call("POST", "/v1/auth/login", {"username": "reader", "password": body["password"]})
    token = signed_in["token"]
    if signed_in.get("must_change_password"):
        changed = {"current_password": body["password"], "new_password": "another long password"}
        guarded.call("PUT", f"/v1/users/{user['user_id']}/password", changed, token=token)
        body["password"] = "another long password"
        token = guarded.call("POST", "/v1/auth/login", body)[1]["token"]
    connections = one_to_each(guarded, Authorization=f"Bearer {token}")
    for _ in range(3):
        for connection in connections.values():
            assert connection.call("POST", path + "/count", {})[0] == 404  # invisible
        status, answer = guarded.call("PUT", f"{path}/grants/{user['user_id']}", {"right": "read"}, token=admin)
        assert status == 200, answer
        for connection in connections.values():
            assert connection.call("POST", path + "/count", {}) == (200, {"count": 0})
            assert connection.call("POST", path + "/count", {}) == (200, {"count": 0})
        assert guarded.call("DELETE", f"{path}/grants/{user['user_id']}", token=admin)[0] == 200


def test_a_killed_reader_is_started_again_and_a_killed_writer_ends_them(tmp_path: Path, one_to_each: Each) -> None:
    with serving(tmp_path / "data", "--processes", "2") as server:
        made = server.call("POST", "/v2/databases", {"name": "d", "dimension": DIMENSION})[1]
        path = f"/v2/databases/{made['id']}"
        (first,) = readers_of(server)
        doomed = one_to_each(server)[first]
        assert doomed.call("POST", path + "/vectors", {"ids": ["a"], "values": [vector(1)]})[0] == 200
        os.kill(first, signal.SIGKILL)
        with pytest.raises((OSError, http.client.HTTPException)):
            doomed.call("POST", path + "/count", {})
        assert _count(server, path) == 1
        until(lambda: readers_of(server) not in ([], [first]) and _listens(server), "another reader")
        (second,) = readers_of(server)
        connection = one_to_each(server)[second]
        assert connection.call("POST", path + "/count", {}) == (200, {"count": 1})
        until(lambda: "a reading process ended (signal 9)" in server.log(), "a word in the log")
        server.kill()
        until(lambda: not is_alive(second), "the reader ends with the writer")
    with serving(tmp_path / "data") as server:
        assert server.call("POST", path + "/count", {}) == (200, {"count": 1})


def _listens(server: ServerProcess) -> bool:
    try:
        return "\njadevectordb_reading_processes 1.0" in server.call("GET", "/metrics")[1]
    except OSError:  # given to the process that died
        return False


def _count(server: ServerProcess, path: str) -> int:
    """A connection that was given to a process that died before it was accepted is refused; the next is not."""
    for _ in range(20):
        try:
            return int(server.call("POST", path + "/count", {})[1]["count"])
        except OSError:
            continue
    raise AssertionError("nobody answers")


def test_stopping_finishes_what_runs_in_every_process(tmp_path: Path, one_to_each: Each) -> None:
    patient = {"JADEVECTORDB_DRAIN_S": "60"}
    with serving(tmp_path / "data", "--processes", "3", env=patient) as server:
        made = server.call("POST", "/v2/databases", {"name": "d", "dimension": DIMENSION})[1]
        path = f"/v2/databases/{made['id']}"
        connections = list(one_to_each(server).values())
        readers = readers_of(server)
        rows = np.ones((20_000, DIMENSION)).tolist()
        for number, connection in enumerate(connections):
            body = json.dumps({"ids": [f"{number}-{i}" for i in range(20_000)], "values": rows})
            # So little is kept on the way that what is sent has been read by the process, which is what "runs" means
            connection.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
            connection.http.request("POST", path + "/vectors", body, JSON)
        assert server.stop(within_s=120.0) == 0
        for connection in connections:
            answer = connection.http.getresponse()
            assert answer.status == 200, answer.read()
        assert not any(is_alive(pid) for pid in readers)
    with serving(tmp_path / "data") as server:
        assert server.call("POST", path + "/count", {}) == (200, {"count": 60_000})


def test_a_second_server_cannot_share_the_port(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--processes", "2") as server:
        port = server.url.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "jadevectordb", "serve", "--data", str(tmp_path / "other"), "--port", port]
        done = subprocess.run(
            [*command, "--grpc-port", "0", "--auth", "open-loopback", "--processes", "2"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode != 0 and "is another server running there" in done.stdout + done.stderr


def test_slow_searches_and_uses_of_keys_are_told_by_every_process(tmp_path: Path, one_to_each: Each) -> None:
    env = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD, "JADEVECTORDB_LOG_SLOW_QUERY_MS": "0.0001"}
    with serving(tmp_path / "data", "--processes", "3", auth="required", env=env) as server:
        signed_in = server.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})[1]
        token = signed_in["token"]
        body = {"name": "d", "dimension": DIMENSION, "schema": {"body": "text", "n": "integer"}}
        made = server.call("POST", "/v2/databases", body, token=token)[1]
        path, old = f"/v2/databases/{made['id']}", f"/v1/databases/{made['id']}"
        rows = {"ids": ["a"], "values": [vector(1)], "metadata": [{"n": 1, "body": "elm"}]}
        assert server.call("POST", path + "/vectors", rows, token=token)[0] == 200
        key = server.call("POST", "/v1/api-keys", {"description": "k", "permissions": ["read"]}, token=token)[1]
        connections = one_to_each(server, X_API_Key=key["api_key"])
        for pid, connection in connections.items():
            until(
                lambda connection=connection: _passed_nothing(server, token, connection, path),  # type: ignore[misc]
                "a reader that is in step",
            )
            limit = 10 + pid % 1_000_000
            asked = {"vector": vector(1), "filter": {"n": {"$lt": limit}}}
            assert connection.call("POST", path + "/search", asked)[0] == 200
            asked = {"queryVector": vector(1), "topK": 3, "filters": {"n": limit}}
            assert connection.call("POST", old + "/search", asked)[0] == 200
            assert connection.call("POST", path + "/search", {"text": "elm", "k": 9})[0] == 200

        def told() -> bool:
            slow = server.call("GET", "/v2/queries/slow?limit=100", token=token)[1]
            text = json.dumps(slow)
            return all(text.count(str(10 + pid % 1_000_000)) >= 2 for pid in connections)

        until(told, "slow searches of every process")

        def uses() -> int:
            listed = server.call("GET", "/v1/api-keys", token=token)[1]
            keys = listed["api_keys"] if isinstance(listed, dict) else listed
            return int(next(k for k in keys if k["key_id"] == key["key_id"])["usage_count"])

        until(lambda: uses() >= 3 * len(connections), "uses of the key")


def _passed_nothing(server: ServerProcess, token: str, connection: Connection, path: str) -> bool:
    pattern = r"^jadevectordb_passed_requests ([0-9.e+]+)"
    before = re.search(pattern, server.call("GET", "/metrics", token=token)[1], re.M)
    assert connection.call("POST", path + "/count", {})[0] == 200
    after = re.search(pattern, server.call("GET", "/metrics", token=token)[1], re.M)
    assert before is not None and after is not None
    return float(after[1]) - float(before[1]) <= 1  # asking for the figures may itself be passed on
