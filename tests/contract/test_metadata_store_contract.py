"""What every adapter of the metadata store port must do, as one suite. A new adapter adds itself to `opener`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.nats_cluster import NatsCluster
from tests.sim_adapters import Driver, driver, open_store

from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_KEY_BYTES_MAX
from jadevectordb.ports.metadata_store import MetadataStore, Record

Opener = Callable[[Path], MetadataStore]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsConnection]:
    with NatsCluster(tmp_path_factory.mktemp("nats")) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        yield connection
        connection.close()


@pytest.fixture
def sim() -> Iterator[Driver]:
    with driver() as made:
        yield made


@pytest.fixture(params=["sqlite", "kv", "sim"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "sqlite":
        return lambda folder: SqliteStore(folder / "meta.db")
    if request.param == "sim":
        made: Driver = request.getfixturevalue("sim")
        return lambda folder: open_store(made, folder)
    connection: NatsConnection = request.getfixturevalue("connection")
    return lambda folder: KvStore(connection, hashlib.md5(str(folder).encode()).hexdigest(), replicas=1)


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
        "",
        "/",
        "//a",
        "a/",
        "a//b",
        "a b\t.*.>=3D\r\n\0",
        "$KV.db",
        "=",
        "=/=",
        "x" * STORE_KEY_BYTES_MAX,
        "db/" + "ü" * ((STORE_KEY_BYTES_MAX - 3) // 2),
    ]
    for key in keys:
        store.compare_and_set(key, key.encode(), 0)
    assert list(store.list("db/")) == [
        "db/%_",
        "db/a",
        "db/b",
        "db/ü",
        "db/" + "ü" * ((STORE_KEY_BYTES_MAX - 3) // 2),
        "db/\U0010ffff",
    ]
    assert all(store.get(key) == record for key, record in store.list("").items())
    for prefix in [
        "",
        "/",
        "a/",
        "=",
        "$",
        "a b",
        "x",
        "d",
        "db",
        "db/",
        "db/%",
        "db/\U0010ffff",
        "e\ud7ff",
        "e",
        "\U0010ffff",
        "nothing",
    ]:
        assert list(store.list(prefix)) == sorted(key for key in keys if key.startswith(prefix)), prefix
    assert store.list("db/a")["db/a"].value == b"db/a"


@pytest.mark.parametrize("key", ["\ud800", "a" * (STORE_KEY_BYTES_MAX + 1), "ü" * (STORE_KEY_BYTES_MAX // 2 + 1)])
def test_a_key_that_cannot_be_is_refused(store: MetadataStore, key: str) -> None:
    calls = [
        lambda: store.get(key),
        lambda: store.list(key),
        lambda: store.compare_and_set(key, b"", 0),
        lambda: store.watch(key, lambda _key, _record: None),
    ]
    for call in calls:
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_record_deleted_is_created_again_by_expecting_nothing(store: MetadataStore) -> None:
    created = store.compare_and_set("a", b"one", 0)
    assert created is not None
    deleted = store.compare_and_set("a", None, created)
    assert deleted is not None and deleted > created
    assert store.compare_and_set("a", b"two", deleted) is None  # what is deleted has no revision to expect
    assert store.compare_and_set("a", b"two", created) is None
    again = store.compare_and_set("a", b"two", 0)
    assert again is not None and again > deleted
    assert store.list("") == {"a": Record(b"two", again)}


class Seen:
    """What a watch told."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Record | None]] = []
        self._grown = threading.Condition()

    def __call__(self, key: str, record: Record | None) -> None:
        with self._grown:
            self.changes.append((key, record))
            self._grown.notify_all()

    def wait_for(self, count: int) -> list[tuple[str, Record | None]]:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.changes) >= count, 60), self.changes
            return list(self.changes)


def test_a_watch_tells_each_later_change_in_order(store: MetadataStore) -> None:
    before = store.compare_and_set("w/before", b"", 0)
    assert before is not None
    seen, other = Seen(), Seen()
    watch = store.watch("w/", seen)
    store.watch("", other)
    expected: list[tuple[str, Record | None]] = []
    for n in range(20):
        revision = store.compare_and_set(f"w/{n}", b"%d" % n, 0)
        assert revision is not None
        expected.append((f"w/{n}", Record(b"%d" % n, revision)))
        assert store.compare_and_set(f"x/{n}", b"", 0) is not None
        assert store.compare_and_set(f"w/{n}", b"lost", revision + 1000) is None
    assert store.compare_and_set("w/before", None, before) is not None
    expected.append(("w/before", None))
    assert seen.wait_for(21) == expected
    assert len(other.wait_for(41)) == 41
    watch.close()
    watch.close()
    assert store.compare_and_set("w/after", b"", 0) is not None
    assert other.wait_for(42)[-1][0] == "w/after"
    assert len(seen.changes) == 21


def test_a_slow_handler_is_told_the_newest_of_each_record(store: MetadataStore) -> None:
    seen, may_go_on = Seen(), threading.Event()

    def handler(key: str, record: Record | None) -> None:
        may_go_on.wait()
        seen(key, record)

    store.watch("", handler)
    revision: int | None = store.compare_and_set("a", b"0", 0)
    for n in range(1, 30):
        assert revision is not None
        revision = store.compare_and_set("a", b"%d" % n, revision)
    last = store.compare_and_set("b", b"", 0)
    may_go_on.set()
    while seen.changes[-1:] != [("b", Record(b"", last or 0))]:
        seen.wait_for(len(seen.changes) + 1)
    told = [record.revision for key, record in seen.changes if key == "a" and record is not None]
    assert told == sorted(set(told)) and told[-1] == revision and len(seen.changes) <= 31


def test_a_handler_may_use_the_store_and_close_its_watch(store: MetadataStore) -> None:
    seen = Seen()

    def handler(key: str, record: Record | None) -> None:
        assert record is not None and store.get(key) == record
        assert list(store.list(key)) == [key]
        watch.close()
        seen(key, record)

    watch = store.watch("a", handler)
    assert store.compare_and_set("a1", b"x", 0) is not None
    seen.wait_for(1)
    assert store.compare_and_set("a2", b"x", 0) is not None
    assert [key for key, _record in seen.changes] == ["a1"]


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
