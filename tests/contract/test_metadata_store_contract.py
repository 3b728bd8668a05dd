"""What every adapter of the metadata store port must do, as one suite. A new adapter adds a line to `ADAPTERS`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore, Record

Opener = Callable[[Path], MetadataStore]
ADAPTERS: dict[str, Opener] = {"sqlite": lambda folder: SqliteStore(folder / "meta.db")}


@pytest.fixture(params=ADAPTERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    return ADAPTERS[request.param]


@pytest.fixture
def store(opener: Opener, tmp_path: Path) -> Iterator[MetadataStore]:
    store = opener(tmp_path)
    yield store
    store.close()


def test_create_change_delete(store: MetadataStore) -> None:
    assert store.get("a") is None
    first = store.compare_and_set("a", b"one", 0)
    assert first is not None and first > 0
    assert store.get("a") == Record(b"one", first)
    assert store.compare_and_set("a", b"two", 0) is None  # exists
    assert store.compare_and_set("a", b"two", first + 1) is None
    second = store.compare_and_set("a", b"two", first)
    assert second is not None and second > first
    assert store.compare_and_set("a", None, first) is None
    assert store.get("a") == Record(b"two", second)
    third = store.compare_and_set("a", None, second)
    assert third is not None and third > second
    assert store.get("a") is None
    assert store.compare_and_set("b", b"", third) is None  # does not exist
    assert store.get("b") is None


def test_a_revision_is_never_used_again(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path)
    seen = []
    for _ in range(3):
        created = store.compare_and_set("a", b"x", 0)
        assert created is not None
        deleted = store.compare_and_set("a", None, created)
        seen += [created, deleted]
        store.close()
        store = opener(tmp_path)
    store.close()
    assert seen == sorted(set(seen))


def test_list_by_prefix_in_order(store: MetadataStore) -> None:
    keys = [
        "db/b",
        "db/a",
        "db",
        "dc/a",
        "DB/a",
        "db/%_",
        "db/ü",
        "db0",
        "db.",
        "db/\U0010ffff",
        "e\ud7ff/a",
        "e\ue000",
        "\U0010ffffz",
    ]
    for key in keys:
        store.compare_and_set(key, key.encode(), 0)
    assert list(store.list("db/")) == ["db/%_", "db/a", "db/b", "db/ü", "db/\U0010ffff"]
    for prefix in ["", "d", "db", "db/", "db/%", "db/\U0010ffff", "e\ud7ff", "e", "\U0010ffff", "nothing"]:
        assert list(store.list(prefix)) == sorted(key for key in keys if key.startswith(prefix)), prefix
    assert store.list("db/a")["db/a"].value == b"db/a"


def test_reopening_finds_everything(opener: Opener, tmp_path: Path) -> None:
    store = opener(tmp_path)
    store.compare_and_set("a", bytes(range(256)) * 400, 0)
    before = store.list("")
    store.close()
    store = opener(tmp_path)
    assert store.list("") == before
    store.close()


def test_threads_racing_for_one_record_win_once_each(store: MetadataStore) -> None:
    store.compare_and_set("n", b"0", 0)

    def add() -> None:
        done = 0
        while done < 10:
            record = store.get("n")
            assert record is not None
            done += store.compare_and_set("n", b"%d" % (int(record.value) + 1), record.revision) is not None

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = store.get("n")
    assert record is not None and record.value == b"40"


RACER = """
import sys
from pathlib import Path
from jadevectordb.adapters.sqlite_store import SqliteStore
store = SqliteStore(Path(sys.argv[1]) / "meta.db")
print("ready", flush=True)
sys.stdin.readline()
done = 0
while done < 15:
    record = store.get("n")
    done += store.compare_and_set("n", b"%d" % (int(record.value) + 1), record.revision) is not None
store.close()
"""


def test_processes_racing_for_one_record_win_once_each(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "meta.db")
    store.compare_and_set("n", b"0", 0)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    record = store.get("n")
    assert record is not None and record.value == b"45"
    store.close()


def test_after_close_nothing_but_closing_again(store: MetadataStore) -> None:
    store.close()
    store.close()
    for call in (lambda: store.get("a"), lambda: store.list(""), lambda: store.compare_and_set("a", b"", 0)):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.CLOSED


KEYS = st.sampled_from(["a", "b", "b/c", ""])


class AgainstADict(RuleBasedStateMachine):
    """The store and a dict are told the same and must say the same."""

    opener: Opener
    folders: Iterator[Path]

    @initialize()
    def start(self) -> None:
        self.folder = next(self.folders)
        self.store = type(self).opener(self.folder)
        self.oracle: dict[str, Record] = {}
        self.newest = 0

    @rule(key=KEYS, value=st.none() | st.binary(max_size=30), stale=st.booleans())
    def change(self, key: str, value: bytes | None, stale: bool) -> None:
        current = self.oracle[key].revision if key in self.oracle else 0
        revision = self.store.compare_and_set(key, value, current + stale)
        if stale:
            assert revision is None
            return
        assert revision is not None and revision > self.newest
        self.newest = revision
        if value is None:
            self.oracle.pop(key, None)
        else:
            self.oracle[key] = Record(value, revision)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = type(self).opener(self.folder)

    @rule(prefix=KEYS)
    def look(self, prefix: str) -> None:
        assert self.store.list(prefix) == {k: v for k, v in self.oracle.items() if k.startswith(prefix)}
        assert self.store.get(prefix) == self.oracle.get(prefix)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "store"):
            assert self.store.list("") == self.oracle

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def test_against_a_dict(opener: Opener, tmp_path: Path) -> None:
    def folders() -> Iterator[Path]:
        for n in range(10**6):
            path = tmp_path / str(n)
            path.mkdir()
            yield path

    machine = type("Machine", (AgainstADict,), {"opener": staticmethod(opener), "folders": folders()})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
