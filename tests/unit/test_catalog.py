"""The catalog when something goes wrong half-way: crashes between its two steps, databases that go while they are used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.rpc_world import services

from jadevectordb.gateway.service.catalog import DatabaseRecord
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

CLOSED = JadeError(ErrorCode.CLOSED, "closed")


def records(built: Services) -> set[str]:
    return set(built.metadata.list("database/"))


def test_the_record_of_a_database_that_was_never_made_goes_with_the_next_start(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        entry = built.catalog.create("whole", 2, "somebody")
        half = msgspec.json.encode(DatabaseRecord(id="db_half", name="half", owner="somebody"))
        assert built.metadata.compare_and_set("database/db_half", half, 0)
    with services(tmp_path) as built:
        assert records(built) == {f"database/{entry.id}"}
        assert [e.record.name for e in built.catalog.every()] == ["whole"]


def test_what_cannot_be_made_leaves_no_record(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        with pytest.raises(JadeError):
            built.catalog.create("d", 2, "somebody", metric="nonsense")
        assert records(built) == set() and built.catalog.every() == []


def test_an_operation_on_a_database_that_was_dropped_meanwhile_found_none(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        entry = catalog.create("d", 2, "somebody")
        catalog.drop(entry.id)
        with pytest.raises(JadeError) as caught:
            entry.handle.count()
        assert catalog.explain(caught.value, entry).code is ErrorCode.UNKNOWN_DATABASE
        other = JadeError(ErrorCode.DISK_FULL, "full")
        assert catalog.explain(other, entry) is other and catalog.explain(CLOSED, None) is CLOSED


def test_a_handle_that_was_closed_under_the_catalog_is_replaced(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        entry = catalog.create("d", 2, "somebody")
        entry.handle.upsert(["a"], [[1.0, 0.0]])
        opened = built.store._open.pop(entry.id)  # as altering leaves it when neither form could be opened
        opened._close()
        assert catalog.explain(CLOSED, entry).retryable
        again = catalog.find(entry.id)
        assert again is not None and again.handle.count() == 1


def test_when_the_store_is_closed_the_error_stays(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        entry = built.catalog.create("d", 2, "somebody")
        built.store.close()
        assert built.catalog.explain(CLOSED, entry).code is ErrorCode.CLOSED


def test_a_look_at_all_leaves_out_what_was_dropped_meanwhile(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        entries = [catalog.create(name, 2, "somebody") for name in "abc"]
        catalog.drop(entries[1].id)
        assert catalog.of_each(entries, lambda entry: entry.handle.count()) == [0, 0]
        entries[0].handle._close()
        built.store.close()
        with pytest.raises(JadeError) as caught:
            catalog.of_each(entries, lambda entry: entry.handle.count())
        assert caught.value.code is ErrorCode.CLOSED
