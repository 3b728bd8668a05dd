"""Rounds of work, death and examination on one folder.

    work         a worker (`worker`) performs operations of the stream, one at a time, and acknowledges each
    death        SIGKILL, at a random moment or at a chosen step of a chosen place
    examination  the folder is opened; it must hold exactly what was acknowledged, the one operation in flight whole or not at all

A second store, the twin, is given every operation that took place and is never killed. Which of the two the operation in
flight did is decided by the logs' ends, and must then agree with contents, searches, digests and files alike.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

import jadevectordb as jade
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.main import RealWorld
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.shard.checkpoint import read_checkpoint
from tests.crash import worker
from tests.crash.stream import (
    LASTING,
    TAGS,
    WORDS,
    Contents,
    Op,
    Oracle,
    Result,
    Stream,
    create,
    matches,
    perform,
    schemas,
    watermarks,
)
from tests.crash.worker import PLACES, Death

STEPS_MAX = {"append": 60, "truncate": 30, "seal": 160, "merge": 90, "build": 160, "snapshot": 200, "open": 140,
             "close": 40, "create": 12, "drop": 40, "alter": 120}  # fmt: skip
ROUND_OPS_MAX = 120
ANSWER_S_MAX = 120.0  # a worker that says nothing for so long hangs


class _NoBuilders:
    """The compute port of the twin: its segments stay without an index, which no digest depends on."""

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        raise JadeError(ErrorCode.TIMEOUT, "The twin builds nothing.")

    def interrupt(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


class Campaign:
    """A folder, its twin and the oracle, through any number of rounds. `deaths`: how many a place."""

    def __init__(self, directory: Path, seed: int) -> None:
        worker.make_everything_small()
        (directory / "twin").mkdir(parents=True)
        (directory / "store").mkdir()
        self.folder = directory / "store"
        self._random = random.Random(seed)
        self._oracle = Oracle()
        self._stream = Stream(seed + 1, self._oracle, directory)
        self._twin = Store(directory / "twin", RealWorld(_NoBuilders))
        for name in LASTING:
            create(self._twin, name)
        self._in_flight: Op | None = None
        self._snapshots: list[tuple[Path, dict[str, Contents], dict[str, list[str]]]] = []
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["tests.crash.worker"])
        self.deaths: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()  # and where exactly
        self.operations = 0

    def close(self) -> None:
        self._twin.close()

    def run_round(self, place: str | None = None) -> None:
        """place: where the worker is to die; None: anywhere, at any moment."""
        self._work(self._choose_death(place))
        if self._random.random() < 0.6:  # else the next worker finds the folder as this one left it
            self.examine()

    def _choose_death(self, place: str | None) -> Death:
        if place is None and self._random.random() < 0.25:
            return Death(real_builders=self._random.random() < 0.3)
        place = place or self._random.choice(PLACES)
        return Death(place, self._random.randrange(STEPS_MAX[place]))

    # Work and death

    def _work(self, death: Death) -> None:
        orders, theirs = self._processes.Pipe()
        last_words, their_words = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=worker.run, args=(theirs, their_words, self.folder, death))
        process.start()
        theirs.close()
        their_words.close()
        try:
            self._talk(orders, death)
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -9, f"the worker ended by itself with {process.exitcode}"
        try:
            word = last_words.recv_bytes().decode()
        except EOFError:
            word = "any moment: "
        place, _, step = word.partition(": ")
        self.deaths[place] += 1
        self.steps[word if step else place] += 1

    def _talk(self, orders: Connection, death: Death) -> None:
        """Until the worker is dead, or is to be killed now."""
        until = monotonic() + (ANSWER_S_MAX if death.place else self._random.uniform(0.05, 1.0))
        try:
            ends = self._receive(orders, until)
            if ends is None:
                return
            self._resolve(*ends)
            for _ in range(ROUND_OPS_MAX):
                op = self._wish(death) or self._stream.next()
                self._in_flight = op
                orders.send(op)
                result = self._receive(orders, until)
                if result is None:
                    return
                self._acknowledge(op, result)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return

    def _wish(self, death: Death) -> Op | None:
        """An operation that leads to the place where the worker is to die."""
        if self._random.random() > 0.15:
            return None
        match death.place:
            case "snapshot":
                return self._stream._snapshot()
            case "merge" | "build":
                return self._stream._background()
            case "alter":
                return self._stream._alter()
            case "create" | "drop":
                return self._stream._create_or_drop()
            case "open" | "close":
                return Op("reopen")
        return None

    @staticmethod
    def _receive(orders: Connection, until: float) -> Any:
        """What the worker says; None when it is time to kill it."""
        if wait([orders], max(0.0, until - monotonic())):
            return orders.recv()
        return None

    # What took place

    def _acknowledge(self, op: Op, result: Result) -> None:
        expected = perform(self._twin, op, quickly=True)
        assert result == expected, f"{op.kind} said {result}, on the twin {expected}"
        self._oracle.apply(op, result)
        self._in_flight = None
        self.operations += 1
        if op.kind == "snapshot":
            self._expect_snapshot(Path(op.arguments["path"]))

    def _resolve(self, ends: dict[str, list[int]], found: dict[str, dict[str, str]]) -> None:
        """Find out whether the operation in flight took place, from the logs' ends, and follow it."""
        op, self._in_flight = self._in_flight, None
        before = watermarks(self._twin)
        possible = {name: [schema] for name, schema in self._oracle.schemas.items()}
        if op is not None and op.kind == "alter":  # its seal may be in the log, and the catalog as before all the same
            possible[op.database].append(op.arguments["schema"])
        for name, schema in found.items():
            assert schema in possible[name], f"after {op}: {name} has the schema {schema}, not one of {possible[name]}"
        if op is not None and op.kind == "snapshot":
            path = Path(op.arguments["path"])
            if path.exists():
                self._expect_snapshot(path)
        elif op is not None and ends != before:
            self._oracle.apply(op, perform(self._twin, op, quickly=True))
        self._oracle.schemas.update(found)
        assert ends == watermarks(self._twin), f"after {op}: logs end at {ends}, not at {before} or after the operation"

    def _expect_snapshot(self, path: Path) -> None:
        digests = {name: self._twin.database(name).digest() for name in self._oracle.contents}
        self._snapshots.append((path, self._oracle.copy_contents(), digests))

    # Examination

    def examine(self) -> None:
        """Open the folder and every snapshot of the round, and compare all there is."""
        with worker.open_store(self.folder) as store:
            for name in LASTING:
                create(store, name)
            self._resolve(watermarks(store), schemas(store))
            digests = {name: self._twin.database(name).digest() for name in self._oracle.contents}
            self._compare(store, self._oracle.contents, digests)
        check_no_orphans(self.folder)
        for path, contents, digests in self._snapshots:
            with worker.open_store(path) as store:
                self._compare(store, contents, digests)
            shutil.rmtree(path)
        self._snapshots.clear()
        for leftover in self.folder.parent.glob("snapshot-*"):
            assert ".unfinished-" in leftover.name, f"{leftover} was never acknowledged nor in flight"
            shutil.rmtree(leftover)

    def _compare(self, store: Store, contents: dict[str, Contents], digests: dict[str, list[str]]) -> None:
        assert store.databases() == sorted(contents)
        for name, records in contents.items():
            database = store.database(name)
            compare_contents(database, records)
            compare_searches(database, records, np.random.default_rng(self._random.randrange(1 << 30)))
            assert database.digest() == digests[name], f"{name}: same contents, but another digest than the twin's"
            database.verify()


