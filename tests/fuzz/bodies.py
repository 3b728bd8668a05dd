"""Bodies that each route accepts, from which the fuzzer starts. A route missing here gets bodies made of nothing but chance."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.values import IDS, condition

DIMENSION = 4
WORDS = ("jade", "stone", "green", "river", "a", "the", "Zürich", "42")


def numbers(chance: Random) -> list[float]:
    return [round(chance.gauss(0, 1), 3) + 0.001 for _ in range(DIMENSION)]


def words(chance: Random) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(chance.randrange(1, 6)))


def ids(chance: Random) -> list[str]:
    return chance.sample(IDS, chance.randrange(1, 4))


def metadata(chance: Random) -> dict[str, Any]:
    return {
        "n": chance.randrange(100),
        "tag": chance.choice("abc"),
        "body": words(chance),
        "list": [1, "x"],
        "flag": True,
    }


def _made_name(chance: Random) -> str:
    return f"made{chance.randrange(4)}"


def _search_v1(chance: Random) -> dict[str, Any]:
    filters = {"field": "n", "op": chance.choice(("GREATER_THAN", "EQUALS")), "value": chance.randrange(100)}
    return {
        "queryVector": numbers(chance),
        "topK": chance.randrange(1, 20),
        "threshold": 0.1,
        "includeMetadata": True,
        "includeValues": True,
        "filters": chance.choice(({"conditions": [filters]}, {"tag": "a"}, {})),
    }


def _search_v2(chance: Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "k": chance.randrange(1, 20),
        "recall": chance.choice((0.8, 0.95, 1)),
        "include": ["metadata", "version"],
        "explain": chance.random() < 0.3,
    }
    body |= chance.choice(
        (
            {"vector": numbers(chance)},
            {"id": chance.choice(IDS)},
            {"text": words(chance)},
            {"vector": numbers(chance), "text": words(chance), "alpha": 0.3},
        )
    )
    if chance.random() < 0.4:
        body["filter"] = condition(chance)
    if chance.random() < 0.3:
        body |= chance.choice(
            (
                {"threshold": 0.2},
                {"max_distance": 3.0},
                {"exact": True},
                {"nprobe": 2},
                {"group_by": "tag", "group_size": 2},
                {"ef_search": 10},
                {"candidates": 50},
            )
        )
    return body


def _upsert_v2(chance: Random) -> dict[str, Any]:
    names = ids(chance)
    if chance.random() < 0.5:
        return {"ids": names, "values": [numbers(chance) for _ in names], "metadata": [metadata(chance) for _ in names]}
    return {
        "vectors": [{"id": i, "values": numbers(chance), "metadata": metadata(chance)} for i in names],
        "request_id": words(chance),
    }


def _vector_v1(chance: Random) -> dict[str, Any]:
    return {"id": chance.choice(IDS), "values": numbers(chance), "metadata": metadata(chance)}


def _documents(chance: Random) -> list[dict[str, str]]:
    return [{"doc_id": i, "id": i, "text": words(chance)} for i in ids(chance)]


def _user(chance: Random) -> dict[str, Any]:
    name = f"user{chance.randrange(6)}"
    return {"username": name, "password": "a long password 1", "email": f"{name}@example.org", "roles": ["viewer"]}


_D1, _D2 = "/v1/databases/{databaseId}", "/v2/databases/{db}"
BODIES: dict[str, Callable[[Random], Any]] = {
    "/v1/auth/register": _user,
    "/v1/auth/login": lambda c: {"username": f"user{c.randrange(6)}", "password": "a long password 1"},
    "/v1/auth/forgot-password": lambda c: {"username": f"user{c.randrange(6)}"},
    "/v1/auth/reset-password": lambda c: {"token": "rst_x", "new_password": "another password", "user_id": "user1"},
    "/v2/setup": lambda c: {"token": "x", "username": "admin", "password": "a long password 1"},
    "/v1/users": _user,
    "/v1/users/{userId}": lambda c: {"email": "b@example.org", "roles": ["developer"], "is_active": True},
    "/v1/users/{userId}/password": lambda c: {"old_password": "a long password 1", "new_password": "a long password 2"},
    "/v1/admin/users/{userId}/reset-password": lambda c: {"new_password": "a long password 1"},
    "/v1/api-keys": lambda c: {"description": "k", "permissions": ["read"], "validity_days": 1, "user_id": "user1"},
    "/v1/apikeys": lambda c: {"description": "k", "permissions": [], "validity_days": 1},
    "/v1/databases": lambda c: {
        "name": _made_name(c),
        "vectorDimension": DIMENSION,
        "indexType": c.choice(("HNSW", "IVF", "FLAT")),
        "metric": c.choice(("cosine", "euclidean")),
        "description": "d",
        "sharding": {"numShards": 1},
        "indexParameters": {"M": 16},
    },
    _D1: lambda c: {"name": _made_name(c), "description": words(c), "indexType": "FLAT"},
    _D1 + "/compact": lambda c: {},
    _D1 + "/vectors": _vector_v1,
    _D1 + "/vectors/batch": lambda c: {"vectors": [_vector_v1(c) for _ in range(3)], "upsert": True},
    _D1 + "/vectors/batch-get": lambda c: {"ids": ids(c)},
    _D1 + "/vectors/{vectorId}": _vector_v1,
    _D1 + "/search": _search_v1,
    _D1 + "/search/advanced": _search_v1,
    _D1 + "/search/euclidean": _search_v1,
    _D1 + "/search/dotproduct": _search_v1,
    _D1 + "/search/hybrid": lambda c: {
        **_search_v1(c),
        "queryText": words(c),
        "fusionMethod": c.choice(("rrf", "linear")),
        "alpha": 0.4,
    },
    _D1 + "/search/rerank": lambda c: {
        **_search_v1(c),
        "queryText": words(c),
        "enableReranking": True,
        "rerankTopN": 5,
        "diversity": 0.2,
    },
    "/v1/rerank": lambda c: {"query": words(c), "documents": _documents(c), "topK": 2, "diversity": 0.3},
    _D1 + "/reranking/config": lambda c: {
        "modelName": "lexical-bm25-coverage",
        "batchSize": 8,
        "scoreThreshold": 0.1,
        "combineScores": True,
        "rerankWeight": 0.5,
    },
    _D1 + "/bm25-index/build": lambda c: {
        "textField": "body",
        "incremental": c.random() < 0.5,
        "documents": _documents(c),
    },
    _D1 + "/bm25-index/rebuild": lambda c: {"textField": "body"},
    _D1 + "/bm25-index/documents": lambda c: {"documents": _documents(c)},
    _D1 + "/indexes": lambda c: {"type": c.choice(("HNSW", "IVF", "FLAT", "LSH")), "name": "i", "parameters": {"M": 8}},
    _D1 + "/indexes/{indexId}": lambda c: {"type": "FLAT", "parameters": {}},
    "/v1/embeddings/generate": lambda c: {"input": words(c), "input_type": "text", "provider": "local-onnx"},
    _D1 + "/analytics/feedback": lambda c: {
        "queryId": "q_1",
        "rating": 3,
        "feedbackText": words(c),
        "clickedResultId": "a",
        "clickedRank": 1,
    },
    _D1 + "/lifecycle": lambda c: {"maxAgeDays": 300, "archiveOnExpire": True, "deleteOnExpire": False},
    "/v1/alerts": lambda c: {"type": c.choice(("info", "warning")), "message": words(c)},
    "/v1/alerts/{alertId}/acknowledge": lambda c: {},
    "/v1/cluster/nodes": lambda c: {"address": "127.0.0.1:1", "nodeId": "n"},
    "/v1/cluster/shards/{shardId}/migrate": lambda c: {"target_node": "n"},
    "/v2/databases": lambda c: {
        "name": _made_name(c),
        "dimension": DIMENSION,
        "metric": "dot",
        "index": "IVF",
        "shards": c.choice((1, 2)),
        "schema": {"body": "text", "n": "integer"},
        "strict": False,
        "exist_ok": True,
    },
    _D2: lambda c: {"description": words(c), "index": c.choice(("FLAT", "HNSW")), "schema": {"body": "text"}},
    _D2 + "/wait-indexed": lambda c: {"timeout_s": c.choice((0, 0.1, 2))},
    _D2 + "/compact": lambda c: {"timeout_s": c.choice((0, 0.1, 2))},
    _D2 + "/grants/{userId}": lambda c: {"right": "read"},
    _D2 + "/vectors": _upsert_v2,
    _D2 + "/vectors/get": lambda c: {"ids": ids(c), "include": ["metadata", "vector"]},
    _D2 + "/vectors/exists": lambda c: {"ids": ids(c)},
    _D2 + "/vectors/scroll": lambda c: {
        "limit": 5,
        "cursor": c.choice((None, "a")),
        "filter": condition(c),
        "include": ["vector"],
    },
    _D2 + "/vectors/metadata": lambda c: {"ids": ids(c), "metadata": metadata(c), "merge": c.random() < 0.5},
    _D2 + "/vectors/delete": lambda c: c.choice(({"ids": ids(c)}, {"filter": condition(c)})),
    _D2 + "/count": lambda c: {"filter": condition(c)},
    _D2 + "/search": _search_v2,
    _D2 + "/search/batch": lambda c: {
        "vectors": [numbers(c) for _ in range(3)],
        "k": 3,
        "filter": None,
        "include": ["metadata"],
    },
}

QUERIES: dict[str, tuple[str, ...]] = {
    "/v1/users": ("status", "role", "limit", "offset"),
    "/v1/api-keys": ("user_id", "limit", "offset"),
    "/v1/security/audit-log": ("limit", "offset", "user_id", "event_type"),
    "/v1/security/sessions": ("user_id",),
    "/v1/databases": ("name", "limit", "offset"),
    _D1 + "/vectors": ("limit", "offset"),
    _D1 + "/analytics/stats": ("start_time", "end_time", "granularity"),
    _D1 + "/analytics/queries": ("start_time", "end_time", "limit", "offset"),
    _D1 + "/analytics/patterns": ("start_time", "end_time", "min_count", "limit"),
    _D1 + "/analytics/insights": ("start_time", "end_time"),
    _D1 + "/analytics/trending": ("start_time", "end_time", "limit", "min_growth"),
    _D1 + "/analytics/export": ("format", "start_time", "end_time"),
    "/v1/alerts": ("type", "acknowledged"),
    "/v1/cluster/shards": ("database_id",),
    "/v2/databases": ("name",),
    "/v2/logs": ("level", "contains", "limit"),
    "/v2/queries/slow": ("limit",),
    _D2 + "/search": ("k", "recall", "filter", "include", "threshold", "exact"),
    _D2 + "/search/batch": ("k", "recall", "filter", "include"),
}
