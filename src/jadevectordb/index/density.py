"""Where the allowed rows nearest to a query lie: a model of similarities per list, for choosing lists under a filter.

Without a filter the nearest lists hold the nearest rows, and calibration counts how many are needed. A filter may leave
the nearest lists empty and the right rows in lists that the query hardly looks at, so lists must be chosen by what
they may hold. For list l, the similarity of its rows to a query is taken as mu_l + s_l * Z: mu_l from the mean of its rows, s_l
from their spread, Z from one distribution measured on the block (its tail is far from normal, and only the tail matters).
With a_l allowed rows in l, the k-th best allowed row has the similarity t that solves sum_l a_l P(mu_l + s_l Z > t) = k, and
each term is the number of hits to expect from a list. Lists are taken in that order until their terms add up to a
share of the sum. Which share gives which recall is measured when the index is built, with and without a filter that
leaves only rows far from the queries. What is off in the model is off on both sides of that ratio, and mostly cancels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.index.faiss_calls import faiss, pointer
from jadevectordb.model.operations import Rows

Floats = npt.NDArray[np.float32]

TAIL_FROM, TAIL_TO, TAIL_STEPS_PER_UNIT = -4.0, 40.0, 32  # the table of P(Z > z)
TAIL_LENGTH = int((TAIL_TO - TAIL_FROM) * TAIL_STEPS_PER_UNIT)
_SOLVE_STEPS_MAX = 12
_SOLVE_TOLERANCE = 0.25  # of log(sum / k); the choice of lists hardly depends on t


class DensityModel:
    """Immutable; shared between threads.

    means: float32 (lists, width). spread: float32 (lists,), s_l for a query of length 1 (euclidean: at distance 1/2).
    offset, wobble: float32 (lists,), mean and standard deviation of the squared distance to the mean, for euclidean.
    tail: float32 (TAIL_LENGTH,), P(Z > z) at equal steps.
    """

    def __init__(
        self, euclidean: bool, means: Floats, spread: Floats, offset: Floats, wobble: Floats, *, tail: Floats
    ) -> None:
        assert means.flags.c_contiguous and means.dtype == np.float32 and tail.shape == (TAIL_LENGTH,)
        self._euclidean = euclidean
        self.means = means
        self.spread = spread
        self.offset = offset
        self.wobble = wobble
        self.tail = tail
        self._at: Any = pointer(means)
        self.list_count, self.width = means.shape
        # Per list, everything that does not depend on the query.
        self._inverse_spread = 1.0 / spread
        self._wobble_squared = wobble * wobble

    def with_tail(self, tail: Floats) -> DensityModel:
        return DensityModel(self._euclidean, self.means, self.spread, self.offset, self.wobble, tail=tail)

    def packed(self) -> Floats:
        """All of it as one flat float32 array, for `unpacked`."""
        return np.concatenate([self.means.ravel(), self.spread, self.offset, self.wobble, self.tail])

    @staticmethod
    def unpacked(values: Floats, lists: int, width: int, *, euclidean: bool) -> DensityModel:
        """From a flat array of `packed_length`, kept and not copied."""
        assert len(values) == DensityModel.packed_length(lists, width)
        means, spread, offset, wobble, tail = np.split(values, np.cumsum([lists * width, lists, lists, lists]))
        return DensityModel(euclidean, means.reshape(lists, width), spread, offset, wobble, tail=tail)

    @staticmethod
    def packed_length(lists: int, width: int) -> int:
        return lists * (width + 3) + TAIL_LENGTH

    def similarity_laws(self, query: Rows) -> tuple[Floats, Floats]:
        """mu_l and 1 / s_l for a query, float32 (lists,) each. query: search row of the index's width, C-order."""
        mu = np.empty(self.list_count, np.float32)
        if self._euclidean:
            faiss.fvec_L2sqr_ny(pointer(mu), pointer(query), self._at, self.width, self.list_count)
            spread = np.sqrt(4.0 * mu * (self.spread * self.spread) + self._wobble_squared)
            return -(mu + self.offset), 1.0 / np.maximum(spread, np.float32(1e-30))
        faiss.fvec_inner_products_ny(pointer(mu), pointer(query), self._at, self.width, self.list_count)
        length = math.sqrt(float(np.dot(query, query))) or 1.0
        return mu, self._inverse_spread * np.float32(1.0 / length)

    def odds(self, mu: Floats, inverse_spread: Floats, allowed: Floats, k: int) -> Floats:
        """P(a row of the list is among the best k allowed rows), float32 (lists,); loose in scale, not in proportion.

        allowed: float32 (lists,), allowed rows of each list, at least k in all.
        """
        slope = inverse_spread * np.float32(TAIL_STEPS_PER_UNIT)
        base = np.float32(-TAIL_FROM * TAIL_STEPS_PER_UNIT) - mu * slope
        # log(sum / k) falls in t, nearly straight: a few secant steps from just above the best list's mean.
        spread = self.list_count / float(inverse_spread.sum())
        t = float(mu.max()) + 1.5 * spread
        rate = 3.0 / spread
        last_t, last_error = t, 0.0
        odds = allowed
        for _ in range(_SOLVE_STEPS_MAX):
            place = base + np.float32(t) * slope
            odds = self.tail.take(place.clip(0.0, TAIL_LENGTH - 1.0, out=place).astype(np.int32))
            error = math.log(max(1e-30, float(np.dot(odds, allowed))) / k)
            if abs(error) < _SOLVE_TOLERANCE:
                break
            if t != last_t:
                rate = min(max((last_error - error) / (t - last_t), 0.3 / spread), 10.0 / spread)
            last_t, last_error = t, error
            t += error / rate
        return odds


