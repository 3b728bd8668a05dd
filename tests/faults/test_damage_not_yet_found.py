"""A database too large to be verified while opening: whoever reads flipped bits first is told of the file, never of a decoder."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node import open_database
from jadevectordb.node.open_database import OpenDatabase
from tests.faults import damage

RECORDS = (
    "ids",
    "ids.offsets",
    "metadata",
    "metadata.offsets",
    "versions",
    "hashes",
    "hashes.rows",
    "text.index",
    "columns.bin",
)
FLIPS = 8  # a file
BYTES_FLIPPED = 12  # at once: one alone may change nothing that is read


@pytest.fixture(autouse=True)
def nothing_is_verified_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_database, "VERIFY_AT_OPEN_BYTES", -1)
    monkeypatch.setattr(OpenDatabase, "_scrub", lambda self: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "store"
    damage.make(folder)
    return folder


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(BYTES_FLIPPED):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def read_everything(database: jade.Database) -> list[JadeError]:
    """What every way of reading said; anything but a JadeError gets through."""
    queries = np.random.default_rng(8).standard_normal((3, damage.DIMENSION)).astype(np.float32)
    calls = [
        lambda: [(item.id, item.version, item.metadata, item.vector) for item in database.items()],
        lambda: [hit.metadata for hit in database.search(queries[0], k=400)],
        lambda: database.search(queries[1], k=20, filter={"tag": "a", "n": {"$lt": 200}}),
        lambda: database.count({"$not": {"tag": {"$contains": "ang"}}}),
        lambda: database.search(text="word3 other", k=500),
        lambda: database.search_groups(queries[2], group_by="tag", k=2, group_size=100),
        lambda: database.get([f"v{n}" for n in range(damage.ROWS)]),
        lambda: database.scroll(100, filter={"tag": "b"}),
        database.digest,
    ]
    told = []
    for call in calls:
        try:
            call()
        except JadeError as error:
            told.append(error)
    return told


@pytest.mark.parametrize("name", RECORDS)
def test_reading_flipped_bits_names_the_file(whole: Path, tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    told: Counter[str] = Counter()
    for turn in range(FLIPS):
        folder = damage.copy_of(whole, tmp_path / f"store{turn}")
        path = chance.choice(sorted(folder.glob(f"db-*/shard-*/*/{name}")))
        flip(path, chance)
        try:
            with damage.open_store(folder) as store:
                errors = read_everything(store.database("d"))
        except JadeError as error:
            errors = [error]  # while its log was replayed
        for error in errors:
            assert error.code is ErrorCode.CORRUPT, error
            assert path.name in str(error) or str(path.parent) in str(error), error
            told[str(error.code)] += 1
    if name not in ("versions", "hashes", "ids.offsets"):  # numbers that only lead elsewhere
        assert told, "no flip was ever seen"


def test_merging_into_unreadable_metadata_is_told_and_then_at_every_call(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with jade.Store(folder, RealWorld(InlineCompute)) as store:
        database = store.create_database("d", 3)
        database.upsert(["a", "b"], np.eye(3)[:2], [{"x": "y" * 50}, {"x": 1}])
        database.compact()
    (path,) = folder.glob("db-*/shard-*/*/metadata")
    path.write_bytes(path.read_bytes().replace(b'{"x":"yy', b'{"x";"yy'))
    with jade.Store(folder, RealWorld(InlineCompute)) as store:
        database = store.database("d")
        item = database.get("a")
        assert item is not None
        with pytest.raises(JadeError) as caught:
            _ = item.metadata
        assert caught.value.code is ErrorCode.CORRUPT and caught.value.details["file"] == str(path)
        calls = [
            lambda: database.update_metadata("a", {"z": 1}),
            database.count,
            lambda: database.delete("b"),
        ]
        for call in calls:
            with pytest.raises(JadeError) as caught:
                call()
            assert caught.value.code is ErrorCode.CORRUPT and str(path) in str(caught.value)