def compare_contents(database: jade.Database, records: Contents) -> None:
    found = {item.id: item for item in database.items()}
    assert found.keys() == records.keys(), f"{database.name}: ids differ: {found.keys() ^ records.keys()}"
    for i, record in records.items():
        item = found[i]
        assert item.vector.tobytes() == record.vector, f"{database.name}: another vector under {i}"
        assert item.metadata == record.metadata, f"{database.name}: other metadata under {i}"
        assert item.version == record.version, f"{database.name}: version {item.version} of {i}, not {record.version}"
    assert database.count() == len(records)
    ids = [*records, "never-written"]
    assert [item is not None and item.version for item in database.get(ids)] == [
        *(record.version for record in records.values()),
        False,
    ]


def compare_searches(database: jade.Database, records: Contents, numbers: np.random.Generator) -> None:
    wanted = {"tag": TAGS[numbers.integers(len(TAGS))], "n": {"$lt": int(numbers.integers(1000))}}
    matching = {i: record for i, record in records.items() if matches(record.metadata, wanted)}
    assert database.count(wanted) == len(matching)
    for _ in range(3):
        query = numbers.standard_normal(database.dimension).astype(np.float32)
        for condition, among in ((None, records), (wanted, matching)):
            hits = database.search(query, k=10, filter=condition, recall=1.0)
            check_nearest(database.metric, query, [(hit.id, hit.score) for hit in hits], among)
    if "body" in database.config.schema.texts:
        word = WORDS[numbers.integers(len(WORDS))]
        having = {i for i, record in records.items() if word in record.metadata.get("body", "").split()}
        assert {hit.id for hit in database.search(text=word, k=10_000)} == having


def check_nearest(metric: str, query: np.ndarray, hits: list[tuple[str, float]], records: Contents) -> None:
    """The hits are the nearest of all records: scores true and best first, none missing that is clearly nearer."""
    scores = {i: _score(metric, query.astype(np.float64), record.vector) for i, record in records.items()}
    best = sorted(scores.values(), reverse=True)[:10]
    assert len(hits) == len(best) == len({i for i, _ in hits})
    for (i, score), nearest in zip(hits, best, strict=True):
        assert abs(score - scores[i]) < 1e-4, f"score {score} of {i} is not {scores[i]}"
        assert abs(score - nearest) < 1e-4, f"{i} with {score} stands where {nearest} should"


def _score(metric: str, query: np.ndarray, stored: bytes) -> float:
    vector = np.frombuffer(stored, np.float32).astype(np.float64)
    if metric == "dot":
        return float(query @ vector)
    if metric == "cosine":
        return float(query @ vector / (np.linalg.norm(query) * np.linalg.norm(vector)))
    return float(1 / (1 + np.linalg.norm(query - vector)))


def check_no_orphans(folder: Path) -> None:
    """Every folder in the store is named by the catalog or a checkpoint: nothing is left behind by what was cut off."""
    with worker.open_store(folder) as store:
        known = {store.describe(name).folder for name in store.databases()}
        for name in store.databases():
            store.database(name)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == known
    for shard in folder.glob("db-*/shard-*"):
        named = {entry.name for entry in read_checkpoint(shard).segments}
        found = {path.name for path in shard.iterdir() if path.is_dir()}
        assert found == named, f"{shard}: folders {found ^ named} are not in the checkpoint or missing"
