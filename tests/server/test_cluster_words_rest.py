"""Searches by words, keyword indexes and re-ranking over REST: two real nodes answer, whichever is asked, as a single server does.

Each shard has one replica, so no node can answer without the other.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving import serving

from jadevectordb.cli.local_cluster import LocalCluster

TEXTS = [
    "machine learning is a field of artificial intelligence", "deep learning uses neural networks", "the history of machine tools",
    "cooking pasta with tomato sauce", "gardens and their flowers", "neural machine translation", "a field of flowers",
    "tools of the garden", "history of artificial flowers", "pasta machine", "learning to cook", "intelligence of networks",
]  # fmt: skip
PASSING = frozenset(
    (
        "queryTimeMs",
        "queryId",
        "query_id",
        "databaseId",
        "durationMs",
        "latencyMs",
        "timings",
        "statistics",
        "indexUsed",
        "indexedTerms",
    )
)  # what differs between any two runs


class Door:
    """One server, or the nodes of a cluster in turn."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._turn = 0
        self._session = ""  # what it has seen, as any client keeps it
        self.base = f"/v1/databases/{self.make({'name': 'words', 'dimension': 4})}"

    def make(self, body: dict[str, Any]) -> str:
        status, made = self.call("POST", "/v2/databases", {**body, "replication": 1})
        assert status == 201, made
        return str(made["id"])

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        until_s = time.monotonic() + 60
        while True:
            status, answer = self._call(method, path, body)
            if (
                status != 503 or time.monotonic() > until_s
            ):  # a busy machine's node may be silent for a while: asked again
                return status, answer

    def _call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self._turn += 1
        url = self.urls[self._turn % len(self.urls)] + path
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "X-Jade-Session": self._session}
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._session = answer.headers.get("X-Jade-Session", self._session)
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Door]]:
    local = LocalCluster.make(tmp_path_factory.mktemp("words") / "cluster", 2, None, "open-loopback")
    local.start(local.nodes, lambda _: None)
    try:
        with serving(tmp_path_factory.mktemp("alone") / "data") as alone:
            yield [Door([node.url for node in local.nodes]), Door([alone.url])]
    finally:
        local.stop(local.nodes, lambda _: None)


def _lasting(answer: Any) -> Any:
    """Without what differs between any two runs."""
    if isinstance(answer, dict):
        return {name: _lasting(value) for name, value in answer.items() if name not in PASSING}
    if isinstance(answer, list):
        return [_lasting(value) for value in answer]
    return pytest.approx(answer, abs=1e-6) if isinstance(answer, float) else answer


def _same(doors: list[Door], method: str, path: str, body: Any = None) -> Any:
    (status, here), (expected, there) = (door.call(method, path.replace("D/", door.base + "/"), body) for door in doors)
    assert status == expected, (path, here, there)
    assert _lasting(here) == _lasting(there), path
    return here


SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("hybrid", {"queryText": "machine"}),
    ("hybrid", {"queryText": "machine learning", "queryVector": [1, 0, 1, 0], "topK": 5}),
    ("hybrid", {"queryText": "flowers", "queryVector": [1, 2, 0, 0], "fusionMethod": "weighted", "alpha": 0.2}),
    ("hybrid", {"queryText": "garden tools", "filters": {"n": {"$lt": 8}}, "includeValues": True}),
    ("hybrid", {"queryVector": [1, 0, 1, 0], "topK": 3}),
    ("rerank", {"queryText": "machine tools", "queryVector": [1, 0, 1, 0], "topK": 4}),
    ("rerank", {"queryText": "neural networks", "rerankTopN": 3, "diversity": 0.5}),
    ("rerank", {"queryText": "pasta", "enableReranking": False}),
]


def _search_all(doors: list[Door]) -> None:
    for _ in range(3):  # once through each node
        for kind, body in SEARCHES:
            _same(doors, "POST", f"D/search/{kind}", body)


def test_everything_with_words_answers_as_on_one_server(doors: list[Door]) -> None:
    vectors = [
        {"id": f"d{n}", "values": [1.0, n / 9, n % 3, 0.5 - n / 7], "metadata": {"text": text, "n": n}}
        for n, text in enumerate(TEXTS)
    ]
    _same(doors, "POST", "D/vectors/batch", {"vectors": vectors})
    assert _same(doors, "GET", "D/bm25-index/status")["status"] == "none"
    _same(doors, "POST", "D/search/hybrid", {"queryText": "machine", "queryVector": [1, 0, 1, 0]})
    status = [door.call("POST", door.base + "/search/hybrid", {"queryText": "machine"})[0] for door in doors]
    assert status == [409, 409]
    _same(doors, "POST", "D/bm25-index/build", {"textField": "text"})
    _search_all(doors)
    documents = [
        {"doc_id": "loose", "text": "machine gardens"},
        {"doc_id": "d3", "text": "tools"},
        {"id": 7, "text": "flowers"},
    ]
    _same(doors, "POST", "D/bm25-index/documents", {"documents": documents})
    _search_all(doors)
    for door in doors:
        assert door.call("DELETE", door.base + "/vectors/d2")[0] == 200
    changed = {"metadata": {"text": "machine machine flowers", "n": 30}}
    _same(doors, "PUT", "D/vectors/d0", changed)
    _same(doors, "PUT", "D/reranking/config", {"rerankWeight": 0.3, "scoreThreshold": 0.05})
    _search_all(doors)
    _same(doors, "POST", "D/bm25-index/rebuild", {})
    _same(doors, "GET", "D/bm25-index/status")
    refusals = [door.call("POST", door.base + "/bm25-index/build", {"textField": "n"}) for door in doors]
    assert [status for status, _ in refusals] == [400, 400]  # these are numbers; any vector that has one may be named
    here, there = (re.sub(r"'d\d'", "'d'", refusal["message"]) for _, refusal in refusals)
    assert here == there


def test_the_native_search_by_words_and_what_it_explains(doors: list[Door]) -> None:
    wanted = {"name": "native", "dimension": 2, "schema": {"text": "text"}}
    paths = [f"/v2/databases/{door.make(wanted)}" for door in doors]
    rows = {
        "ids": [f"r{n}" for n in range(12)],
        "values": [[1.0, n] for n in range(12)],
        "metadata": [{"text": text} for text in TEXTS],
    }
    for door, path in zip(doors, paths, strict=True):
        status, answer = door.call("POST", path + "/vectors", rows)
        assert status == 200, answer
    both = {"text": "flowers field", "vector": [1, 3], "fusion": "weighted", "alpha": 0.3, "k": 4}
    for body in ({"text": "machine"}, both):
        here, there = (
            door.call("POST", path + "/search", {**body, "explain": True})[1]
            for door, path in zip(doors, paths, strict=True)
        )
        assert here["hits"] and [_lasting(hit) for hit in here["hits"]] == [_lasting(hit) for hit in there["hits"]]
        told, expected = here["explanation"], there["explanation"]
        assert (told["text_terms"], told["matches"]) == (expected["text_terms"], expected["matches"])
        assert {node["node"] for node in told["nodes"]} == {"n1", "n2"}
        assert {shard for node in told["nodes"] for shard in node["shards"]} == {0, 1, 2, 3}
