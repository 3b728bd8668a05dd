"""From a calibration to the settings of one search: interpolation between targets and between ks, and filtered search.

A filter thins the rows out, so the k-th allowed neighbour lies further away, at a higher rank among all rows, and its list
further down the ranking of lists. How much further is a matter of the density of allowed rows *around the query*, not
of their number: a filter may be correlated with the vectors. So the density is read off the lists themselves (allowed
rows per list, nearest list first), turned into a rank, and the calibrated reach of that rank says how many lists to probe.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
import numpy.typing as npt

from jadevectordb.index.calibration import TARGETS, Calibration, Step

_RANK_FACTOR_MAX = 3.0


class Prober:
    """Settings for any (recall, k), with or without a filter. Immutable."""

    def __init__(self, calibration: Calibration, list_count: int, row_count: int) -> None:
        self._list_count = list_count
        self._row_count = row_count
        self._curves = {curve.k: curve.steps for curve in calibration.curves}
        self._nprobes = np.array(calibration.nprobes, np.float64)
        self._ranks = [reach.rank for reach in calibration.reaches]
        self._coverages = [np.maximum.accumulate(reach.coverage) for reach in calibration.reaches]

    def step(self, recall: float, k: int) -> Step | None:
        """The setting for an unfiltered search; None: only an exact search keeps the promise."""
        at = bisect.bisect_left(TARGETS, recall - 1e-9)
        if at == len(TARGETS) or not self._curves:
            return None
        low, high = self._step_of(10, at), self._step_of(100, at)
        if k <= 10:
            return low
        if low is None or high is None:
            return None
        if k <= 100:
            share = math.log(k / 10) / math.log(10)
            return Step(
                math.ceil(_between(low.nprobe, high.nprobe, share)),
                max(k, math.ceil(_between(low.candidates, high.candidates, share))),
                recall,
                _mean(low.coverage, high.coverage, share),
            )
        # Beyond what was measured: the candidates grow with k, the lists with the spread of k neighbours.
        return Step(
            min(self._list_count, max(high.nprobe, self.lists_for(float(k), high.coverage))),
            math.ceil(high.candidates * k / 100),
            recall,
            high.coverage,
        )

    def _step_of(self, k: int, at: int) -> Step | None:
        steps = self._curves.get(k)
        return steps[at] if steps else None

    def lists_for(self, rank: float, coverage: float) -> int:
        """How many of the nearest lists hold this share of the `rank` nearest rows."""
        ranks = self._ranks
        needed = [self._needed(i, coverage) for i in range(len(ranks))]
        at = bisect.bisect_left(ranks, rank)
        if at == 0:
            lists = needed[0]
        elif at < len(ranks):
            share = math.log(rank / ranks[at - 1]) / math.log(ranks[at] / ranks[at - 1])
            lists = _between(needed[at - 1], needed[at], share)
        else:
            slope = 0.7
            if len(ranks) > 1:
                slope = max(0.5, math.log(needed[-1] / needed[-2]) / math.log(ranks[-1] / ranks[-2]))
            lists = needed[-1] * (rank / ranks[-1]) ** slope
        return min(self._list_count, math.ceil(lists))

    def _needed(self, at: int, coverage: float) -> float:
        curve = self._coverages[at]
        if coverage >= curve[-1]:
            return float(self._list_count)
        return max(1.0, float(np.interp(coverage, curve, self._nprobes)))

    def lists_to_probe(
        self, k: int, coverage: float, allowed: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
    ) -> int:
        """How many of the ranked lists to probe. allowed, rows: allowed rows and rows of each list, nearest first."""
        reached = np.cumsum(allowed)
        at = int(np.searchsorted(reached, k))
        if at >= len(reached):
            return self._list_count
        # In the list that holds the k-th allowed row, take the share that is needed.
        before = float(reached[at - 1]) if at else 0.0
        rank = float(rows[:at].sum()) + float(rows[at]) * (k - before) / max(1e-9, float(allowed[at]))
        return max(at + 1, self.lists_for(rank, coverage))


def _between(low: float, high: float, share: float) -> float:
    """Geometric interpolation."""
    return math.exp(math.log(low) * (1.0 - share) + math.log(high) * share)


def _mean(low: float, high: float, share: float) -> float:
    return low * (1.0 - share) + high * share
