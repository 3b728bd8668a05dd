"""Sessions over the wire: through every door of every node of a real cluster, what an answer showed the next one shows."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.hosting_world import wait_until
from tests.rpc_world import Caller, packed

import jadevectordb as jade
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode

IDS = [f"v{n}" for n in range(12)]  # in both shards
ROWS = np.random.default_rng(4).standard_normal((len(IDS), 4)).astype(np.float32)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    local = LocalCluster.make(tmp_path_factory.mktemp("sessions") / "cluster", 3, None, "required")
    local.start(local.nodes, lambda _: None)
    yield local
    for node in local.nodes:
        local.kill(node)


class Rest:
    """One node's REST door. session: of the newest answer, as a program keeps it that knows nothing of what it says."""

    def __init__(self, cluster: LocalCluster, node: LocalNode) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", node.ports[0], timeout=60)
        self._login = base64.b64encode(f"admin:{cluster.admin_password}".encode()).decode()

    def call(self, method: str, path: str, body: Any, session: str, consistency: str = "") -> tuple[int, Any, str]:
        until_s = time.monotonic() + 60
        while True:
            status, told, after = self._call(method, path, body, session, consistency)
            if (
                status != 503 or time.monotonic() > until_s
            ):  # a busy machine's node may be silent for a while: asked again
                return status, told, after

    def _call(self, method: str, path: str, body: Any, session: str, consistency: str) -> tuple[int, Any, str]:
        headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
        headers |= {"X-Jade-Session": session} if session else {}
        headers |= {"X-Jade-Consistency": consistency} if consistency else {}
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        told = json.loads(answer.read())
        return answer.status, told, answer.headers.get("X-Jade-Session", "")

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def doors(cluster: LocalCluster) -> Iterator[list[Rest]]:
    opened = [Rest(cluster, node) for node in cluster.nodes]
    yield opened
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def callers(cluster: LocalCluster) -> Iterator[list[Caller]]:
    login = base64.b64encode(f"admin:{cluster.admin_password}".encode()).decode()
    channels = [grpc.insecure_channel(f"127.0.0.1:{node.ports[1]}") for node in cluster.nodes]
    yield [Caller(channel, (("authorization", f"Basic {login}"),)) for channel in channels]
    for channel in channels:
        channel.close()


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[jade.Client]:
    with cluster.client() as made:
        yield made


@pytest.fixture
def database(client: jade.Client, request: pytest.FixtureRequest) -> Any:
    made = client.create_database(request.node.name[:60], 4, shards=2)
    made.upsert(IDS, ROWS, [{"n": n} for n in range(len(IDS))])
    return made


def marks(session: str) -> dict[int, int]:
    return {int(s): int(q) for s, q in (pair.split(".") for pair in session.partition("~")[2].split(",") if pair)}


def not_below(session: str, before: str) -> bool:
    """Whether it stands for the other one too."""
    return all(marks(session).get(shard, 0) >= sequence for shard, sequence in marks(before).items())


def test_every_rest_route_that_reads_answers_the_session(doors: list[Rest], database: Any) -> None:
    v2, v1 = f"/v2/databases/{database.id}", f"/v1/databases/{database.id}"
    query = ROWS[0].tolist()
    routes: list[tuple[str, str, Any]] = [
        ("POST", v2 + "/search", {"vector": query}),
        ("POST", v2 + "/search", {"id": "v1", "include": ["vector"]}),
        ("POST", v2 + "/search", {"vector": query, "group_by": "n", "k": 3}),
        ("POST", v2 + "/search/batch", {"vectors": [query, query]}),
        ("POST", v2 + "/vectors/get", {"ids": IDS}),
        ("GET", v2 + "/vectors/v1", None),
        ("POST", v2 + "/vectors/exists", {"ids": IDS}),
        ("POST", v2 + "/vectors/scroll", {"limit": 100}),
        ("POST", v2 + "/count", {}),
        ("POST", v2 + "/count", {"filter": {"n": {"$lt": 5}}}),
        ("POST", v1 + "/search", {"queryVector": query}),
        ("POST", v1 + "/search", {"queryVector": query, "consistency": "strong", "includeValues": True}),
        ("POST", v1 + "/search/advanced", {"queryVector": query, "filters": {"n": 3}}),
        ("POST", v1 + "/search/hybrid", {"queryVector": query}),
        ("GET", v1 + "/vectors", None),
        ("GET", v1 + "/vectors/v2", None),
        ("POST", v1 + "/vectors/batch-get", {"ids": IDS}),
    ]
    session = ""
    for number, (method, path, body) in enumerate(routes):
        status, told, fresh = doors[number % 3].call(method, path, body, "")
        assert status == 200 and fresh.startswith(f"{database.id}~"), (path, told, fresh)
        status, told, after = doors[(number + 1) % 3].call(method, path, body, session)
        assert status == 200 and not_below(after, session), (path, told, after)
        session = after
    assert set(marks(session)) == {0, 1}


