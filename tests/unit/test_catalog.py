"""The catalog when something goes wrong half-way, and when two want the same at once: crashes between its two steps, databases
that go while they are used, names that both would have.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.names_world import Killed, Steps, die
from tests.rpc_world import services

from jadevectordb.gateway.access.principals import ANONYMOUS, Principal
from jadevectordb.gateway.service.catalog import Catalog, DatabaseRecord
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import Schema

SOMEBODY = Principal("somebody", "somebody", ("developer",), kind="session")
STRANGER = Principal("stranger", "stranger", ("developer",), kind="session")
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
        opened._openings.close()
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
        entries[0].handle._openings.close()
        built.store.close()
        with pytest.raises(JadeError) as caught:
            catalog.of_each(entries, lambda entry: entry.handle.count())
        assert caught.value.code is ErrorCode.CLOSED


# Names that no two databases may have


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each returned, or the code of the error that it raised, after all began together."""
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        start.wait()
        try:
            results[place] = calls[place]()
        except JadeError as error:
            results[place] = error.code

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("engine", [{}, {"schema": {"year": "integer"}}], ids=["the name only", "the schema too"])
def test_of_two_renames_to_one_name_one_wins(tmp_path: Path, engine: dict[str, Any]) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        for turn in range(20):
            one, two = (catalog.create(f"{side}{turn}", 2, "somebody") for side in ("one", "two"))
            wanted = f"wanted{turn}"
            results = at_once(
                lambda one=one, wanted=wanted: catalog.alter(one.id, engine, unique=True, name=wanted),
                lambda two=two, wanted=wanted: catalog.alter(two.id, engine, unique=True, name=wanted),
            )
            (loser,) = (at for at, result in enumerate(results) if result is ErrorCode.ALREADY_EXISTS)
            assert [e.record.name for e in catalog.every()] == [
                f"{side}{turn}" if at == loser else wanted for at, side in enumerate(("one", "two"))
            ]
            for entry in (one, two):
                catalog.drop(entry.id)


class Meanwhile(dict[str, Any]):
    """A schema that does something just when the engine reads it."""

    def __init__(self, schema: dict[str, Any], do: Callable[[], object]) -> None:
        super().__init__(schema)
        self._do = do

    def items(self) -> Any:
        self._do()
        return super().items()


