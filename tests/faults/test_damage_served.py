"""A file of one database is damaged, under a running server or before its start: it is told as damage, and all else is served."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import jadevectordb as jade
from tests.hosting_world import wait_until
from tests.rpc_world import Caller
from tests.serving import ServerProcess, serving

DIMENSION = 8
ROWS = 400


def make(server: ServerProcess, name: str) -> str:
    """A database whose rows lie in a segment on disk; its id."""
    status, made = server.call(
        "POST", "/v2/databases", {"name": name, "dimension": DIMENSION, "schema": {"body": "text"}}
    )
    assert status == 201, made
    vectors = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).tolist()
    rows = [
        {"id": f"v{n}", "values": v, "metadata": {"n": n, "body": f"word{n} green river"}}
        for n, v in enumerate(vectors)
    ]
    assert server.call("POST", f"/v2/databases/{name}/vectors", {"vectors": rows})[0] == 200
    assert server.call("POST", f"/v2/databases/{name}/compact", {"timeout_s": 60})[0] == 200
    found: str = made["id"]
    return found


def files_of(data: Path, database_id: str, name: str) -> list[Path]:
    with jade.open(data) as store:
        folder = data / store.describe(database_id).folder
    return sorted(folder.glob(f"shard-*/*/{name}"))


def overwrite(path: Path) -> None:
    """In place, as a failing disk would: other bytes where these were."""
    with path.open("r+b") as file:
        file.write(b"\xa5" * path.stat().st_size)


def is_whole(server: ServerProcess, name: str) -> None:
    path = f"/v2/databases/{name}"
    status, page = server.call("POST", path + "/vectors/scroll", {"limit": ROWS})
    assert status == 200 and [v["metadata"]["n"] for v in page["vectors"]] == [
        int(v["id"][1:]) for v in page["vectors"]
    ]
    assert len(page["vectors"]) == ROWS
    assert server.call("POST", path + "/search", {"vector": [1.0] * DIMENSION, "k": 5})[0] == 200
    assert (
        server.call("POST", path + "/vectors", {"ids": ["v1"], "values": [[2.0] * DIMENSION], "metadata": [{"n": 1}]})[
            0
        ]
        == 200
    )


def assert_damaged(status: int, answer: Any, data: Path) -> None:
    assert status == 500 and answer["code"] == "CORRUPT", answer
    assert not answer["retryable"] and "damaged" in answer["message"]
    assert str(data) not in str(answer), "the answer names folders of the server"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"


def test_damage_found_while_serving_is_told_and_the_rest_goes_on(data: Path) -> None:
    with serving(data) as server:
        ids = {name: make(server, name) for name in ("sick", "well")}
        assert server.stop() == 0
    (records,) = files_of(data, ids["sick"], "metadata")
    with serving(data) as server:
        is_whole(server, "well")
        overwrite(records)
        for _ in range(3):
            assert_damaged(*server.call("GET", "/v2/databases/sick/vectors/v7"), data)
            assert_damaged(*server.call("POST", "/v2/databases/sick/vectors/scroll", {"limit": ROWS}), data)
            assert_damaged(*server.call("GET", "/v1/databases/sick/vectors/v7"), data)
            is_whole(server, "well")
        with grpc.insecure_channel(server.grpc) as channel:
            call = Caller(channel)
            failed = call.fails("VectorService/GetVectors", database="sick", ids=["v7"])
            assert (failed.status, failed.code) == ("DATA_LOSS", "CORRUPT")
            assert call("VectorService/CountVectors", database="well").count == ROWS
        # What the damage does not touch can still be had
        answer = server.call("POST", "/v2/databases/sick/search", {"vector": [1.0] * DIMENSION, "include": []})
        assert answer[0] == 200 and len(answer[1]["hits"]) == 10
        assert server.call("POST", "/v2/databases/sick/count", {})[1]["count"] == ROWS
        wait_until(lambda: "metadata" in server.log())
        assert "Traceback" not in server.log()
        assert server.call("DELETE", "/v2/databases/sick")[0] == 200
        is_whole(server, "well")
        assert server.stop() == 0


def test_a_database_that_cannot_be_opened_keeps_no_other_from_being_served(data: Path) -> None:
    with serving(data) as server:
        ids = {name: make(server, name) for name in ("sick", "well")}
        assert server.stop() == 0
    (records,) = files_of(data, ids["sick"], "ids")
    whole = records.read_bytes()
    overwrite(records)
    with serving(data) as server:
        is_whole(server, "well")
        for text in ("sick", ids["sick"]):
            assert_damaged(*server.call("GET", f"/v2/databases/{text}"), data)
            assert_damaged(
                *server.call("POST", f"/v1/databases/{text}/search", {"queryVector": [1.0] * DIMENSION}), data
            )
        with grpc.insecure_channel(server.grpc) as channel:
            assert Caller(channel).fails("VectorService/CountVectors", database="sick").code == "CORRUPT"
        assert [one["name"] for one in server.call("GET", "/v2/databases")[1]["databases"]] == ["well"]
        assert server.call("POST", "/v2/databases", {"name": "sick", "dimension": 2})[0] == 409
        assert server.call("GET", "/health")[1]["checks"]["database"].startswith("sick: ")
        wait_until(lambda: "can't be opened, the others are served" in server.log() and str(records) in server.log())
        assert server.stop() == 0
    records.write_bytes(whole)  # restored
    with serving(data) as server:
        is_whole(server, "sick")
        is_whole(server, "well")
        assert server.call("GET", "/v2/databases/sick")[1]["id"] == ids["sick"]


def test_files_that_may_not_grow_are_a_full_disk(data: Path) -> None:
    """Without root: the limit stands in for the disk's end, and is lifted while the server runs."""
    with serving(data) as server:
        make(server, "d")
        pid = server.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        written, refused = 0, 0
        for number in range(200):
            body = {"ids": [f"w{number}"], "values": [[1.0] * DIMENSION], "metadata": [{"filler": "x" * 20_000}]}
            status, answer = server.call("POST", "/v2/databases/d/vectors", body)
            if status == 200:
                written += 1
            else:
                assert status == 503 and answer["code"] == "DISK_FULL" and answer["retry_after"] >= 1, answer
                refused += 1
            if refused >= 5:
                break
        assert refused
        status, answer = server.call("POST", "/v2/databases/d/count", {})
        assert answer["count"] == ROWS + written
        assert len(server.call("POST", "/v2/databases/d/search", {"vector": [1.0] * DIMENSION, "k": 3})[1]["hits"]) == 3
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert (
            server.call("POST", "/v2/databases/d/vectors", {"ids": ["after"], "values": [[1.0] * DIMENSION]})[0] == 200
        )
        assert server.call("POST", "/v2/databases", {"name": "another", "dimension": 2})[0] == 201
        assert server.call("POST", "/v2/databases/d/count", {})[1]["count"] == ROWS + written + 1
        assert "Traceback" not in server.log()
        assert server.stop() == 0
