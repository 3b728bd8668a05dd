"""How old vectors are, without a time in each: moments and how far each shard's log had come by then.

A point (time, marks) says: every version up to marks[shard] was written at `time` or before. The newest point at or before a
cut-off therefore names vectors that are certainly older than it. Between points age is overstated by nobody: a vector counts
as old a little late, never early. Points thin out with age, so that a database remembers a bounded number of them.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import msgspec

from jadevectordb.model.limits import WRITE_TIMES_KEPT_MAX

_FINE = 64  # points lie 1/64 to 2/64 of their age apart: an age is known to within 4 %


class Point(msgspec.Struct, frozen=True, array_like=True):
    time_ms: int
    marks: tuple[int, ...]


class WriteTimes(msgspec.Struct, frozen=True):
    """points: by time, ascending in both; the last is the newest known."""

    points: tuple[Point, ...] = ()

    def noted(self, time_ms: int, marks: Seq[int]) -> WriteTimes:
        """With one more point; the same object when nothing was written since the last one. Time may have jumped back.

        Where marks went back an older copy of the database was put in place: points beyond it say nothing about what is
        written now, and go.
        """
        points = self.points
        while points and any(mine > now for mine, now in zip(points[-1].marks, marks, strict=True)):
            points = points[:-1]
        if points and tuple(marks) == points[-1].marks:
            return self if points is self.points else WriteTimes(points)
        if self.points:
            time_ms = max(time_ms, self.points[-1].time_ms)  # a clock set back must not make vectors older
        return WriteTimes(_thinned((*points, Point(time_ms, tuple(marks)))))

    def written_by(self, cutoff_ms: int) -> tuple[int, ...] | None:
        """Marks up to which everything was written at the cut-off or before; None when nothing is known to be."""
        marks = None
        for point in self.points:
            if point.time_ms > cutoff_ms:
                break
            marks = point.marks
        return marks


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if len(points) <= WRITE_TIMES_KEPT_MAX // 2:
        return points
    fine = _FINE
    kept = _spaced(points, fine)
    while len(kept) > WRITE_TIMES_KEPT_MAX:
        fine //= 2
        kept = _spaced(points, fine)
    return kept


def _spaced(points: tuple[Point, ...], fine: int) -> tuple[Point, ...]:
    """Newest and oldest stay; of the rest those at least 1/fine of their age before the next one kept."""
    now = points[-1].time_ms
    kept = [points[-1]]
    for point in reversed(points[1:-1]):
        if (kept[-1].time_ms - point.time_ms) * max(fine, 1) >= now - point.time_ms and kept[
            -1
        ].time_ms > point.time_ms:
            kept.append(point)
    kept.append(points[0])
    return tuple(reversed(kept))
