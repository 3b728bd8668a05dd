"""A random stream of operations on a store, and the oracle that knows what each of them must do: a plain dict.

An operation is a plain value, made from a seed and the oracle's state, so that the same one can be performed by a worker
that is about to die, by a second store that nobody kills (`perform`), and by the oracle (`Oracle.apply`).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import jadevectordb as jade
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of

WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "grove")
TAGS = ("a", "b", "c", "d")
TEMPORARY = "temporary"
DATABASES: dict[str, dict[str, Any]] = {
    "words": {
        "dimension": 8,
        "metric": "cosine",
        "shards": 3,
        "seal_rows": 64,
        "schema": {"body": "text", "n": "integer"},
    },
    "places": {"dimension": 5, "metric": "euclidean", "shards": 1, "seal_rows": 100},
    TEMPORARY: {"dimension": 4, "metric": "dot", "shards": 2, "seal_rows": 32, "index": "IVF"},
}
LASTING = ("words", "places")
IDS = 900  # distinct ids of a database: most writes replace something
SCHEMAS: dict[
    str, list[dict[str, str]]
] = {  # what a database's schema is altered to; the first is that of its creation
    "words": [{"body": "text", "n": "integer"}, {"body": "text", "tag": "text"}, {"tag": "string"}],
    "places": [{}, {"body": "text"}],
}
INDEXES = ("AUTO", "FLAT", "IVF", "HNSW", "LSH")
UNCHANGING = frozenset({"settle", "compact", "snapshot", "reopen"})


class Op(NamedTuple):
    kind: str
    database: str = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Result(NamedTuple):
    """What a caller was told."""

    count: int = 0
    sequences: dict[int, int] = {}  # noqa: RUF012
    duplicate: bool = False
    error: str = ""


class Record(NamedTuple):
    vector: bytes
    metadata: dict[str, Any]
    version: int


Contents = dict[str, Record]


def create(store: Store, name: str) -> None:
    """Make it, if it is not there; it may have been altered since."""
    if name not in store.databases():
        store.create_database(name, **DATABASES[name])


def perform(store: Store, op: Op, *, quickly: bool = False) -> Result:
    """Do it. quickly: the same entries in the log, but nobody waits for indexes and nothing is copied."""
    try:
        match op.kind:
            case "create":
                create(store, op.database)
            case "drop":
                store.drop_database(op.database)
            case "snapshot":
                if not quickly:
                    store.snapshot(op.arguments["path"])
            case "reopen":
                pass  # a matter of the store, not of its contents
            case "alter":
                if not quickly:
                    store.alter_database(op.database, index=op.arguments["index"], schema=op.arguments["schema"])
                elif op.arguments["seals"]:
                    store.database(op.database)._now().writer.seal(compact=False)
            case "settle":
                _settle(store.database(op.database), quickly)
            case "compact":
                database = store.database(op.database)
                if quickly:
                    database._openings.seal(compact=True)
                else:
                    database.compact()
            case kind:
                found = getattr(store.database(op.database), kind)(**op.arguments)
                return Result(found.count, dict(found.sequences), found.duplicate)
    except JadeError as error:
        if error.code is not ErrorCode.VERSION_CONFLICT:
            raise
        return Result(error=str(error.code))
    return Result()


def _settle(database: jade.Database, quickly: bool) -> None:
    if not quickly:
        database.wait_indexed()
    else:
        database._openings.seal(compact=False)


def schemas(store: Store) -> dict[str, dict[str, str]]:
    return {name: {k: str(v) for k, v in store.describe(name).schema.fields.items()} for name in LASTING}


def watermarks(store: Store) -> dict[str, list[int]]:
    return {name: store.database(name).stats().watermarks for name in store.databases()}


@dataclass
class Oracle:
    """What every database holds, as a dict; changed by acknowledged operations only."""

    contents: dict[str, Contents] = field(default_factory=lambda: {name: {} for name in LASTING})
    applied_requests: set[tuple[str, str]] = field(default_factory=set)
    schemas: dict[str, dict[str, str]] = field(default_factory=lambda: {name: SCHEMAS[name][0] for name in LASTING})

    def copy_contents(self) -> dict[str, Contents]:
        return {name: dict(records) for name, records in self.contents.items()}

    def apply(self, op: Op, result: Result) -> None:
        """Change the contents as the operation must; asserts that the caller was told the truth about it."""
        if op.kind in UNCHANGING:
            return
        if op.kind == "create":
            self.contents.setdefault(op.database, {})
            return
        if op.kind == "alter":
            self.schemas[op.database] = op.arguments["schema"]
            return
        if op.kind == "drop":
            del self.contents[op.database]
            self.applied_requests = {r for r in self.applied_requests if r[0] != op.database}
            return
        records, arguments = self.contents[op.database], op.arguments
        request = (op.database, arguments.get("request_id", ""))
        if request[1] and request in self.applied_requests:
            assert result.duplicate and not result.error, f"{op.kind} with a request id applied before gave {result}"
            return
        assert not result.duplicate
        if self._conflicts(records, arguments):
            assert result.error == ErrorCode.VERSION_CONFLICT, f"a condition did not hold, but {op.kind} gave {result}"
            return
        assert not result.error, f"{op.kind} gave {result}"
        changed = getattr(self, "_" + op.kind)(op.database, records, arguments, result)
        assert result.count == changed, f"{op.kind} changed {changed}, said {result.count}"
        if request[1]:
            self.applied_requests.add(request)

    @staticmethod
    def _conflicts(records: Contents, arguments: dict[str, Any]) -> bool:
        expected = arguments.get("if_version")
        if expected is None:
            return False
        versions = [records[i].version if i in records else 0 for i in arguments["ids"]]
        return any(e is not None and e != v for e, v in zip(expected, versions, strict=True))

    @staticmethod
    def _versions(database: str, ids: list[str], result: Result) -> list[int]:
        shards = shards_of(hash_ids(ids), DATABASES[database]["shards"]).tolist()
        return [result.sequences[shard] for shard in shards]

    def _upsert(self, database: str, records: Contents, arguments: dict[str, Any], result: Result) -> int:
        ids = arguments["ids"]
        versions = self._versions(database, ids, result)
        for i, vector, metadata, version in zip(
            ids, arguments["vectors"], arguments["metadata"], versions, strict=True
        ):
            records[i] = Record(vector.tobytes(), copy.deepcopy(metadata or {}), version)
        return len(ids)

    def _update_metadata(self, database: str, records: Contents, arguments: dict[str, Any], result: Result) -> int:
        known = [i for i in arguments["ids"] if i in records]
        patches = dict(zip(arguments["ids"], arguments["metadata"], strict=True))
        for i, version in zip(known, self._versions(database, known, result), strict=True):
            kept = records[i].metadata if arguments["merge"] else {}
            records[i] = Record(records[i].vector, {**kept, **patches[i]}, version)
        return len(known)

    def _delete(self, database: str, records: Contents, arguments: dict[str, Any], result: Result) -> int:
        del database, result
        if "ids" in arguments:
            doomed = [i for i in arguments["ids"] if i in records]
        else:
            doomed = [i for i, record in records.items() if matches(record.metadata, arguments["filter"])]
        for i in doomed:
            del records[i]
        return len(doomed)


def matches(metadata: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """The one form of filter that the stream uses: {"tag": value, "n": {"$lt": bound}}."""
    n = metadata.get("n")
    return metadata.get("tag") == wanted["tag"] and n is not None and n < wanted["n"]["$lt"]


class Stream:
    """Makes the next operation from a seeded generator and what the oracle knows."""

    def __init__(self, seed: int, oracle: Oracle, snapshots: Path) -> None:
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._oracle = oracle
        self._snapshots = snapshots
        self._count = 0
        self._with_request: list[Op] = []  # sent before; repeated now and then
        makers: dict[Callable[[], Op], int] = {
            self._upsert: 40,
            self._conditional: 8,
            self._update: 10,
            self._delete: 8,
            self._delete_where: 6,
            self._repeat: 6,
            self._background: 8,
            self._snapshot: 3,
            self._reopen: 2,
            self._create_or_drop: 2,
            self._alter: 2,
        }
        self._makers, self._weights = list(makers), list(makers.values())

    def next(self) -> Op:
        self._count += 1
        (make,) = self._random.choices(self._makers, self._weights)
        return make()

    def _database(self) -> str:
        return self._random.choice(list(self._oracle.contents))

    def _vectors(self, database: str, count: int) -> npt.NDArray[np.float32]:
        vectors = self._numbers.standard_normal((count, DATABASES[database]["dimension"])).astype(np.float32)
        if self._random.random() < 0.5:  # unit length needs no second copy of the rows under cosine
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _ids(self, count: int) -> list[str]:
        return [f"v{n}" for n in self._random.sample(range(IDS), count)]

    def _metadata(self) -> dict[str, Any] | None:
        if self._random.random() < 0.1:
            return None
        return {
            "n": self._random.randrange(1000),
            "tag": self._random.choice(TAGS),
            "body": " ".join(self._random.choices(WORDS, k=3)),
        }

    def _with_id(self, op: Op) -> Op:
        if self._random.random() < 0.3:
            op.arguments["request_id"] = f"request-{self._count}"
            self._with_request = [*self._with_request[-20:], op]
        return op

    def _upsert(self) -> Op:
        database, count = self._database(), self._random.choice((1, 3, 10, 40, 150))
        return self._with_id(
            Op(
                "upsert",
                database,
                {
                    "ids": self._ids(count),
                    "vectors": self._vectors(database, count),
                    "metadata": [self._metadata() for _ in range(count)],
                },
            )
        )

    def _conditional(self) -> Op:
        op = self._upsert()
        records = self._oracle.contents[op.database]
        versions: list[int | None] = [records[i].version if i in records else 0 for i in op.arguments["ids"]]
        if self._random.random() < 0.3:
            versions[0] = (versions[0] or 0) + 1
        if self._random.random() < 0.3:
            versions[-1] = None
        op.arguments["if_version"] = versions
        return op

    def _update(self) -> Op:
        database, count = self._database(), self._random.choice((1, 5, 30))
        patches = [self._metadata() or {"n": 7} for _ in range(count)]
        merge = self._random.random() < 0.5
        if merge:
            patches = [{"n": patch["n"]} for patch in patches]
        return self._with_id(
            Op("update_metadata", database, {"ids": self._ids(count), "metadata": patches, "merge": merge})
        )

    def _delete(self) -> Op:
        return self._with_id(Op("delete", self._database(), {"ids": self._ids(self._random.choice((1, 10, 60)))}))

    def _delete_where(self) -> Op:
        wanted = {"tag": self._random.choice(TAGS), "n": {"$lt": self._random.choice((20, 100, 500))}}
        return self._with_id(Op("delete", self._database(), {"filter": wanted}))

    def _repeat(self) -> Op:
        known = [op for op in self._with_request if op.database in LASTING]
        return self._random.choice(known) if known else self._upsert()

    def _background(self) -> Op:
        return Op(self._random.choice(("settle", "settle", "compact")), self._database())

    def _snapshot(self) -> Op:
        return Op("snapshot", "", {"path": str(self._snapshots / f"snapshot-{self._count}")})

    def _reopen(self) -> Op:
        return Op("reopen")

    def _alter(self) -> Op:
        database = self._random.choice(LASTING)
        schema = self._random.choice(SCHEMAS[database])
        seals = schema != self._oracle.schemas[database]
        return Op("alter", database, {"schema": schema, "index": self._random.choice(INDEXES), "seals": seals})

    def _create_or_drop(self) -> Op:
        return Op("drop" if TEMPORARY in self._oracle.contents else "create", TEMPORARY)
