"""Who is master: one lease record in the metadata store, changed by compare-and-set, and nothing else.

No clock is compared with another. The holder renews the record; who watches it waits, by its own monotonic clock, until it has
not changed for a whole lease, and then replaces it with a record of the next term. The holder counts its right from the moment
it *sent* a renewal that succeeded, and only for two thirds of a lease: so it stops before anybody else begins, if the clocks
of two nodes run at speeds within 3:2 of each other. A node that was paused, or whose renewal took long, finds its deadline
passed at the moment it asks; `term_if_leader` must therefore be asked at each use, never remembered.

    holder    sent ──────────── 2/3 lease ┤ no right any more
    store          ↓ renewed
    watcher           saw ─────────────── lease ───────────────┤ takes over: term + 1

Invariants:
- Terms strictly grow from one holder to the next, because the record is never deleted and the new term is the one read + 1.
- A write whose outcome is unknown gives no right. The record is read again; if it is ours, only a renewal sent after that counts.
- A node that was started again is another candidate (another incarnation): it waits like everybody else.

`Candidate` does no I/O: `step` says what to do next, `on_read` and `on_written` tell it what came of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record

LEASE_S: Final = 3.0
RENEW_S: Final = 1.0
_RETRY_S = 0.2  # after a call to the store that failed
_REFUSED_S = (
    0.05  # and after a write that came too late: the server that answers reads may be behind the one that refused
)
_NEVER = float("-inf")


class Lease(msgspec.Struct, frozen=True):
    """holder: a node, "" = released: anybody may take it. incarnation: of the holder's process. term: grows with each holder."""

    holder: str
    incarnation: str
    term: int
    renewals: int = 0


def decode_lease(value: bytes) -> Lease:
    """Raises CORRUPT."""
    try:
        return msgspec.json.decode(value, type=Lease)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"the record of the master's lease cannot be read ({error}); no master can be elected until it is restored",
        ) from error


class Kind(StrEnum):
    READ = "read"
    CREATE = "create"
    RENEW = "renew"
    TAKE_OVER = "take over"
    RELEASE = "release"
    WAIT = "wait"


Written: TypeAlias = int | Literal["unknown"] | None  # the new revision; None: refused; "unknown": it may yet happen


@dataclass(frozen=True, slots=True)
class Action:
    """What to do. value, expected: of a compare-and-set. until_s: of WAIT: look again then, or when the record changes."""

    kind: Kind
    reason: str
    value: bytes = b""
    expected: int = 0
    until_s: float = 0.0


