"""The native API over a real server process: what goes in comes out, JSON and raw floats alike, and wrong input is told why."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import ServerProcess, serving

RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("native") / "data") as running:
        yield running


@pytest.fixture()
def database(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = request.node.name[:100]
    status, made = server.call("POST", "/v2/databases", {"name": name, "dimension": 4, "schema": {"n": "integer"}})
    assert status == 201, made
    return f"/v2/databases/{made['id']}"


def rows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).standard_normal((count, 4)).astype("<f4")


def frame(header: dict[str, Any], block: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-(4 + len(text)) % 4)
    return struct.pack("<I", len(text)) + text + block


def fill(server: ServerProcess, database: str, count: int = 50) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = rows(count)
    body = {
        "ids": [f"v{i}" for i in range(count)],
        "values": vectors.tolist(),
        "metadata": [{"n": i} for i in range(count)],
    }
    status, answer = server.call("POST", database + "/vectors", body)
    assert status == 200 and answer["count"] == count, answer
    return vectors


def test_a_database_is_made_listed_changed_and_dropped(server: ServerProcess) -> None:
    status, made = server.call("POST", "/v2/databases", {"name": "Müller's words", "dimension": 3, "description": "d"})
    assert (status, made["name"], made["dimension"], made["vectors"]) == (201, "Müller's words", 3, 0)
    assert server.call("POST", "/v2/databases", {"name": "Müller's words", "dimension": 3})[0] == 409
    again = server.call("POST", "/v2/databases", {"name": "Müller's words", "dimension": 3, "exist_ok": True})
    assert again[0] == 201 and again[1]["id"] == made["id"]
    status, changed = server.call("PATCH", f"/v2/databases/{made['id']}", {"name": "words", "index": "HNSW"})
    assert server.call("GET", f"/v1/databases/{made['id']}")[1]["indexType"] == "HNSW"
    assert (status, changed["name"], changed["index"]) == (200, "words", "HNSW")
    assert server.call("GET", "/v2/databases/words")[1]["id"] == made["id"]
    assert made["id"] in [d["id"] for d in server.call("GET", "/v2/databases")[1]["databases"]]
    assert server.call("DELETE", f"/v2/databases/{made['id']}") == (200, {"id": made["id"], "name": "words"})
    assert server.call("GET", f"/v2/databases/{made['id']}")[0] == 404


def test_vectors_come_back_as_they_were_sent(server: ServerProcess, database: str) -> None:
    metadata = {"text": "ü", "nested": {"a": [1, None, True]}, "big": 12345678901234567890, "zero": 0.1}
    body = {"vectors": [{"id": "a/b c", "values": [0.1, -2, 3e-7, 4], "metadata": metadata}]}
    status, written = server.call("POST", database + "/vectors", body)
    assert status == 200 and written["version"] == 1
    status, got = server.call("GET", database + "/vectors/a%2Fb%20c")
    assert status == 200 and got["vector"] == [0.1, -2.0, 3e-7, 4.0] and got["metadata"] == metadata
    many = server.call("POST", database + "/vectors/get", {"ids": ["none", "a/b c"], "include": ["metadata"]})[1][
        "vectors"
    ]
    assert many[0] is None and many[1]["metadata"] == metadata and "vector" not in many[1]
    assert server.call("POST", database + "/vectors/exists", {"ids": ["none", "a/b c"]})[1] == {"exists": [False, True]}


def test_raw_and_json_searches_agree_with_brute_force(server: ServerProcess, database: str) -> None:
    vectors = fill(server, database)
    query = rows(60)[-1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = [f"v{i}" for i in np.argsort(-(unit @ query))[:5]]
    as_json = server.call("POST", database + "/search", {"vector": query.tolist(), "k": 5})[1]
    as_raw = server.call("POST", database + "/search?k=5", query.tobytes(), {"Content-Type": RAW})[1]
    assert [h["id"] for h in as_json["hits"]] == [h["id"] for h in as_raw["hits"]] == best
    assert as_json["hits"] == as_raw["hits"] and as_json["hits"][0]["metadata"]["n"] == int(best[0][1:])
    batch = server.call(
        "POST", database + "/search/batch?k=5&include=", np.stack([query] * 3).tobytes(), {"Content-Type": RAW}
    )
    assert [[h["id"] for h in r["hits"]] for r in batch[1]["results"]] == [best] * 3
    filtered = server.call(
        "POST", database + "/search", {"vector": query.tolist(), "k": 50, "filter": {"n": {"$lt": 10}}}
    )[1]
    assert {h["id"] for h in filtered["hits"]} == {f"v{i}" for i in range(10)}
    same = server.call(
        "POST",
        database + '/search?k=50&filter={"n":{"$lt":10}}'.replace('"', "%22"),
        query.tobytes(),
        {"Content-Type": RAW},
    )
    assert same[1]["hits"] == filtered["hits"]


def test_raw_upsert_and_raw_answers(server: ServerProcess, database: str) -> None:
    vectors = rows(20)
    header = {"ids": [f"r{i}" for i in range(20)], "metadata": [{"n": i} if i % 2 else None for i in range(20)]}
    status, written = server.call(
        "POST", database + "/vectors", frame(header, vectors.tobytes()), {"Content-Type": RAW}
    )
    assert status == 200 and written["count"] == 20
    import urllib.request

    request = urllib.request.Request(
        server.url + database + "/vectors/get",
        json.dumps({"ids": ["r3", "nobody", "r4"]}).encode(),
        {"Content-Type": "application/json", "Accept": RAW},
    )
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
    (length,) = struct.unpack_from("<I", body)
    told = json.loads(body[4 : 4 + length])
    block = np.frombuffer(body[4 + length :], "<f4").reshape(-1, 4)
    assert [v and v["id"] for v in told["vectors"]] == ["r3", None, "r4"] and (block == vectors[3:5]).all()
    assert told["vectors"][0]["metadata"] == {"n": 3} and told["vectors"][2]["metadata"] == {}


def test_scrolling_counting_changing_and_deleting(server: ServerProcess, database: str) -> None:
    fill(server, database, 25)
    seen, cursor = [], None
    while True:
        page = server.call("POST", database + "/vectors/scroll", {"limit": 10, "cursor": cursor})[1]
        seen += [v["id"] for v in page["vectors"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(f"v{i}" for i in range(25)) and len(seen) == 25
    assert server.call("POST", database + "/count", {"filter": {"n": {"$gte": 20}}})[1] == {"count": 5}
    changed = server.call("POST", database + "/vectors/metadata", {"ids": ["v1", "v2"], "metadata": {"tag": "x"}})[1]
    assert changed["count"] == 2 and changed["session"]
    assert server.call("GET", database + "/vectors/v1")[1]["metadata"] == {"n": 1, "tag": "x"}
    assert server.call("POST", database + "/vectors/delete", {"filter": {"tag": "x"}})[1]["count"] == 2
    assert server.call("POST", database + "/vectors/delete", {"ids": ["v3", "v1"]})[1]["count"] == 1
    assert server.call("POST", database + "/count")[1] == {"count": 22}
    stats = server.call("GET", database + "/stats")[1]
    assert (stats["rows"], stats["dead_rows"]) == (22, 5)


def test_a_retry_with_the_same_request_id_is_applied_once(server: ServerProcess, database: str) -> None:
    body = {"ids": ["a"], "values": [[1, 2, 3, 4]], "request_id": "r1"}
    first, second = (server.call("POST", database + "/vectors", body)[1] for _ in range(2))
    assert first["duplicate"] is False and second["duplicate"] is True and second["session"] == first["session"]


def test_conditions_and_their_conflict(server: ServerProcess, database: str) -> None:
    one = {"id": "a", "values": [1, 2, 3, 4], "if_version": 0}
    version = server.call("POST", database + "/vectors", {"vectors": [one]})[1]["version"]
    status, refused = server.call("POST", database + "/vectors", {"vectors": [{**one, "id": "b"}, one]})
    assert (status, refused["code"]) == (409, "VERSION_CONFLICT")
    assert server.call("POST", database + "/vectors/exists", {"ids": ["b"]})[1] == {"exists": [False]}
    mixed = [{**one, "if_version": version}, {"id": "c", "values": [1, 1, 1, 1]}]
    assert server.call("POST", database + "/vectors", {"vectors": mixed})[0] == 200


def test_a_session_token_from_the_future_is_refused(server: ServerProcess, database: str) -> None:
    session = (
        fill(server, database, 3) is not None
        and server.call("POST", database + "/vectors", {"ids": ["x"], "values": [[1, 2, 3, 4]]})[1]["session"]
    )
    query = {"vector": [1, 2, 3, 4]}
    assert server.call("POST", database + "/search", query, {"X-Jade-Session": session})[0] == 200
    database_id, _, mark = session.partition("~")
    ahead = f"{database_id}~0.{int(mark.partition('.')[2]) + 5}"
    status, told = server.call("POST", database + "/search", query, {"X-Jade-Session": ahead})
    assert (status, told["retryable"]) == (503, True)
    assert server.call("POST", database + "/search", query, {"X-Jade-Session": f"{database_id}~x.y"})[0] == 400


WRONG: list[tuple[str, Any, str]] = [
    ("/search", {"vector": [1, 2, 3]}, "dimension"),
    ("/search", {"vector": [1, 2, 3, "x"]}, "$.vector[3]"),
    ("/search", {"vector": [1, 2, 3, 4], "k": 0}, "$.k"),
    ("/search", {"vector": [1, 2, 3, 4], "K": 3}, "K"),
    ("/search", {"vector": [1, 2, 3, 4], "filter": {"n": {"$foo": 1}}}, "$foo"),
    ("/search", {"vector": [0, 0, 0, 0]}, "zero"),
    ("/search", {}, "vector"),
    ("/search", {"text": "word"}, "text field"),
    ("/search", b"{not json", "JSON"),
    ("/search", b'{"vector": [1, 2, 3, NaN]}', "JSON"),
    ("/search/batch", {"vectors": []}, "$.vectors"),
    ("/vectors", {"vectors": []}, "at least one"),
    ("/vectors", {"ids": ["a"]}, "values"),
    ("/vectors", {"ids": ["a", "a"], "values": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "twice"),
    ("/vectors", {"ids": [""], "values": [[1, 2, 3, 4]]}, "Id"),
    ("/vectors", {"ids": ["a"], "values": [[1, 2, 3]]}, "dimension"),
    ("/vectors", {"ids": ["a"], "values": [[1, 2, 3, 1e39]]}, ""),
    ("/vectors", {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "metadata": 5}]}, "metadata"),
    ("/vectors/delete", {}, "ids or a filter"),
    ("/vectors/delete", {"filter": {}}, "everything"),
]


@pytest.mark.parametrize("path, body, told", WRONG)
def test_wrong_input_is_told_what_and_where(
    server: ServerProcess, database: str, path: str, body: Any, told: str
) -> None:
    status, answer = server.call("POST", database + path, body)
    assert status == 400, answer
    assert told in answer["message"] and answer["retryable"] is False and "Traceback" not in str(answer)
    assert server.call("POST", database + "/count")[1] == {"count": 0}


@pytest.mark.parametrize("body", [b"\0", b"\0" * 15, b"\0" * 32], ids=["one", "crooked", "two"])
def test_a_raw_query_of_a_wrong_length_is_refused(server: ServerProcess, database: str, body: bytes) -> None:
    assert server.call("POST", database + "/search", body, {"Content-Type": RAW})[0] == 400


@pytest.mark.parametrize(
    "body", [b"\1\0\0", b"\xff\xff\xff\xff{}", frame({"ids": ["a"]}, b"\0" * 12), frame({"ids": []}, b"")]
)
def test_a_malformed_frame_is_refused(server: ServerProcess, database: str, body: bytes) -> None:
    assert server.call("POST", database + "/vectors", body, {"Content-Type": RAW})[0] == 400


def test_unknown_paths_methods_and_media(server: ServerProcess, database: str) -> None:
    assert server.call("GET", "/v2/nothing")[0] == 404
    status, answer = server.call("PUT", database)
    assert status == 405 and "GET" in answer["message"]
    assert (
        server.call("POST", database + "/search", b"x=1", {"Content-Type": "application/x-www-form-urlencoded"})[0]
        == 415
    )
    assert server.call("GET", "/api/v1/databases/")[0] == 200


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as first:
        made = first.call("POST", "/v2/databases", {"name": "kept", "dimension": 4})[1]
        vectors = fill(first, f"/v2/databases/{made['id']}")
        assert first.stop() == 0
    with serving(tmp_path / "data") as second:
        again = second.call("GET", "/v2/databases/kept")[1]
        assert (again["id"], again["vectors"], again["owner"]) == (made["id"], 50, made["owner"])
        got = second.call("GET", "/v2/databases/kept/vectors/v7")[1]
        assert np.array_equal(np.array(got["vector"], np.float32), vectors[7])


def test_the_configuration_tells_where_values_came_from(server: ServerProcess) -> None:
    settings = {s["name"]: s for s in server.call("GET", "/v2/config")[1]["settings"]}
    assert settings["server.port"]["origin"] == "flag" and settings["log.level"]["origin"] == "default"
    assert server.call("GET", "/v2/info")[1]["auth_mode"] == "open-loopback"
