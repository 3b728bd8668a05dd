"""The public services over real connections: what is written is read, what is wrong is said, what is unwanted is not done."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.rpc_world import Caller, Failed, listening, packed, rpc_world, services

from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.embedded import stepwise
from jadevectordb.gateway.rpc import search
from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.dispatch import Served
from jadevectordb.gateway.rpc.generated import search_pb2, types_pb2, vectors_pb2, worker_pb2
from jadevectordb.gateway.rpc.server import RpcOptions, RpcServer
from jadevectordb.gateway.rpc.table import Rpc
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.event_log import EventFilter

World = tuple[Caller, RpcServer, Services]
BASIS = np.eye(4, dtype=np.float32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rpc_world(tmp_path_factory.mktemp("rpc")) as built:
        yield built


@pytest.fixture
def call(shared: World) -> Caller:
    return shared[0]


@pytest.fixture
def name(call: Caller, request: pytest.FixtureRequest) -> str:
    """A database of four basis vectors w, x, y, z with metadata {"n": 0..3}."""
    database: str = call("DatabaseService/CreateDatabase", name=request.node.name[:100], dimension=4).database.id
    columns = {
        "ids": list("wxyz"),
        "vectors": {"packed": packed(BASIS)},
        "metadata_json": [b'{"n":%d}' % n for n in range(4)],
    }
    call("VectorService/UpsertVectors", database=database, columns=columns)
    return database


def ids(answer: Any) -> list[str]:
    return [hit.id for hit in answer.hits]


# Databases


def test_a_database_from_making_to_dropping(call: Caller) -> None:
    schema = {"pos": "string", "year": {"type": "integer"}}
    made = call(
        "DatabaseService/CreateDatabase",
        name="words",
        dimension=3,
        metric=types_pb2.METRIC_EUCLIDEAN,
        index=types_pb2.INDEX_KIND_FLAT,
        shards=2,
        schema_json=json.dumps(schema).encode(),
        strict=True,
        description="A few words",
    ).database
    assert (made.name, made.dimension, made.shards, made.strict, made.vectors) == ("words", 3, 2, True, 0)
    assert (made.metric, made.index) == (types_pb2.METRIC_EUCLIDEAN, types_pb2.INDEX_KIND_FLAT)
    assert json.loads(made.schema_json) == {"pos": "string", "year": "integer"}
    assert made.created_at.seconds > 1_600_000_000
    assert call("DatabaseService/GetDatabase", database="words").database == made
    assert made in call("DatabaseService/ListDatabases").databases
    assert [d.id for d in call("DatabaseService/ListDatabases", name="words").databases] == [made.id]
    changed = call("DatabaseService/AlterDatabase", database="words", name="terms", description="").database
    assert (changed.id, changed.name, changed.description) == (made.id, "terms", "")
    changed = call("DatabaseService/AlterDatabase", database=made.id, index=types_pb2.INDEX_KIND_HNSW).database
    assert changed.index == types_pb2.INDEX_KIND_HNSW
    gone = call("DatabaseService/DeleteDatabase", database=made.id)
    assert (gone.id, gone.name) == (made.id, "terms")
    assert call.fails("DatabaseService/GetDatabase", database=made.id).status == "NOT_FOUND"


def test_the_same_database_twice(call: Caller) -> None:
    first = call("DatabaseService/CreateDatabase", name="twice", dimension=3).database
    again = call.fails("DatabaseService/CreateDatabase", name="twice", dimension=3)
    assert (again.status, again.code) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert call("DatabaseService/CreateDatabase", name="twice", dimension=3, exist_ok=True).database.id == first.id
    other = call.fails("DatabaseService/CreateDatabase", name="twice", dimension=4, exist_ok=True)
    assert other.code == "ALREADY_EXISTS" and other.details == {"different": ["dimension"]}


def test_statistics_waiting_and_compacting(call: Caller, name: str) -> None:
    call("DatabaseService/WaitIndexed", database=name)
    call("VectorService/DeleteVectors", database=name, ids=["w"])
    stats = call("DatabaseService/GetDatabaseStats", database=name).stats
    assert (stats.rows, stats.indexed_rows, stats.dead_rows, len(stats.watermarks)) == (3, 3, 1, 1)
    assert sum(segment.live for segment in stats.segments) == 3 and stats.disk_bytes > 0
    call("DatabaseService/CompactDatabase", database=name)
    assert call("DatabaseService/GetDatabaseStats", database=name).stats.dead_rows == 0


# Writing and reading


def test_points_and_columns_packed_and_as_numbers_are_the_same(call: Caller, name: str) -> None:
    values = [0.1, -0.25, 3.5, 1e-3]
    forms: dict[str, Any] = {
        "a": {"points": [{"id": "a", "vector": {"packed": packed(values)}, "metadata_json": b'{"form":1}'}]},
        "b": {"points": [{"id": "b", "vector": {"values": values}, "metadata_json": b'{"form":1}'}]},
        "c": {"columns": {"ids": ["c"], "vectors": {"packed": packed(values)}, "metadata_json": [b'{"form":1}']}},
        "d": {"columns": {"ids": ["d"], "vectors": {"values": values}, "metadata_json": [b'{"form":1}']}},
    }
    for form in forms.values():
        assert call("VectorService/UpsertVectors", database=name, **form).receipt.count == 1
    found = call("VectorService/GetVectors", database=name, ids=list(forms)).vectors
    assert [v.vector.packed for v in found] == [packed(values)] * 4
    assert [json.loads(v.metadata_json) for v in found] == [{"form": 1}] * 4
    numbers = call("VectorService/GetVectors", database=name, ids=["d"], include={"vector_as_values": True}).vectors[0]
    assert list(numbers.vector.values) == np.float32(values).tolist() and not numbers.metadata_json
    mixed = [{"id": "e", "vector": {"values": values}}, {"id": "f", "vector": {"packed": packed(values)}}]
    assert call("VectorService/UpsertVectors", database=name, points=mixed).receipt.count == 2


def test_reading_by_id(call: Caller, name: str) -> None:
    found = call("VectorService/GetVectors", database=name, ids=["z", "nobody", "w"])
    assert [v.id for v in found.vectors] == ["z", "w"] and list(found.missing) == ["nobody"]
    assert found.vectors[0].version == 1 and found.vectors[0].vector.packed == packed(BASIS[3])
    bare = call("VectorService/GetVectors", database=name, ids=["z"], include={}).vectors[0]
    assert not bare.HasField("vector") and not bare.HasField("version") and not bare.metadata_json
    assert list(call("VectorService/VectorsExist", database=name, ids=["w", "nobody"]).exists) == [True, False]
    assert call("VectorService/CountVectors", database=name).count == 4
    assert call("VectorService/CountVectors", database=name, filter_json=b'{"n":{"$gte":2}}').count == 2


def test_conditions_and_repetitions(call: Caller, name: str) -> None:
    point = {"id": "w", "vector": {"packed": packed(BASIS[0])}}
    stale = call.fails("VectorService/UpsertVectors", database=name, points=[{**point, "if_version": 0}])
    assert (stale.status, stale.code) == ("ABORTED", "VERSION_CONFLICT")
    assert stale.details == {"id": "w", "expected": 0, "actual": 1}
    once = call(
        "VectorService/UpsertVectors", database=name, points=[{**point, "if_version": 1}], request_id="r1"
    ).receipt
    again = call(
        "VectorService/UpsertVectors", database=name, points=[{**point, "if_version": 1}], request_id="r1"
    ).receipt
    assert (once.duplicate, again.duplicate, again.version) == (False, True, once.version)
    columns = {"ids": ["w", "new"], "vectors": {"packed": packed(BASIS[:2])}, "if_version": [-1, 0]}
    assert call("VectorService/UpsertVectors", database=name, columns=columns).receipt.count == 2


def test_metadata_and_deletion(call: Caller, name: str) -> None:
    call("VectorService/UpdateMetadata", database=name, ids=["w", "x"], metadata_json=[b'{"seen":true}'])
    call("VectorService/UpdateMetadata", database=name, ids=["y"], metadata_json=[b'{"n":9}'], replace=True)
    found = call("VectorService/GetVectors", database=name, ids=list("wxyz")).vectors
    assert [json.loads(v.metadata_json) for v in found] == [
        {"n": 0, "seen": True},
        {"n": 1, "seen": True},
        {"n": 9},
        {"n": 3},
    ]
    assert call("VectorService/DeleteVectors", database=name, filter_json=b'{"seen":true}').receipt.count == 2
    assert call("VectorService/DeleteVectors", database=name, ids=["y", "w"]).receipt.count == 1
    assert call("VectorService/CountVectors", database=name).count == 1
    for wrong in ({}, {"ids": ["z"], "filter_json": b'{"n":3}'}, {"filter_json": b"{}"}):
        assert call.fails("VectorService/DeleteVectors", database=name, **wrong).status == "INVALID_ARGUMENT"


def test_a_session_is_carried_and_checked(call: Caller, name: str) -> None:
    session = call("VectorService/DeleteVectors", database=name, ids=["w"]).receipt.session
    assert call("VectorService/CountVectors", database=name, session=session).count == 3
    ahead = f"{name}~0.999"
    for failed in (
        call.fails("SearchService/Search", database=name, vector={"packed": packed(BASIS[0])}, session=ahead),
        call.with_metadata(("x-jade-session", ahead)).fails("VectorService/CountVectors", database=name),
    ):
        assert (failed.status, failed.code, failed.retryable) == ("UNAVAILABLE", "UNAVAILABLE", True)


# Streams


def scroll(call: Caller, **fields: Any) -> list[Any]:
    method, request = call.method("VectorService/ScrollVectors", "unary_stream", **fields)
    return list(method(request, timeout=60, metadata=call.metadata))


def bulk(call: Caller, messages: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Any:
    method, _ = call.method("VectorService/BulkUpsert", "stream_stream")
    return method((vectors_pb2.BulkUpsertRequest(**m) for m in messages), timeout=60, metadata=call.metadata)


def columns_of(start: int, count: int) -> dict[str, Any]:
    rows = np.random.default_rng(start).standard_normal((count, 4), np.float32)
    return {"ids": [f"v{i:05}" for i in range(start, start + count)], "vectors": {"packed": packed(rows)}}


def test_bulk_upsert_acknowledges_every_message_and_scroll_shows_all(call: Caller, name: str) -> None:
    first = {"database": name, "columns": columns_of(0, 500)}
    acks = list(bulk(call, [first, *({"columns": columns_of(start, 500)} for start in range(500, 3000, 500))]))
    assert [(a.message, a.receipt.count, a.count_total) for a in acks] == [(n, 500, 500 * (n + 1)) for n in range(6)]
    pages = scroll(call, database=name, page_size=700)
    seen = [v.id for page in pages for v in page.vectors]
    assert [len(page.vectors) for page in pages] == [700] * 4 + [204] and pages[-1].cursor == ""
    assert sorted(seen) == sorted([*"wxyz", *(f"v{i:05}" for i in range(3000))])
    some = scroll(call, database=name, page_size=100, limit=250)
    assert [len(page.vectors) for page in some] == [100, 100, 50]
    rest = scroll(call, database=name, cursor=some[-1].cursor)
    assert [v.id for page in (*some, *rest) for v in page.vectors] == seen
    assert [v.id for p in scroll(call, database=name, filter_json=b'{"n":2}') for v in p.vectors] == ["y"]


def test_messages_of_a_scroll_stay_small(call: Caller) -> None:
    name = call("DatabaseService/CreateDatabase", name="wide", dimension=2048).database.id
    rows = np.random.default_rng(0).standard_normal((600, 2048), np.float32)
    for start in range(0, 600, 200):
        columns = {
            "ids": [str(i) for i in range(start, start + 200)],
            "vectors": {"packed": packed(rows[start : start + 200])},
        }
        call("VectorService/UpsertVectors", database=name, columns=columns)
    pages = scroll(call, database=name, page_size=600, include={"vector": True})
    assert len(pages) >= 4 and max(page.ByteSize() for page in pages) < 2 << 20
    found = {v.id: v.vector.packed for page in pages for v in page.vectors}
    assert found == {str(i): packed(rows[i]) for i in range(600)}


def test_bulk_upsert_stops_at_the_message_that_fails_and_keeps_what_came_before(call: Caller, name: str) -> None:
    bad = {"columns": {"ids": ["n"], "vectors": {"values": [1, 2, 3]}}}
    acks, failed = [], None
    try:
        acks.extend(
            bulk(call, [{"database": name, "columns": columns_of(0, 10)}, bad, {"columns": columns_of(10, 10)}])
        )
    except grpc.RpcError as error:
        failed = Failed(error)
    assert failed is not None and failed.code == "DIMENSION_MISMATCH" and failed.details["messages_applied"] == 1
    assert call("VectorService/CountVectors", database=name).count == 14
    with pytest.raises(grpc.RpcError, match="names the database"):
        list(bulk(call, [{"columns": columns_of(0, 1)}]))
    with pytest.raises(grpc.RpcError, match="one database"):
        list(
            bulk(
                call,
                [{"database": name, "columns": columns_of(0, 1)}, {"database": "other", "columns": columns_of(1, 1)}],
            )
        )


# Searching


def test_searching(call: Caller, name: str) -> None:
    query = {"packed": packed([0.1, 1.0, 0.5, 0.0])}
    answer = call("SearchService/Search", database=name, vector=query, k=3)
    assert ids(answer) == ["x", "y", "w"] and answer.hits[0].score > answer.hits[1].score
    assert json.loads(answer.hits[0].metadata_json) == {"n": 1} and not answer.hits[0].HasField("vector")
    as_numbers = call("SearchService/Search", database=name, vector={"values": [0.1, 1.0, 0.5, 0.0]}, k=3)
    assert as_numbers == answer
    assert ids(call("SearchService/Search", database=name, vector=query, filter_json=b'{"n":{"$ne":1}}', k=1)) == ["y"]
    assert ids(call("SearchService/Search", database=name, id="x", k=9, exact=True, recall=1.0)) == ["w", "y", "z"]
    assert ids(call("SearchService/Search", database=name, vector=query, threshold=0.4)) == ["x", "y"]
    full = call(
        "SearchService/Search",
        database=name,
        vector=query,
        k=1,
        include={"vector": True, "version": True},
        explain=True,
    )
    assert full.hits[0].vector.packed == packed(BASIS[1]) and full.hits[0].version == 1
    assert json.loads(full.explanation_json)["segments"][0]["rows"] == 4
    batch = call("SearchService/SearchBatch", database=name, vectors={"packed": packed(BASIS[[2, 0]])}, k=1)
    assert [[hit.id for hit in result.hits] for result in batch.results] == [["y"], ["w"]]


def test_searching_by_words(call: Caller) -> None:
    name = call("DatabaseService/CreateDatabase", name="text", dimension=2, schema_json=b'{"gloss":"text"}').database.id
    points = [
        {"id": n, "vector": {"values": v}, "metadata_json": json.dumps({"gloss": g}).encode()}
        for n, v, g in (("1", (1, 0), "a small river"), ("2", (0, 1), "a large river"), ("3", (1, 1), "a mountain"))
    ]
    call("VectorService/UpsertVectors", database=name, points=points)
    assert ids(call("SearchService/Search", database=name, text="large river")) == ["2", "1"]
    both = call("SearchService/Search", database=name, text="river", vector={"values": [0, 1]}, fusion=2, alpha=0.9)
    assert ids(both)[0] == "2"


# What is wrong is said


@pytest.mark.parametrize(
    ("rpc", "fields", "code"),
    [
        ("SearchService/Search", {"vector": {"values": [1, 2]}}, "DIMENSION_MISMATCH"),
        ("SearchService/Search", {"vector": {"packed": b"12345"}}, "INVALID_VECTOR"),
        ("SearchService/Search", {"vector": {"packed": packed([np.nan] * 4)}}, "INVALID_VECTOR"),
        ("SearchService/Search", {"vector": {"packed": b"1234", "values": [1]}}, "INVALID_ARGUMENT"),
        ("SearchService/Search", {}, "INVALID_ARGUMENT"),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "k": 1_000_000}, "INVALID_ARGUMENT"),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "recall": 7.0}, "INVALID_ARGUMENT"),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "filter_json": b"{"}, "INVALID_FILTER"),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "filter_json": b"[]"}, "INVALID_FILTER"),
        (
            "SearchService/Search",
            {"vector": {"values": [1, 0, 0, 0]}, "filter_json": b'{"n":{"$no":1}}'},
            "INVALID_FILTER",
        ),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "filter_json": b"[" * 100_000}, "INVALID_FILTER"),
        ("SearchService/Search", {"vector": {"values": [1, 0, 0, 0]}, "fusion": 77}, "INVALID_ARGUMENT"),
        ("SearchService/Search", {"text": "words"}, "UNKNOWN_FIELD"),
        ("SearchService/Search", {"id": "nobody"}, "NOT_FOUND"),
        ("SearchService/SearchBatch", {"vectors": {"values": [1, 2, 3, 4, 5]}}, "DIMENSION_MISMATCH"),
        ("SearchService/SearchBatch", {}, "DIMENSION_MISMATCH"),
        ("VectorService/UpsertVectors", {}, "INVALID_ARGUMENT"),
        ("VectorService/UpsertVectors", {"points": [{"id": "a"}]}, "DIMENSION_MISMATCH"),
        ("VectorService/UpsertVectors", {"points": [{"vector": {"values": [1, 0, 0, 0]}}]}, "INVALID_ID"),
        (
            "VectorService/UpsertVectors",
            {"columns": {"ids": ["a", "a"], "vectors": {"values": [1] * 8}}},
            "DUPLICATE_ID",
        ),
        (
            "VectorService/UpsertVectors",
            {"columns": {"ids": ["a", "b"], "vectors": {"values": [1] * 6}}},
            "DIMENSION_MISMATCH",
        ),
        (
            "VectorService/UpsertVectors",
            {"columns": {"ids": ["a"], "vectors": {"values": [1] * 4}, "metadata_json": [b"no"]}},
            "INVALID_METADATA",
        ),
        (
            "VectorService/UpsertVectors",
            {"columns": {"ids": ["a"], "vectors": {"values": [1] * 4}, "metadata_json": [b"{}", b"{}"]}},
            "INVALID_ARGUMENT",
        ),
        ("VectorService/UpdateMetadata", {"ids": ["w"]}, "INVALID_ARGUMENT"),
        ("VectorService/UpdateMetadata", {"ids": ["w"], "metadata_json": [b"[1]"]}, "INVALID_METADATA"),
        ("VectorService/CountVectors", {"filter_json": b"\xff"}, "INVALID_FILTER"),
        ("DatabaseService/AlterDatabase", {}, "INVALID_ARGUMENT"),
        ("DatabaseService/AlterDatabase", {"index": 99}, "INVALID_ARGUMENT"),
        ("DatabaseService/WaitIndexed", {"timeout_s": -1.0}, "INVALID_ARGUMENT"),
    ],
)
def test_refusals_say_what_is_wrong(call: Caller, name: str, rpc: str, fields: dict[str, Any], code: str) -> None:
    failed = call.fails(rpc, database=name, **fields)
    assert failed.code == code and not failed.retryable, failed
    assert len(failed.message) > 15 and "Traceback" not in failed.message
    assert call("VectorService/CountVectors", database=name).count == 4, "nothing was written"


def test_unknown_databases_and_bytes_that_are_no_message(call: Caller) -> None:
    assert call.fails("VectorService/CountVectors", database="nowhere").code == "UNKNOWN_DATABASE"
    raw = call.channel.unary_unary("/jadevectordb.v1.SearchService/Search")
    with pytest.raises(grpc.RpcError) as caught:
        raw(b"\xff\xff\xff", timeout=60)
    failed = Failed(caught.value)
    assert (failed.status, failed.code) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    ) and "SearchRequest" in failed.message
    with pytest.raises(grpc.RpcError) as caught:
        call.channel.unary_unary("/jadevectordb.v1.SearchService/Nothing")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_long_sentences_and_details_do_not_break_the_answer(call: Caller, name: str) -> None:
    failed = call.fails("VectorService/CountVectors", database="n" * 100_000)
    assert failed.code == "UNKNOWN_DATABASE" and len(failed.message) < 4000
    failed = call.fails("VectorService/CountVectors", database=name, filter_json=b'{"%s":{"$no":1}}' % (b"f" * 50_000))
    assert failed.status == "INVALID_ARGUMENT" and len(failed.message) < 4000


def test_what_nobody_foresaw_is_said_without_a_trace(shared: World, caplog: pytest.LogCaptureFixture) -> None:
    def broken(call: Any, request: Any) -> Any:
        raise RuntimeError("the secret inside")

    rpc = Rpc("test.Broken", "Call", "info", worker_pb2.HealthRequest, broken)
    with serving_one(shared[1], rpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(rpc.path)(b"", timeout=60)
    failed = Failed(caught.value)
    assert (failed.status, failed.code) == ("INTERNAL", "INTERNAL_ERROR")
    assert "secret" not in failed.message and "secret inside" in caplog.text
    assert failed.message.rpartition("under ")[2].rstrip(".") in caplog.text, "the log can be searched for it"


@contextlib.contextmanager
def serving_one(server: RpcServer, rpc: Rpc) -> Iterator[grpc.Channel]:
    """A server of one RPC, with the same steps around its handler as all others."""
    pool = ThreadPoolExecutor(2)
    one = grpc.server(pool)
    handler = Served(server.node, rpc).method_handler()
    one.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.service, {rpc.name: handler}),))
    port = one.add_insecure_port("127.0.0.1:0")
    one.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        one.stop(0).wait()
        pool.shutdown()


def test_a_single_node_has_no_shards_to_be_assigned(call: Caller, name: str) -> None:
    for rpc in ("AssignShard", "RemoveShard"):
        failed = call.fails(f"WorkerService/{rpc}", shard={"database": name, "shard": 0}, map_version=1, term=1)
        assert (failed.status, failed.code) == ("UNIMPLEMENTED", "NOT_IMPLEMENTED") and "single node" in failed.message


# Health and reflection


def test_health_as_every_tool_asks(shared: World) -> None:
    stub = health_pb2_grpc.HealthStub(shared[0].channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "jadevectordb.v1.SearchService", "grpc.health.v1.Health"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status == serving
    assert stub.List(health_pb2.HealthListRequest(), timeout=60).statuses[""].status == serving
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    for service, status in (("", serving), ("nobody", health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)):
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert next(watched).status == status
        watched.cancel()


def test_reflection_describes_the_services(shared: World) -> None:
    found = ProtoReflectionDescriptorDatabase(shared[0].channel)
    assert {"jadevectordb.v1.SearchService", "jadevectordb.v1.WorkerService", "grpc.health.v1.Health"} <= set(
        found.get_services()
    )
    described = found.FindFileContainingSymbol("jadevectordb.v1.SearchService")
    assert described.name == "jadevectordb/v1/search.proto"


def test_changes_are_audited_and_calls_are_counted(shared: World, name: str) -> None:
    call, _, built = shared
    call("VectorService/DeleteVectors", database=name, ids=["w"])
    kinds = [(e.kind, e.resource) for e in built.access.audit.query(EventFilter(), limit=20, offset=0)]
    assert ("vector_delete", name) in kinds and ("vector_store", name) in kinds and ("database_create", name) in kinds
    meter = built.telemetry.meter("grpc", "unary", "/jadevectordb.v1.VectorService/DeleteVectors", "vector.delete")
    assert meter.figures().statuses["OK"] > 0


# What nobody waits for any more is not begun


def _alone(services: Services, name: str) -> Any:
    """While inside, writes to the database wait."""
    entry = services.catalog.find(name)
    assert entry is not None
    return entry.handle._openings.gate.alone()


def upsert_later(call: Caller, database: str, vector_id: str, timeout: float) -> Any:
    method, request = call.method(
        "VectorService/UpsertVectors",
        database=database,
        points=[{"id": vector_id, "vector": {"packed": packed([1, 2, 3, 4])}}],
    )
    return method.future(request, timeout=timeout)


def test_a_write_that_waited_beyond_its_deadline_or_was_cancelled_is_not_applied(tmp_path: Path) -> None:
    with rpc_world(tmp_path, RpcOptions(threads=2, long_calls_max=1)) as (call, server, built):
        name = call("DatabaseService/CreateDatabase", name="d", dimension=4).database.id
        with _alone(built, name):
            begun = [upsert_later(call, name, f"begun{n}", 60) for n in range(2)]
            until(lambda: server.node.in_flight == 2)
            late = upsert_later(call, name, "late", 0.3)
            cancelled = upsert_later(call, name, "cancelled", 60)
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            cancelled.cancel()
            health = health_pb2_grpc.HealthStub(
                call.channel
            )  # answered beside the others, and after the word that it is cancelled
            health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert [one.result().receipt.count for one in begun] == [1, 1]
        until(lambda: server.node.in_flight == 0)
        ids = ["begun0", "begun1", "late", "cancelled"]
        assert list(call("VectorService/VectorsExist", database=name, ids=ids).exists) == [True, True, False, False]


def until(true: Callable[[], bool]) -> None:
    """Returns when it is; a test that waits in vain is stopped."""
    limit, pause = time.monotonic() + 60, threading.Event()
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        pause.wait(0.002)


def test_waiting_ends_at_the_next_step(call: Caller, name: str, shared: World) -> None:
    entry = shared[2].catalog.find(name)
    assert entry is not None

    def lost_interest() -> None:
        raise JadeError(ErrorCode.CANCELLED, "nobody waits any more")

    for wait in (stepwise.wait_indexed, stepwise.compact):
        with pytest.raises(JadeError, match="nobody waits"):
            wait(entry.handle, SystemClock(), 60.0, lost_interest)
    call("DatabaseService/WaitIndexed", database=name)
    call("VectorService/DeleteVectors", database=name, ids=["w"])
    assert call.fails("DatabaseService/CompactDatabase", database=name, timeout_s=0.0).code == "TIMEOUT"


def test_a_batch_that_nobody_waits_for_ends_at_the_next_query(shared: World, call: Caller, name: str) -> None:
    asked = []

    class LosesInterest(Call):
        __slots__ = ()

        def check_wanted(self) -> None:
            asked.append(1)
            if len(asked) > 3:
                raise JadeError(ErrorCode.CANCELLED, "nobody waits any more")

    def batch(call: Call, request: Any) -> Any:
        call.__class__ = LosesInterest
        return search.search_batch(call, request)

    rpc = Rpc("test.Batch", "Search", "search", search_pb2.SearchBatchRequest, batch)
    message = search_pb2.SearchBatchRequest(database=name, vectors={"packed": packed(np.tile(BASIS, (100, 1)))}, k=1)
    with serving_one(shared[1], rpc) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(rpc.path)(message.SerializeToString(), timeout=60)
    assert len(asked) == 4


# Bounds


def test_streams_may_not_take_every_thread(tmp_path: Path) -> None:
    with rpc_world(tmp_path, RpcOptions(threads=3, long_calls_max=1)) as (call, _, _):
        name = call("DatabaseService/CreateDatabase", name="d", dimension=4).database.id
        more = threading.Event()

        def messages() -> Iterator[dict[str, Any]]:
            yield {"database": name, "columns": columns_of(0, 5)}
            more.wait(60)

        stream = bulk(call, messages())
        assert next(stream).receipt.count == 5
        with pytest.raises(grpc.RpcError) as caught:
            scroll(call, database=name)
        failed = Failed(caught.value)
        assert (failed.status, failed.code, failed.retryable) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", True)
        assert call.fails("DatabaseService/WaitIndexed", database=name).code == "RATE_LIMITED"
        assert call("VectorService/CountVectors", database=name).count == 5
        more.set()
        assert list(stream) == []
        assert len(scroll(call, database=name)) == 1


def test_a_client_that_opens_a_call_and_sends_nothing_is_sent_away(tmp_path: Path) -> None:
    options = RpcOptions(threads=3, long_calls_max=2, idle_s_max=0.05)
    with rpc_world(tmp_path, options) as (call, _, built):
        name = built.catalog.create("d", 4, "somebody").id
        never = threading.Event()

        def nothing() -> Iterator[bytes]:
            never.wait(60)
            yield from ()

        silent = [
            call.channel.stream_unary("/jadevectordb.v1.SearchService/Search").future(nothing()) for _ in range(3)
        ]
        stream = bulk(call, ({"database": name} for _ in nothing()))
        try:
            for one in silent:
                assert one.code() is grpc.StatusCode.CANCELLED
            assert stream.code() is grpc.StatusCode.CANCELLED
            until(lambda: counts_nothing(call, name))
        finally:
            never.set()


def counts_nothing(call: Caller, name: str) -> bool:
    """False: on a busy machine even this call may be sent away, when its few bytes come so late."""
    try:
        return bool(call("VectorService/CountVectors", database=name).count == 0)
    except grpc.RpcError as error:
        assert Failed(error).status == "CANCELLED"
        return False


def test_a_message_that_is_too_large_is_refused_and_the_next_is_served(tmp_path: Path) -> None:
    with rpc_world(tmp_path, RpcOptions(request_bytes_max=100_000)) as (call, _, _):
        name = call("DatabaseService/CreateDatabase", name="d", dimension=4).database.id
        columns = {"ids": ["a"], "vectors": {"packed": b"\0" * 200_000}}
        assert call.fails("VectorService/UpsertVectors", database=name, columns=columns).status == "RESOURCE_EXHAUSTED"
        assert call("VectorService/CountVectors", database=name).count == 0


def test_rubbish_on_the_wire_harms_nobody(shared: World) -> None:
    call = shared[0]
    call("WorkerService/Health")
    port = shared[1].port
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw, contextlib.suppress(OSError):
            raw.sendall(rubbish)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert call("WorkerService/Health").version


# Starting and stopping


def test_stopping_finishes_what_was_begun_and_refuses_the_rest(tmp_path: Path) -> None:
    with services(tmp_path, auth__mode="open-loopback") as built:  # noqa: SIM117
        with listening(built) as (server, address), grpc.insecure_channel(address) as channel:
            call = Caller(channel)
            name = call("DatabaseService/CreateDatabase", name="d", dimension=4).database.id
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            with _alone(built, name):
                begun = upsert_later(call, name, "begun", 60)
                until(lambda: server.node.in_flight == 1)
                stopping = threading.Thread(target=server.stop, args=(60.0,))
                stopping.start()
                assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
                watched.cancel()
                assert call.fails("VectorService/CountVectors", database=name).status in ("UNAVAILABLE", "CANCELLED")
            assert begun.result().receipt.count == 1
            stopping.join(60)
            assert not stopping.is_alive()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with services(tmp_path, auth__mode="open-loopback") as built, listening(built) as (_, address):
        with pytest.raises(JadeError) as caught:
            RpcServer(built, "127.0.0.1", int(address.rpartition(":")[2])).start()
        assert caught.value.code is ErrorCode.UNAVAILABLE and "--grpc-port" in caught.value.message


def test_tls_and_clients_that_must_show_a_certificate(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    files = {name: str(tmp_path / name) for name in ("server.pem", "ca.pem")}
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(files["server.pem"])
    authority.cert_pem.write_to_path(files["ca.pem"])
    roots = authority.cert_pem.bytes()
    mine, other = authority.issue_cert("someone@example.org"), stranger.issue_cert("someone@example.org")

    def asks(address: str, certificate: trustme.LeafCert | None, plain: bool = False) -> str:
        target = address.replace("127.0.0.1", "localhost")
        key = None if certificate is None else certificate.private_key_pem.bytes()
        chain = None if certificate is None else certificate.cert_chain_pems[0].bytes()
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        with grpc.insecure_channel(target) if plain else grpc.secure_channel(target, credentials) as channel:
            try:
                Caller(channel)("WorkerService/Health")
            except grpc.RpcError as error:
                return Failed(error).status
            return "OK"

    tls = {"auth__mode": "open-loopback", "tls__certificate": files["server.pem"], "tls__key": files["server.pem"]}
    with services(tmp_path / "one", **tls) as built, listening(built) as (_, address):
        assert [asks(address, None), asks(address, None, plain=True)] == ["OK", "UNAVAILABLE"]
    with services(tmp_path / "both", **tls, tls__client_ca=files["ca.pem"]) as built, listening(built) as (_, address):
        assert [asks(address, mine), asks(address, None), asks(address, other)] == ["OK", "UNAVAILABLE", "UNAVAILABLE"]
    with services(tmp_path / "gone", **tls) as built:
        Path(files["server.pem"]).unlink()
        with pytest.raises(JadeError, match="TLS certificate"):
            RpcServer(built, "127.0.0.1", 0)