def test_every_rest_route_that_writes_answers_it_too(doors: list[Rest], database: Any) -> None:
    v2, v1 = f"/v2/databases/{database.id}", f"/v1/databases/{database.id}"
    row = {"id": "new", "values": [1, 2, 3, 4]}
    routes: list[tuple[str, str, Any]] = [
        ("POST", v2 + "/vectors", {"vectors": [row]}),
        ("POST", v2 + "/vectors/metadata", {"ids": ["new"], "metadata": {"a": 1}}),
        ("POST", v1 + "/vectors", row),
        ("POST", v1 + "/vectors/batch", {"vectors": [row]}),
        ("PUT", v1 + "/vectors/new", {"metadata": {"a": 2}}),
        ("DELETE", v1 + "/vectors/new", None),
        ("POST", v2 + "/vectors/delete", {"ids": ["v3"]}),
    ]
    session = database.session
    for number, (method, path, body) in enumerate(routes):
        status, told, after = doors[number % 3].call(method, path, body, session)
        assert status in (200, 201), (path, told)
        assert not_below(after, session) and marks(after) != marks(session), path
        assert told.get("session", after) == after
        session = after
    assert doors[2].call("POST", v2 + "/count", {}, session)[1] == {"count": len(IDS) - 1}


def test_an_error_brings_what_its_client_has_seen_all_the_same(
    doors: list[Rest], callers: list[Caller], client: jade.Client, database: Any
) -> None:
    v2, v1 = f"/v2/databases/{database.id}", f"/v1/databases/{database.id}"
    fresh = database.upsert(["v0"], ROWS[:1])  # from now on version 1 of it is an old one
    (shard,) = marks(fresh.session).keys() - {s for s, q in marks(fresh.session).items() if q != fresh.version}
    stale = {"ids": ["v0"], "values": ROWS[:1].tolist(), "if_version": [1]}
    status, told, session = doors[1].call("POST", v2 + "/vectors", stale, "")
    assert status == 409 and "durable" not in told["details"]
    assert session.startswith(f"{database.id}~") and marks(session)[shard] > fresh.version

    # A part was written: what follows in the session sees it
    before = doors[0].call("POST", v2 + "/vectors/get", {"ids": IDS}, "", "strong")[2]
    some = {"ids": IDS, "values": ROWS.tolist(), "if_version": [1 if name == "v0" else None for name in IDS]}
    status, told, session = doors[2].call("POST", v2 + "/vectors", some, "")
    assert status == 409 and 0 < told["details"]["written"] < len(IDS)
    assert all(marks(session)[shard] > sequence for shard, sequence in marks(before).items())

    # What is not there was looked for as far as the token says
    gone = doors[0].call("DELETE", v1 + "/vectors/v5", None, "")[2]
    status, told, session = doors[1].call("GET", v1 + "/vectors/v5", None, gone)
    assert status == 404 and not_below(session, gone)
    assert doors[1].call("GET", "/v2/databases/none/vectors/v5", None, gone)[2] == ""

    columns = {"ids": ["v0"], "vectors": {"packed": packed(ROWS[:1])}, "if_version": [1]}
    refused = callers[1].fails("VectorService/UpsertVectors", database=database.id, columns=columns)
    assert refused.code == "VERSION_CONFLICT" and "durable" not in refused.details
    assert marks(refused.metadata["x-jade-session"])[shard] > fresh.version

    known = database.session
    with pytest.raises(jade.JadeError, match="must have version 1"):
        database.upsert(["v0"], ROWS[:1], if_version=1)
    assert not_below(database.session, known) and marks(database.session)[shard] > marks(known)[shard]


def test_tokens_of_something_else_do_no_harm_and_one_that_is_ahead_is_told(doors: list[Rest], database: Any) -> None:
    count = f"/v2/databases/{database.id}/count"
    # Without a token of this database a reader may be shown less until the replicas have come so far
    wait_until(lambda: doors[1].call("POST", count, {}, "another~0.999999", "strong")[1] == {"count": len(IDS)})
    for session in (f"another~5.7|{database.session}", f"{database.session}|another~0.999999"):
        status, told, after = doors[1].call("POST", count, {}, session)
        assert (status, told) == (200, {"count": len(IDS)}) and after.startswith(f"{database.id}~")
    assert doors[1].call("POST", count, {}, f"{database.id}~0")[0] == 400
    assert doors[1].call("POST", count, {}, f"{database.id}~7.1")[0] == 400
    ahead = f"{database.id}~0.999999"
    assert doors[1].call("POST", count, {}, ahead, "eventual")[0] == 200  # promises nothing, so it waits for nothing


