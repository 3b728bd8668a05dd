"""The openings of one database, one after the other: which one is in use now, and how the next one takes its place.

Altering a database closes it and opens it with another configuration. Readers go on with the opening they have, writers wait, and
long waits that were cut off by it begin again on the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jadevectordb.gateway.embedded.alteration import check_before, prepare
from jadevectordb.gateway.embedded.opening import Opening
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.readable import ReadableDatabase
from jadevectordb.query.writer import WriteGate


class Openings:
    """Every method may be called from many threads at once, `reopen` and `close` by the store alone."""

    def __init__(self, opened: ReadableDatabase, node: NodeId) -> None:
        self.current: Opening | None = Opening(opened, node)  # None once it was closed for good
        self.config = opened.config
        self.altering = threading.Lock()  # one alteration at a time
        self.gate = WriteGate()  # writers pass together; altering the database passes alone
        self._node = node

    def now(self) -> Opening:
        """Raises CLOSED, and CORRUPT when damage was found in its files."""
        opening = self.current
        if opening is None:
            raise JadeError(ErrorCode.CLOSED, f"Database {self.config.name!r} is closed: open its store again.")
        if opening.readable.damage is not None:
            raise opening.readable.damage
        return opening

    @contextmanager
    def writing(self) -> Iterator[Opening]:
        """The opening to write to: it stays until the block ends. Waits for an alteration that is under way."""
        with self.gate.shared():
            yield self.now()

    # Work that takes long

    def seal(self, *, compact: bool) -> None:
        """Ask for what is growing to be sealed. compact: and every shard merged into one segment, whether settled or not."""
        with self.writing() as opening:
            if compact or not all(replica.is_settled for replica in opening.database.replicas):
                opening.writer.seal(compact=compact)

    def wait_settled(self, limit_s: float | None) -> None:
        """Until background work has nothing to do. Raises TIMEOUT after limit_s seconds, and what keeps it from going on."""
        clock = self.now().database.clock
        until = None if limit_s is None else clock.monotonic_s() + limit_s
        while True:
            opening = self.now()
            try:
                left = None if until is None else until - clock.monotonic_s()
                return opening.database.maintenance.wait_settled(left)
            except JadeError as error:
                if error.code is not ErrorCode.CLOSED or not self._was_altered_since(opening):
                    raise

    def verify(self) -> None:
        """Read every file and compare checksums. Raises CORRUPT."""
        while True:
            opening = self.now()
            try:
                return opening.database.verify()
            except JadeError:
                if not self._was_altered_since(opening):
                    raise

    def _was_altered_since(self, opening: Opening) -> bool:
        """Whether another opening has taken the place of this one; waits for an alteration that is under way."""
        with self.gate.shared():
            return self.current is not None and self.current is not opening

    # From one to the next

    def alter(self, wanted: DatabaseConfig, swap: Callable[[], None]) -> None:
        """Go over to another configuration. swap: writes it to the catalog, and calls `reopen`.

        The caller holds `altering`.
        """
        checked = check_before(self.now(), wanted)
        with self.gate.alone():
            prepare(self.now(), wanted, checked)
            swap()

    def reopen(self, open_again: Callable[[], OpenDatabase]) -> None:
        """Close what is open and take what `open_again` returns in its place; what was open stays readable until then."""
        assert self.current is not None
        self.current.database.close()
        opened = open_again()
        self.current, self.config = Opening(opened, self._node), opened.config

    def close(self) -> None:
        """Again is fine."""
        opening, self.current = self.current, None
        if opening is not None:
            opening.database.close()
