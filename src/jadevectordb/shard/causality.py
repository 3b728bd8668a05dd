"""Which writes knew of which: finds concurrent writes of one vector among those that waited in outboxes, and who of them counts.

A write at EVENTUAL is acknowledged before it has a place in the log. Meanwhile others write: when it is logged at last, what stands
there may be something its writer never saw. Letting the log's order decide would silently undo it.

What a write carries is a dotted version vector (Preguiça, Baquero, Almeida, Fonte, Gonçalves: "Dotted Version Vectors", 2010)
with the log in the place of all counters but one: every logged write has a place in one order, so "I had seen the log up to
place S" stands for the counters of all writers, as Bayou's commit numbers do (Terry et al., SOSP 1995). The dot is (node, hybrid
time), which an entry has anyway. Its size does not grow with the number of writers. For a late write L with S and dot (n, t), and a
write W of the same vector that stands at place p before it:

    p <= S                          L had seen W: L counts, no conflict
    W of the same node, time <= t   one node takes writes one after the other: L came after W, L counts
    W of the same node, time > t    W came after L (it overtook L at QUORUM): L changes nothing; listed, but no conflict
    else                            concurrent: the later (time, node) counts; counted and listed

A change of metadata counts as a write of the whole vector here. Only, one that overtook L built on a vector without L, so L is
not silently superseded by it: that is a conflict too.

A write that is ordered by the log alone (QUORUM, STRONG) is decided when it is logged, so it has seen everything before it:
it is never late and none of this concerns it, save that its dot is remembered. Nor does anything here before the first entry
that carries a place: a shard without writes at EVENTUAL keeps and computes nothing.

Remembered, all of it bounded, part of the shard's state and of its digest: the dots of the last `STAMPS_MAX` entries; the
places where ids were deleted last, for `DELETES_REMEMBERED_MAX` of them (a deleted vector leaves no row to ask); the newest
conflicts. Of an older W the dot is not known: L counts when it is later than everything forgotten, else W does; that they are
concurrent is known in any case. A late write of a vector whose deletion was forgotten brings it back.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import Enum

import msgspec

from jadevectordb.model.limits import CONFLICTS_LISTED_MAX, DELETES_REMEMBERED_MAX, STAMPS_MAX
from jadevectordb.model.operations import Entry, Update
from jadevectordb.shard.conflicts import UNKNOWN_TIME, Conflict, ConflictReport, Contender

_NODES_MAX = 32_767  # names that are told apart; number 0 stands for all others
_NOBODY = ""
_Stamp = tuple[int, str, bool]  # hybrid time, node, whether the entry changed metadata only


class Verdict(Enum):
    SEEN = "the late write had seen what stands: it counts"
    WON = "concurrent, and the late write is later: it counts"
    LOST = "concurrent, and what stands is later: the late write changes nothing"
    SUPERSEDED = "what stands came after the late write: it changes nothing"

    @property
    def counts(self) -> bool:
        return self in (Verdict.SEEN, Verdict.WON)

    @property
    def is_conflict(self) -> bool:
        return self in (Verdict.WON, Verdict.LOST)


class CausalState(msgspec.Struct, frozen=True):
    """What is remembered, as a checkpoint holds it. Arrays are bytes, little-endian.

    last: the entry that the last of `times` belongs to. times: int64 each; nodes: uint16 each, twice the place in `names`, and 1 for a
    change of metadata only.
    deleted: uint64 hashes of ids, deleted_at: int64 places, oldest first.
    """

    last: int
    times: bytes
    nodes: bytes
    names: list[str]
    newest_forgotten: int
    deleted: bytes
    deleted_at: bytes
    found: int
    superseded: int
    listed: list[Conflict]


class Causality:
    """Of one shard; a part of its state, changed by `apply` alone.

    Invariants once it is kept: len(times) == len(nodes); the last of them belongs to the newest entry applied; times of entries at or
    before `last - STAMPS_MAX` are never looked at, whether they are still in memory or not.
    """

    def __init__(
        self,
        saved: CausalState | None = None,
        *,
        stamps_max: int = STAMPS_MAX,
        deletes_max: int = DELETES_REMEMBERED_MAX,
        listed_max: int = CONFLICTS_LISTED_MAX,
    ) -> None:
        """The bounds are those of `model.limits` everywhere but where the bounds themselves are tested."""
        self._stamps_max = stamps_max
        self._deletes_max = deletes_max
        self.is_kept = saved is not None
        self._times, self._nodes = array("q"), array("H")
        self._names: list[str] = [_NOBODY]
        self._last = 0
        self._newest_forgotten = 0
        self._deleted_at: OrderedDict[int, int] = OrderedDict()  # hash of the id -> place of its last deletion
        self._listed: deque[Conflict] = deque(maxlen=listed_max)
        self._found = self._superseded = 0
        if saved is not None:
            self._restore(saved)
        self._number_of = {name: number for number, name in enumerate(self._names)}

    def _restore(self, saved: CausalState) -> None:
        self._times.frombytes(saved.times)
        self._nodes.frombytes(saved.nodes)
        self._names = list(saved.names)
        self._last = saved.last
        self._newest_forgotten = saved.newest_forgotten
        hashes, places = array("Q", saved.deleted), array("q", saved.deleted_at)
        self._deleted_at.update(zip(hashes, places, strict=True))
        self._listed.extend(saved.listed)
        self._found, self._superseded = saved.found, saved.superseded

    def saved(self) -> CausalState | None:
        """None while nothing is kept. Two that applied the same entries give the same."""
        if not self.is_kept:
            return None
        times, nodes = self._times[-self._stamps_max :], self._nodes[-self._stamps_max :]
        return CausalState(
            self._last,
            times.tobytes(),
            nodes.tobytes(),
            list(self._names),
            self._newest_forgotten,
            array("Q", self._deleted_at.keys()).tobytes(),
            array("q", self._deleted_at.values()).tobytes(),
            self._found,
            self._superseded,
            list(self._listed),
        )

    def report(self) -> ConflictReport:
        return ConflictReport(self._found, self._superseded, list(self._listed))

    # Remembering

    def note(self, sequence: int, entry: Entry, newest_before: int) -> None:
        """The entry at this place is about to be applied. newest_before: the greatest time of all entries before it."""
        if not self.is_kept:
            if entry.seen is None:
                return
            self.is_kept, self._newest_forgotten = True, newest_before
        times, most = self._times, self._stamps_max
        times.append(entry.time)
        self._nodes.append(2 * self._number(entry.node) + isinstance(entry.operation, Update))
        self._last = sequence
        if len(times) > most:
            self._newest_forgotten = max(self._newest_forgotten, times[-most - 1])
            if len(times) >= 2 * most:
                del times[:-most]
                del self._nodes[:-most]

    def _number(self, node: str) -> int:
        number = self._number_of.get(node)
        if number is None:
            if len(self._names) >= _NODES_MAX:
                return 0
            number = self._number_of[node] = len(self._names)
            self._names.append(node)
        return number

    def note_deleted(self, hashes: Iterable[int], sequence: int) -> None:
        """These ids were deleted here. hashes: in an order that is the same on every replica."""
        if not self.is_kept:
            return
        deleted = self._deleted_at
        for one in hashes:
            deleted.pop(one, None)
            deleted[one] = sequence
        while len(deleted) > self._deletes_max:
            deleted.popitem(last=False)

    def deletion_of(self, one: int) -> int:
        """The place where the id with this hash was deleted last, 0 = none is remembered. Asked of ids that have no live row."""
        return self._deleted_at.get(one, 0)

    # Judging

    def judge(self, late: Entry, stands_at: int) -> Verdict:
        """late: an entry with `seen`, the newest noted. stands_at: the place of what it would overwrite, 0 = nothing."""
        assert late.seen is not None
        if stands_at <= late.seen:
            return Verdict.SEEN
        stamp = self._stamp(stands_at)
        if stamp is None:
            return Verdict.WON if late.time > self._newest_forgotten else Verdict.LOST
        time, node, is_partial = stamp
        if node and node == late.node:
            if time <= late.time:
                return Verdict.SEEN
            return Verdict.LOST if is_partial else Verdict.SUPERSEDED
        return Verdict.WON if (late.time, late.node) > (time, node) else Verdict.LOST

    def _stamp(self, sequence: int) -> _Stamp | None:
        """None: not remembered."""
        behind = self._last - sequence
        if behind >= min(len(self._times), self._stamps_max):
            return None
        place = len(self._times) - 1 - behind
        number = self._nodes[place]
        return self._times[place], self._names[number >> 1], bool(number & 1)

    def settle(
        self,
        verdict: Verdict,
        vector_id: str,
        late: Entry,
        stands_at: int,
        newest_time: int,
        *,
        kinds: tuple[bool, bool],
    ) -> None:
        """Count and list what was judged. kinds: whether the late one deletes, whether what stands is a deletion."""
        if verdict is Verdict.SEEN:
            return
        self._superseded += not verdict.is_conflict
        self._found += verdict.is_conflict
        time, node, _ = self._stamp(stands_at) or (UNKNOWN_TIME, _NOBODY, False)
        self._listed.append(
            Conflict(
                vector_id,
                Contender(self._last, late.time, late.node, kinds[0], late.request_id),
                Contender(stands_at, time, node, kinds[1]),
                verdict is Verdict.WON,
                newest_time,
                verdict.is_conflict,
            )
        )