def test_a_name_that_is_taken_while_the_engine_changes_is_refused(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        one, two = catalog.create("one", 2, "somebody"), catalog.create("two", 2, "somebody")
        schema = Meanwhile({"year": "integer"}, lambda: catalog.update(two.id, unique=True, name="wanted"))
        with pytest.raises(JadeError) as caught:
            catalog.alter(one.id, {"schema": schema}, unique=True, name="wanted")
        assert caught.value.code is ErrorCode.ALREADY_EXISTS
        assert {e.record.name for e in catalog.every()} == {"one", "wanted"}


def test_of_two_creations_that_take_what_exists_one_makes_it(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        for turn in range(20):
            (one, one_made), (two, two_made) = at_once(
                *[lambda turn=turn: catalog.create_unique(f"d{turn}", 2, SOMEBODY, exist_ok=True)] * 2
            )
            assert one.id == two.id and one_made != two_made


def test_what_exists_is_taken_only_when_it_is_as_wanted_and_visible(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        options = {"shards": 2, "schema": Schema(), "text_language": "english"}
        made, _ = catalog.create_unique("d", 2, SOMEBODY, **options)
        assert catalog.create_unique("d", 2, SOMEBODY, exist_ok=True, **options) == (made, False)

        def refused(name: str = "d", principal: Principal = SOMEBODY, **changes: Any) -> JadeError:
            with pytest.raises(JadeError) as caught:
                catalog.create_unique(name, 2, principal, exist_ok=True, **{**options, **changes})
            assert caught.value.code is ErrorCode.ALREADY_EXISTS
            return caught.value

        assert refused(shards=1, text_language="german").details == {"different": ["shards", "text_language"]}
        for hidden in (refused(principal=STRANGER, shards=1), refused(principal=ANONYMOUS), refused(name=made.id)):
            assert "other settings" not in hidden.message and "different" not in hidden.details
        catalog.create("d", 2, "somebody", shards=2)
        assert "several of them" in refused().message


# One change


def test_the_engine_and_the_record_change_in_one_step(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        entry = catalog.create("d", 2, "somebody")
        seen: list[tuple[str, str]] = []
        catalog.on_publish = lambda: seen.extend((e.record.name, str(e.handle.config.index)) for e in catalog.every())
        catalog.alter(entry.id, {"index": "FLAT"}, name="e")
        assert seen == [("e", "FLAT")]


def test_the_engine_stays_when_the_record_cannot_be_changed_so(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        catalog = built.catalog
        entry = catalog.create("d", 2, "somebody", index="HNSW")
        catalog.create("e", 2, "somebody")
        for name, code in (("", ErrorCode.INVALID_ARGUMENT), ("e", ErrorCode.ALREADY_EXISTS)):
            with pytest.raises(JadeError) as caught:
                catalog.alter(entry.id, {"index": "FLAT"}, unique=True, name=name)
            assert caught.value.code is code and entry.handle.config.index == "HNSW"
        assert catalog.alter(entry.id, {}, unique=True, name="d").record.name == "d"
        assert catalog.alter(entry.id, {}, name="e").record.name == "e"


def two_catalogs(built: Services, pending_s: float = 35.0) -> list[Catalog]:
    """Of two gateways over one metadata store, which do not know of each other's databases."""
    made = []
    for _ in range(2):
        catalog = Catalog(built.store, built.metadata, built.clock, lambda operation, principal, record: None)
        catalog._names._pending_s = pending_s
        made.append(catalog)
    return made


def test_gateways_that_create_one_name_at_the_same_moment_make_one_database(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        for turn in range(4):
            one, two = two_catalogs(built)
            results = at_once(
                *(lambda c=c, turn=turn: c.create_unique(f"same{turn}", 2, SOMEBODY)[0].id for c in (one, two))
            )
            (made,) = (result for result in results if result is not ErrorCode.ALREADY_EXISTS)
            assert set(built.store.databases()) == {made} and records(built) == {f"database/{made}"}
            (winner,) = (catalog for catalog in (one, two) if catalog.find(made) is not None)
            winner.drop(made)
            assert built.metadata.list("database-name/") == {}


def test_gateways_that_rename_to_one_name_give_it_to_one(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        ids = [built.catalog.create(name, 2, "somebody").id for name in ("one", "two")]
        gateways = two_catalogs(built)
        results = at_once(
            *(lambda c=c, i=i: c.update(i, unique=True, name="wanted") for c, i in zip(gateways, ids, strict=True))
        )
        assert results.count(ErrorCode.ALREADY_EXISTS) == 1
        names = [msgspec.json.decode(r.value)["name"] for r in built.metadata.list("database/").values()]
        assert names.count("wanted") == 1
        loser = results.index(ErrorCode.ALREADY_EXISTS)
        assert gateways[loser].update(ids[loser], unique=True, name="another").record.name == "another"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("doing", ["create", "rename", "drop"])
def test_a_gateway_killed_at_any_step_leaves_the_name_borne_once_or_free(
    tmp_path: Path, doing: str, after: bool
) -> None:
    with services(tmp_path) as built:
        for at in itertools.count():
            entry, _ = built.catalog.create_unique("bob", 2, SOMEBODY)
            steps = Steps(built.metadata, at, die, after=after)
            killed = Catalog(built.store, steps, built.clock, lambda operation, principal, record: None)
            try:
                if doing == "create":
                    killed.create_unique("wanted", 2, SOMEBODY)
                elif doing == "rename":
                    killed.update(entry.id, unique=True, name="wanted")
                else:
                    killed.drop(entry.id)
            except Killed:
                died = True
            else:
                died = False
            other = two_catalogs(built, pending_s=0.0)[0]  # as the next gateway that starts
            for name in ("wanted", "bob"):
                if all(e.record.name != name for e in other.every()):
                    other.create_unique(name, 2, SOMEBODY)  # free, now
                else:
                    with pytest.raises(JadeError, check=lambda error: error.code is ErrorCode.ALREADY_EXISTS):
                        two_catalogs(built)[1].create_unique(name, 2, SOMEBODY)
            assert sorted(e.record.name for e in other.every()) == ["bob", "wanted"]
            assert len(built.metadata.list("database-name/")) == 2
            for left in other.every():
                other.drop(left.id)
            assert records(built) == set() and built.metadata.list("database-name/") == {}
            built.catalog._publish({})
            if not died:
                assert at >= 1
                break


def test_a_creation_whose_name_was_given_to_another_leaves_nothing(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        for at in itertools.count():
            ids: list[str] = []

            def meanwhile(ids: list[str] = ids) -> None:
                rival = two_catalogs(built, pending_s=0.0)[1]
                with contextlib.suppress(JadeError):
                    ids.append(rival.create_unique("wanted", 2, SOMEBODY)[0].id)

            steps = Steps(built.metadata, at, meanwhile)
            slow = Catalog(built.store, steps, built.clock, lambda operation, principal, record: None)
            with contextlib.suppress(JadeError):
                ids.append(slow.create_unique("wanted", 2, SOMEBODY)[0].id)
            (made,) = ids
            assert built.store.databases() == [made] and records(built) == {f"database/{made}"}
            two_catalogs(built)[0].drop(made)
            if steps.changes <= at:
                return


def test_a_database_whose_maker_died_at_the_last_step_is_whole_after_a_restart(tmp_path: Path) -> None:
    with services(tmp_path) as built:
        entry, _ = built.catalog.create_unique("whole", 2, SOMEBODY)
        half = msgspec.structs.replace(entry.record, claiming="whole", is_new=True)
        assert built.metadata.compare_and_set(f"database/{entry.id}", msgspec.json.encode(half), entry.revision)
    with services(tmp_path) as built:
        again, was_made = built.catalog.create_unique("whole", 2, SOMEBODY, exist_ok=True)
        assert not was_made and again.record == entry.record