def test_grpc_answers_carry_it_as_receipts_do(callers: list[Caller], database: Any) -> None:
    asked = {"database": database.id}
    vector = {"packed": packed(ROWS[0])}
    columns = {"ids": ["g"], "vectors": {"packed": packed(ROWS[:1])}}
    session = callers[0]("VectorService/UpsertVectors", **asked, columns=columns).receipt.session
    reads: list[Callable[[Caller, str], Any]] = [
        lambda call, token: call("SearchService/Search", **asked, vector=vector, session=token),
        lambda call, token: call("SearchService/SearchBatch", **asked, vectors=vector, session=token),
        lambda call, token: call("VectorService/GetVectors", **asked, ids=["g", "v1", "v2", "v3"], session=token),
        lambda call, token: call("VectorService/VectorsExist", **asked, ids=["g", "none"], session=token),
        lambda call, token: call("VectorService/CountVectors", **asked, session=token),
    ]
    for number, read in enumerate(reads):
        assert read(callers[number % 3], "").session.startswith(f"{database.id}~")
        after = read(callers[(number + 1) % 3], session).session
        assert not_below(after, session)
        session = after
    assert callers[2]("VectorService/CountVectors", **asked, session=session).count == len(IDS) + 1
    scroll, request = callers[1].method(
        "VectorService/ScrollVectors", "unary_stream", **asked, session=session, page_size=5
    )
    for message in scroll(request, timeout=60, metadata=callers[1].metadata):
        assert not_below(message.session, session)
        session = message.session
    written = callers[0].with_metadata(*callers[0].metadata, ("x-jade-session", session))
    receipt = written("VectorService/DeleteVectors", **asked, ids=["g"]).receipt
    assert not_below(receipt.session, session) and receipt.session != session


def test_no_reader_goes_back_whichever_nodes_it_asks(
    cluster: LocalCluster, doors: list[Rest], database: Any, client: jade.Client
) -> None:
    """A counter in one vector grows; who reads it at one node after the other never sees it shrink, with the newest token alone."""
    stop, errors = threading.Event(), []

    def write() -> None:
        number = 100
        try:
            while not stop.is_set():
                number += 1
                database.upsert(["v0"], ROWS[:1], [{"n": number}])
        except BaseException as error:
            errors.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    path, session, newest, values = f"/v2/databases/{database.id}/vectors/get", "", 0, set()
    others = [jade.Client(node.url, user="admin", password=cluster.admin_password) for node in cluster.nodes]
    try:
        handles = [other.database(database.id) for other in others]
        until_s = time.monotonic() + 60
        for turn in itertools.count():
            if turn >= 120 and len(values) > 5:
                break
            assert time.monotonic() < until_s or errors, "the writer does not come on"
            consistency = "eventual" if turn % 10 == 0 else ""
            status, told, session = doors[turn % 3].call("POST", path, {"ids": ["v0"]}, session, consistency)
            assert status == 200
            value = told["vectors"][0]["metadata"]["n"]
            assert consistency or value >= newest
            newest = max(newest, value)  # what an eventual read showed is shown from then on
            values.add(value)
        handed, shown = database.session, []
        for turn in range(60):
            handle = handles[turn % 3]
            handle.session = handed
            item = handle.get("v0")
            assert item is not None
            shown.append(item.metadata["n"])
            handed = handle.session
        assert shown == sorted(shown) and shown[0] >= 100
    finally:
        stop.set()
        writing.join()
        for other in others:
            other.close()
    assert not errors


def _whole(found: Any) -> Any:
    return found if found.missing_shards == () else None


def test_the_client_reads_at_every_level_and_says_which_there_are(client: jade.Client, database: Any) -> None:
    for level in ("", "session", "strong", "eventual"):
        assert database.count(consistency=level) <= len(IDS)
        assert len(database.search(ROWS[0], k=5, consistency=level, allow_partial=True)) <= 5
    for level in ("session", "strong"):  # what this client wrote is there
        found = wait_until(
            lambda level=level: _whole(database.search(ROWS[3], k=1, consistency=level, allow_partial=True))
        )
        assert found.ids == ["v3"]
        assert database.search(ROWS[3], k=1, filter={"n": 3}, explain=True, consistency=level).ids == ["v3"]
        assert [hits.ids for hits in database.search_batch(ROWS[:2], k=1, consistency=level)] == [["v0"], ["v1"]]
        assert database.get(IDS, consistency=level)[4].metadata == {"n": 4}
        assert database.exists("v5", consistency=level)
        assert database.count({"n": 7}, consistency=level) == 1
        assert len(database.scroll(100, consistency=level).items) == len(IDS)
    for read in (
        lambda: database.search(ROWS[0], consistency="quorum"),
        lambda: database.search_batch(ROWS, consistency="all"),
        lambda: database.get("v1", consistency="STRONG"),
    ):
        with pytest.raises(jade.JadeError, match="session, strong or eventual") as caught:
            read()
        assert caught.value.code is jade.ErrorCode.INVALID_ARGUMENT
