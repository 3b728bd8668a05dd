"""A snapshot is copied whole and checked, taken up where it was left, refused when a byte is wrong, and removed when idle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.transport_world import Scripted, answering, asking

import jadevectordb
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import SNAPSHOT_IDLE_S_MAX, SNAPSHOTS_OFFERED_MAX
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.snapshot_copy import copy_snapshot
from jadevectordb.node.snapshot_shelf import SnapshotShelf
from jadevectordb.ports.node_calls import SnapshotBegin, SnapshotEnd, SnapshotOffer, SnapshotRead


class HandClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def database(tmp_path: Path) -> Iterator[OpenDatabase]:
    """One with several megabytes in sealed segments."""
    with jadevectordb.open(tmp_path / "store") as store:
        made = store.create_database("d", dimension=256, shards=1, index="FLAT")
        rng = np.random.default_rng(5)
        made.upsert([f"v{n}" for n in range(6000)], rng.standard_normal((6000, 256), dtype=np.float32))
        made.wait_indexed(60)
        yield made._use()


def answers(shelf: SnapshotShelf, database: OpenDatabase) -> Callable[[object], object]:
    def answer(call: object) -> object:
        match call:
            case SnapshotBegin():
                return shelf.begin(database)
            case SnapshotRead():
                return shelf.read(call.snapshot, call.path, call.offset, call.length)
            case SnapshotEnd():
                shelf.end(call.snapshot)
                return b""
        raise AssertionError(call)

    return answer


def shelf_at(folder: Path, clock: HandClock | None = None) -> SnapshotShelf:
    names = map(str, itertools.count())
    return SnapshotShelf(folder, clock or HandClock(), lambda: next(names))


@contextmanager
def offered(answer: Callable[[object], object]) -> Iterator[Callable[..., int]]:
    """A node that answers so; what is yielded copies from it into a folder."""
    scripted = Scripted()
    scripted.at_once = answer
    with answering(scripted) as server, asking() as transport:

        def copy(target: Path, applied_min: int = 0, check_wanted: Callable[[], None] = lambda: None) -> int:
            target.mkdir(exist_ok=True)
            return copy_snapshot(
                transport, server.address, "d", 0, target, applied_min=applied_min, check_wanted=check_wanted
            )

        yield copy


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_the_same_files_and_is_not_made_twice(database: OpenDatabase, tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path / "snapshots")
    reads: list[SnapshotRead] = []
    inner = answers(shelf, database)

    def answer(call: object) -> object:
        if isinstance(call, SnapshotRead):
            reads.append(call)
        return inner(call)

    with offered(answer) as copy:
        applied = copy(tmp_path / "copy")
        assert applied == database.view.shards[0].watermark
        found = files_of(tmp_path / "copy")
        assert found == {name: data for name, data in files_of(database.directory).items() if name.startswith("shard-")}
        assert sum(map(len, found.values())) > 6 << 20 and len(reads) >= 6
        reads.clear()
        (tmp_path / "copy" / "shard-0000" / "old").mkdir()
        (tmp_path / "copy" / "shard-0000" / "old" / "left over").write_bytes(b"x")
        largest = max(found, key=lambda name: len(found[name]))
        (tmp_path / "copy" / largest).write_bytes(bytes(len(found[largest])))
        copy(tmp_path / "copy")
        assert files_of(tmp_path / "copy") == found
        assert {read.path for read in reads} == {largest}, "only what was wrong is read again"
        with pytest.raises(JadeError) as raised:
            copy(tmp_path / "newer", applied_min=applied + 1)
        assert raised.value.code is ErrorCode.UNAVAILABLE
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_byte_that_is_wrong_at_the_source_or_on_the_way_is_refused(database: OpenDatabase, tmp_path: Path) -> None:
    inner = answers(shelf_at(tmp_path / "snapshots"), database)

    def flipped(call: object) -> object:
        result = inner(call)
        if isinstance(call, SnapshotRead) and call.path.endswith("/vectors") and call.offset > 0:
            assert isinstance(result, bytes)
            return bytes([result[0] ^ 1]) + result[1:]
        return result

    def short(call: object) -> object:
        result = inner(call)
        return result[:-1] if isinstance(result, bytes) and result else result

    for wrong in (flipped, short):
        with offered(wrong) as copy, pytest.raises(JadeError) as raised:
            copy(tmp_path / wrong.__name__)
        assert raised.value.code is ErrorCode.CORRUPT
    (vectors, *_) = database.directory.glob("shard-0000/*/vectors")
    data = bytearray(vectors.read_bytes())
    data[77] ^= 4
    with vectors.open("r+b") as file:
        file.write(data)
    with offered(inner) as copy, pytest.raises(JadeError) as raised:
        copy(tmp_path / "damaged")
    assert raised.value.code is ErrorCode.CORRUPT
    data[77] ^= 4
    with vectors.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "shard-0000/../../outside", ""])
def test_a_file_outside_the_folder_is_never_written(tmp_path: Path, path: str) -> None:
    def answer(call: object) -> object:
        if isinstance(call, SnapshotBegin):
            return SnapshotOffer(snapshot="s", applied=1, files=[(path, 1, "0" * 16)])
        return b"x"

    with offered(answer) as copy, pytest.raises(JadeError) as raised:
        copy(tmp_path / "copy")
    assert raised.value.code is ErrorCode.CORRUPT
    assert not (tmp_path / "outside").exists()


def test_a_copy_that_is_wanted_no_more_ends(database: OpenDatabase, tmp_path: Path) -> None:
    def refuse() -> None:
        raise JadeError(ErrorCode.CLOSED, "not wanted")

    with offered(answers(shelf_at(tmp_path / "snapshots"), database)) as copy, pytest.raises(JadeError) as raised:
        copy(tmp_path / "copy", check_wanted=refuse)
    assert raised.value.code is ErrorCode.CLOSED
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_few_snapshots_are_kept_and_idle_ones_make_room(database: OpenDatabase, tmp_path: Path) -> None:
    clock = HandClock()
    (tmp_path / "snapshots" / "from before").mkdir(parents=True)
    shelf = shelf_at(tmp_path / "snapshots", clock)
    assert not (tmp_path / "snapshots").exists()
    offers = [shelf.begin(database) for _ in range(SNAPSHOTS_OFFERED_MAX)]
    with pytest.raises(JadeError) as raised:
        shelf.begin(database)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    clock.now_s += SNAPSHOT_IDLE_S_MAX
    path, size, _ = offers[0].files[0]
    assert len(shelf.read(offers[0].snapshot, path, 0, size)) == size
    for bad in ("../checkpoint", path + "x"):
        with pytest.raises(JadeError) as raised:
            shelf.read(offers[0].snapshot, bad, 0, 1)
        assert raised.value.code is ErrorCode.NOT_FOUND
    clock.now_s += 1
    shelf.sweep()
    assert [folder.name for folder in (tmp_path / "snapshots").iterdir()] == [offers[0].snapshot]
    shelf.close()
    with pytest.raises(JadeError) as raised:
        shelf.read(offers[0].snapshot, path, 0, size)
    assert raised.value.code is ErrorCode.NOT_FOUND
