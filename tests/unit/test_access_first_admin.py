"""The first admin, when all nodes of a cluster start at the same moment with the same configured password."""

from __future__ import annotations

from pathlib import Path

from tests.access_world import CHEAP, PASSWORD, MovedClock

from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.access.access import Access, AccessSettings
from jadevectordb.ports.metadata_store import Record, Watch


class LateStore:
    """A store whose reads of accounts and names lag behind its writes, as those of another node's mirror do.

    They catch up some looks after a write was refused.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._seen = store.list("")
        self.refused = False
        self._looks_left = 4

    def _look(self) -> None:
        self._looks_left -= self.refused
        if not self._looks_left:
            self._seen = self._store.list("")

    def get(self, key: str) -> Record | None:
        self._look()
        return self._seen.get(key)

    def list(self, prefix: str) -> dict[str, Record]:
        self._look()
        return {key: record for key, record in self._seen.items() if key.startswith(prefix)}

    def compare_and_set(self, key: str, value: bytes | None, revision: int) -> int | None:
        done = self._store.compare_and_set(key, value, revision)
        self.refused = self.refused or done is None
        return done

    def watch(self, prefix: str, changed: object) -> Watch:
        raise AssertionError("not needed here")

    def close(self) -> None:
        self._store.close()


def test_a_node_that_comes_second_takes_the_admin_that_another_made(tmp_path: Path) -> None:
    first, store = SqliteStore(tmp_path / "accounts.sqlite"), LateStore(SqliteStore(tmp_path / "accounts.sqlite"))
    settings = AccessSettings(admin_password=PASSWORD, hash_cost=CHEAP)
    events = [SqliteEvents(tmp_path / f"audit{n}.sqlite") for n in range(2)]
    made = Access(first, events[0], MovedClock(), settings)
    other = Access(store, events[1], MovedClock(), settings)
    assert store.refused, "the name was taken, and nothing was to be seen of it yet"
    assert other.setup_token is None and [a.username for a in other.accounts.list()] == ["admin"]
    for access in (made, other):
        access.close()
    for one in events:
        one.close()
    first.close()
    store.close()
