"""A folder stays with its cluster, and a name with one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.membership import FILE_NAME, ClusterIdentity, folder_identity, join, register
from jadevectordb.topology.cluster_map import BEAT_PREFIX, NODE_PREFIX, Heartbeat, NodeRecord


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "meta.db")
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def joined(
    store: SqliteStore, folder: Path, node: str = "n1", name: str = "jade", new_id: str = "c1"
) -> ClusterIdentity:
    return join(
        store, folder, folder_identity(folder, node), node=node, name=name, new_id=lambda: new_id, clock=SystemClock(),
        write_atomically=write_file_atomically,
    )  # fmt: skip


def test_the_first_node_makes_the_cluster_and_the_others_join_it(
    store: SqliteStore, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert joined(store, folder).cluster_id == "c1"
    assert joined(store, other, "n2", new_id="c2").cluster_id == "c1"
    assert joined(store, folder, new_id="c3").cluster_id == "c1"  # started again


def test_a_folder_of_another_cluster_is_refused_and_left_alone(
    store: SqliteStore, folder: Path, tmp_path: Path
) -> None:
    joined(store, folder)
    before = (folder / FILE_NAME).read_bytes()
    elsewhere = SqliteStore(tmp_path / "elsewhere.db")
    for meets in ("an empty store", "another cluster"):
        with pytest.raises(JadeError, match="belongs to cluster c1") as caught:
            joined(elsewhere, folder, new_id="c9")
        assert caught.value.code is ErrorCode.CONFLICT, meets
        assert (folder / FILE_NAME).read_bytes() == before
        (tmp_path / "x").mkdir(exist_ok=True)
        joined(elsewhere, tmp_path / "x", new_id="c9")
    elsewhere.close()


def test_another_name_for_node_or_cluster_is_refused(store: SqliteStore, folder: Path, tmp_path: Path) -> None:
    joined(store, folder)
    with pytest.raises(JadeError, match="start it with --node-id n1"):
        joined(store, folder, "n2")
    with pytest.raises(JadeError, match="is named 'jade'"):
        joined(store, folder, name="emerald")


@pytest.mark.parametrize("text", ["", "{", '{"cluster_id": 3}'])
def test_an_identity_that_cannot_be_read_says_what_to_do(folder: Path, text: str) -> None:
    (folder / FILE_NAME).write_text(text)
    with pytest.raises(JadeError, match="can't be read") as caught:
        folder_identity(folder, "n1")
    assert caught.value.code is ErrorCode.CORRUPT


def test_a_format_of_a_newer_program_is_refused(folder: Path) -> None:
    (folder / FILE_NAME).write_text('{"cluster_id": "c1", "node_id": "n1", "format": 99}')
    with pytest.raises(JadeError) as caught:
        folder_identity(folder, "n1")
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW


def record(incarnation: str, peer: str) -> NodeRecord:
    return NodeRecord(id="n1", incarnation=incarnation, peer=peer)


def beat(store: SqliteStore, number: int) -> None:
    found = store.get(BEAT_PREFIX + "n1")
    value = msgspec.json.encode(Heartbeat("n1", "i1", number))
    assert store.compare_and_set(BEAT_PREFIX + "n1", value, 0 if found is None else found.revision)


def registered(store: SqliteStore) -> NodeRecord:
    found = store.get(NODE_PREFIX + "n1")
    assert found is not None
    return msgspec.json.decode(found.value, type=NodeRecord)


def test_two_living_nodes_of_one_name_are_refused(store: SqliteStore) -> None:
    clock, beats = SystemClock(), iter(range(2, 10_000))
    register(store, record("i1", "a:1"), clock, lambda _: None, 0.0)
    beat(store, 1)
    with pytest.raises(JadeError, match="runs already, at a:1"):
        register(store, record("i2", "b:1"), clock, lambda _: beat(store, next(beats)), 60.0)
    assert registered(store).incarnation == "i1"


def test_a_node_comes_back_at_its_own_address_or_elsewhere_when_it_was_silent(store: SqliteStore) -> None:
    clock = SystemClock()
    register(store, record("i1", "a:1"), clock, lambda _: None, 0.0)
    beat(store, 1)
    register(store, record("i2", "a:1"), clock, lambda _: pytest.fail("it need not wait"), 60.0)
    register(store, record("i3", "b:1"), clock, lambda _: None, 0.05)
    assert registered(store).incarnation == "i3"


def test_a_node_that_is_being_drained_stays_so(store: SqliteStore) -> None:
    clock = SystemClock()
    register(store, msgspec.structs.replace(record("i1", "a:1"), draining=True), clock, lambda _: None, 0.0)
    register(store, record("i2", "a:1"), clock, lambda _: None, 0.0)
    assert registered(store).draining