def fit_laws(
    rows: Rows, ids_of_list: Any, list_count: int, width: int, *, euclidean: bool, per_list_rows_max: int = 256
) -> DensityModel:
    """Means and spreads of the lists from up to per_list_rows_max of their rows each; the tail is a placeholder.

    ids_of_list: a function from list number to int64 row numbers. width: of the index, rows are padded to it.
    """
    means = np.zeros((list_count, width), np.float32)
    spread = np.zeros(list_count, np.float64)
    offset = np.zeros(list_count, np.float64)
    wobble = np.zeros(list_count, np.float64)
    dimension = rows.shape[1]
    for number in range(list_count):
        ids = ids_of_list(number)
        if len(ids) == 0:
            continue
        members = rows[np.sort(ids[:: -(-len(ids) // per_list_rows_max)])]
        mean = members.mean(axis=0)
        squares = np.square(members - mean).sum(axis=1, dtype=np.float64)
        means[number, :dimension] = mean
        # Of few rows the mean is too near to them.
        offset[number] = squares.mean() * len(members) / max(1, len(members) - 1)
        wobble[number] = squares.std()
        spread[number] = math.sqrt(offset[number] / dimension)
    typical = float(spread.mean()) or 1e-6
    floor = 0.05 * typical  # a list of equal rows still meets queries that are not
    wobble = np.maximum(wobble, floor * floor)
    return DensityModel(
        euclidean,
        means,
        np.maximum(spread, floor).astype(np.float32),
        offset.astype(np.float32),
        wobble.astype(np.float32),
        tail=np.zeros(TAIL_LENGTH, np.float32),
    )


def fit_tail(standardized: npt.NDArray[np.float32]) -> Floats:
    """P(Z > z) from measured values of Z, continued exponentially where the sample thins out."""
    place = (standardized.ravel() - np.float32(TAIL_FROM)) * np.float32(TAIL_STEPS_PER_UNIT)
    counts = np.bincount(place.clip(0, TAIL_LENGTH - 1).astype(np.int64), minlength=TAIL_LENGTH)
    above = counts[::-1].cumsum()[::-1].astype(np.float64)
    tail = above / max(1, above[0])
    sure = int(np.flatnonzero(above >= 30)[-1]) if above[0] >= 30 else 0
    from_ = int(np.flatnonzero(above >= min(above[0], 3000))[-1])
    step = 1.0 / TAIL_STEPS_PER_UNIT
    rate = 2.0
    if sure > from_:
        rate = max(0.5, math.log(tail[from_] / tail[sure]) / ((sure - from_) * step))
    beyond = np.arange(sure + 1, TAIL_LENGTH)
    tail[sure + 1 :] = tail[sure] * np.exp(-rate * (beyond - sure) * step)
    table: Floats = np.maximum(tail, 1e-30).astype(np.float32)
    return table
