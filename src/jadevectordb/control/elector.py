"""A candidate at work: a thread that does with the metadata store what `Candidate` says, as long as the node runs.

Whoever acts as master asks `term` at each use. `on_gain` and `on_loss` only wake those who have something to begin or end: the
thread may be inside a call to a store that does not answer when the right runs out, and `on_loss` comes after that call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jadevectordb.control.election import LEASE_S, RENEW_S, Action, Candidate, Kind, Lease, Written
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore, Record, Watch
from jadevectordb.topology.cluster_map import LEASE_KEY

logger = logging.getLogger("jadevectordb.control")
STAND_BACK_S = 6.0  # after resigning: two leases
_RESIGN_S = 5.0
_WAIT_S_MAX = 60.0


def _nothing(_term: int) -> None:
    pass


class Elector:
    """Thread-safe. `start` once, `stop` at the end."""

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        node: str,
        incarnation: str,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        on_gain: Callable[[int], None] = _nothing,
        on_loss: Callable[[int], None] = _nothing,
    ) -> None:
        """on_gain, on_loss: called in the elector's thread with the term; must be brief. The store is the caller's to close."""
        self._store = store
        self._clock = clock
        self._candidate = Candidate(node, incarnation, lease_s=lease_s, renew_s=renew_s)
        self._on_gain = on_gain
        self._on_loss = on_loss
        self._changed = threading.Condition()  # guards the candidate and the fields below
        self._woken = False
        self._stopping = False
        self._trouble = ""
        self._told: int | None = None  # the term that on_gain was last called with; the thread only
        self._thread = threading.Thread(target=self._run, name="jade-elector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def term(self) -> int | None:
        """The term this node is master in at this moment, or None. Never remember it."""
        with self._changed:
            return self._candidate.term_if_leader(self._clock.monotonic_s())

    def leader(self) -> Lease | None:
        """Who is master as far as this node knows; None when nobody is, or nobody has been heard of for a lease."""
        with self._changed:
            return self._candidate.leader(self._clock.monotonic_s())

    @property
    def trouble(self) -> str:
        """Why the last call to the metadata store failed; "" when it did not."""
        with self._changed:
            return self._trouble

    def resign(self, stand_back_s: float = STAND_BACK_S, wait_s: float = _RESIGN_S) -> bool:
        """Hand over: no right from now on, the record released, so another takes it at once. Whether that was done in time.

        False also when this node holds no lease. After `stand_back_s` it is a candidate like the others again.
        """
        with self._changed:
            if not self._candidate.holds_record:
                return False
            self._candidate.resign(self._clock.monotonic_s(), stand_back_s)
            self._wake()
            return self._changed.wait_for(lambda: not self._candidate.holds_record, wait_s)

    def stop(self, wait_s: float = _RESIGN_S) -> None:
        """Hand over if there is something to hand over, and end. Again is fine."""
        if self._thread.is_alive():
            self.resign(float("inf"), wait_s)
        with self._changed:
            self._stopping = True
            self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        self._woken = True
        self._changed.notify_all()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        watch: Watch | None = None
        try:
            while True:
                if watch is None:
                    watch = self._watch()
                self._tell()
                with self._changed:
                    if self._stopping:
                        return
                    now_s = self._clock.monotonic_s()
                    action = self._candidate.step(now_s)
                    if action.kind is Kind.WAIT:
                        self._wait(action.until_s - now_s)
                        continue
                self._perform(action)
        finally:
            if watch is not None:
                watch.close()
            if self._told is not None:
                self._on_loss(self._told)

    def _wait(self, seconds: float) -> None:
        """Until something changed; with the lock held."""
        self._changed.wait_for(lambda: self._woken or self._stopping, min(max(seconds, 0.001), _WAIT_S_MAX))
        self._woken = False

    def _watch(self) -> Watch | None:
        """A watch is only faster than waiting for the lease to run out: without one the election still works."""
        try:
            return self._store.watch(LEASE_KEY, self._on_told)
        except JadeError as error:
            self._note(error)
            return None

    def _on_told(self, key: str, record: Record | None) -> None:
        if key != LEASE_KEY:
            return
        with self._changed:
            try:
                self._candidate.on_told(record, self._clock.monotonic_s())
            except JadeError as error:
                self._trouble = error.message
            self._wake()

    def _perform(self, action: Action) -> None:
        sent_s = self._clock.monotonic_s()
        if action.kind is Kind.READ:
            self._read()
            return
        try:
            written: Written = self._store.compare_and_set(LEASE_KEY, action.value, action.expected)
            trouble = ""
        except JadeError as error:
            if error.code is ErrorCode.CLOSED:
                self._end()
            written, trouble = "unknown", error.message
        with self._changed:
            self._trouble = trouble
            self._candidate.on_written(action, written, sent_s, self._clock.monotonic_s())
            self._changed.notify_all()  # those who wait in `resign`

    def _read(self) -> None:
        try:
            record = self._store.get(LEASE_KEY)
            with self._changed:
                self._candidate.on_read(record, self._clock.monotonic_s())
                self._trouble = ""
                self._changed.notify_all()
        except JadeError as error:
            if error.code is ErrorCode.CLOSED:
                self._end()
            self._note(error)
            with self._changed:
                self._candidate.on_read_failed(self._clock.monotonic_s())

    def _end(self) -> None:
        with self._changed:
            self._stopping = True

    def _note(self, error: JadeError) -> None:
        with self._changed:
            if self._trouble != error.message:
                logger.warning("the election goes on without the metadata store: %s", error.message)
            self._trouble = error.message

    def _tell(self) -> None:
        term = self.term()
        if term == self._told:
            return
        if self._told is not None:
            logger.warning("no longer master of term %d", self._told)
            self._on_loss(self._told)
        if term is not None:
            logger.info("master of term %d", term)
            self._on_gain(term)
        self._told = term