class Candidate:
    """One node's part in the election. Not thread-safe."""

    def __init__(self, node: str, incarnation: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        assert node and incarnation and 0 < renew_s < lease_s * 2 / 3
        self.node = node
        self.incarnation = incarnation
        self.lease_s = lease_s
        self.renew_s = renew_s
        self._lease: Lease | None = None  # as last seen; None: never read, or not there
        self._revision = 0  # of that record
        self._changed_s = _NEVER  # when it was first seen to have that revision
        self._must_read = True
        self._highest_term = 0
        self._right_until_s = _NEVER  # master until then; sent + 2/3 lease of the newest renewal that succeeded
        self._renewed_s = _NEVER  # when that was sent
        self._retry_s = _NEVER
        self._stands_back_until_s = _NEVER  # after resigning: not before that

    # --- what is asked of it ------------------------------------------------------------------------------------------

    def term_if_leader(self, now_s: float) -> int | None:
        """The term this node is master in, at this moment. Ask again before each use."""
        return self._lease.term if self._lease is not None and now_s < self._right_until_s else None

    def leader(self, now_s: float) -> Lease | None:
        """Who holds the lease, as far as this node knows; None when it was released or has run out."""
        lease = self._lease
        if lease is None or not lease.holder or now_s - self._changed_s >= self.lease_s:
            return None
        return lease

    @property
    def holds_record(self) -> bool:
        """The record names this candidate, whether it still has the right or not."""
        lease = self._lease
        return lease is not None and (lease.holder, lease.incarnation) == (self.node, self.incarnation)

    def resign(self, now_s: float, stand_back_s: float) -> None:
        """Give up the right at once and the record with the next step; do not take it again for so long unless another had it."""
        self._right_until_s = _NEVER
        self._stands_back_until_s = now_s + stand_back_s
        self._retry_s = _NEVER

    # --- what it does -------------------------------------------------------------------------------------------------

    def step(self, now_s: float) -> Action:
        if now_s < self._retry_s:
            return Action(Kind.WAIT, "the metadata store did not answer, or refused", until_s=self._retry_s)
        if self._must_read:
            return Action(Kind.READ, "the record may have changed")
        if self._lease is None:
            return self._claim(now_s, Kind.CREATE, "there is no master yet")
        if self.holds_record:
            return self._hold(now_s, self._lease)
        if not self._lease.holder:
            return self._claim(now_s, Kind.TAKE_OVER, "the lease was released")
        expires_s = self._changed_s + self.lease_s
        if now_s >= expires_s:
            return self._claim(now_s, Kind.TAKE_OVER, f"{self._lease.holder} has not renewed for {self.lease_s:g} s")
        return Action(Kind.WAIT, f"{self._lease.holder} is master", until_s=expires_s)

    def _hold(self, now_s: float, lease: Lease) -> Action:
        if now_s < self._stands_back_until_s:
            return self._write(Kind.RELEASE, "it resigned", Lease("", "", lease.term, lease.renewals + 1))
        due_s = self._renewed_s + self.renew_s
        if now_s < due_s:
            return Action(Kind.WAIT, "it is master", until_s=due_s)
        return self._write(Kind.RENEW, "it is master", msgspec.structs.replace(lease, renewals=lease.renewals + 1))

    def _claim(self, now_s: float, kind: Kind, reason: str) -> Action:
        if now_s < self._stands_back_until_s:
            return Action(Kind.WAIT, "it resigned not long ago", until_s=self._stands_back_until_s)
        return self._write(kind, reason, Lease(self.node, self.incarnation, self._highest_term + 1))

    def _write(self, kind: Kind, reason: str, lease: Lease) -> Action:
        return Action(kind, reason, msgspec.json.encode(lease), 0 if self._lease is None else self._revision)

    # --- what it is told ----------------------------------------------------------------------------------------------

    def on_read(self, record: Record | None, now_s: float) -> None:
        """The record as it was read. Raises CORRUPT."""
        self._see(record, now_s)
        self._must_read = False

    def on_told(self, record: Record | None, now_s: float) -> None:
        """The record as a watch told it; may be older than what is known. Raises CORRUPT."""
        if record is not None and record.revision > self._revision:
            self._see(record, now_s)
        elif record is None:
            self._must_read = True  # nobody deletes it: look

    def on_written(self, action: Action, written: Written, sent_s: float, now_s: float) -> None:
        """What came of CREATE, TAKE_OVER, RENEW or RELEASE. sent_s: before it was sent."""
        if isinstance(written, int):
            if written > self._revision:
                self._see(Record(action.value, written), now_s)
            if action.kind is not Kind.RELEASE and self.holds_record and sent_s >= self._stands_back_until_s:
                self._renewed_s = sent_s
                self._right_until_s = sent_s + self.lease_s * 2 / 3
            return
        self._must_read = True
        if written is None:  # somebody else was first, or an earlier write of ours with an unknown outcome has happened
            self._right_until_s = _NEVER
            self._retry_s = now_s + _REFUSED_S
        else:
            self._retry_s = now_s + _RETRY_S

    def on_read_failed(self, now_s: float) -> None:
        self._retry_s = now_s + _RETRY_S

    def _see(self, record: Record | None, now_s: float) -> None:
        revision = 0 if record is None else record.revision
        if revision == self._revision and (record is None) == (self._lease is None):
            return
        self._lease = None if record is None else decode_lease(record.value)
        self._revision, self._changed_s = revision, now_s
        if self._lease is not None:
            self._highest_term = max(self._highest_term, self._lease.term)
        if not self.holds_record:
            self._right_until_s = _NEVER
            if self._lease is not None and self._lease.holder:
                self._stands_back_until_s = _NEVER  # another has had it
