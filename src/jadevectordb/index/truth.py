"""The exact neighbours of many rows at once, which calibration measures against.

One matrix product per block of rows, and one comparison with a threshold for each query: the threshold comes from a thin sample
of the rows and lets a few times as many pass as are wanted, so almost nothing has to be sorted. Those that pass are
compared again by the kernel searches use, so that similarities are the ones searches will see.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jadevectordb.index.exact import RowBlock
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

_CHUNK_ROWS = 1024
_SAMPLED_EVERY = 32  # one row in so many sets the thresholds
_SPARE = 8  # places of the sample beyond twice the expected one, so that enough pass in practice always
_SMALL_ROWS = 8192  # blocks up to this size take every row as the sample


def nearest(
    block: RowBlock, queries: Rows, depth: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Similarities float32 (m, depth) and rows int64 (m, depth) of the best rows for each query, exact, best first.

    queries: search rows (m, width), C-order; not under hamming. depth: at most the block's rows.
    """
    assert block.space.metric is not Metric.HAMMING and 1 <= depth <= block.row_count
    scorer = _Scorer(block, queries)
    thresholds = _thresholds(block, scorer, depth, seed)
    passed: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for start in range(0, block.row_count, _CHUNK_ROWS):
        query, column = np.nonzero(scorer.of(block.rows[start : start + _CHUNK_ROWS]) >= thresholds)
        passed.append((query, column + start))
    query = np.concatenate([q for q, _ in passed])
    order = np.argsort(query, kind="stable")
    rows = np.concatenate([r for _, r in passed])[order]
    ends = np.cumsum(np.bincount(query, minlength=len(queries)))
    similarities = np.empty((len(queries), depth), np.float32)
    found = np.empty((len(queries), depth), np.int64)
    begin = 0
    for i, end in enumerate(ends):
        # Too few passed only where the thin sample misled: then every row is compared.
        if end - begin >= depth:
            values, best = block.top_of(queries[i], np.ascontiguousarray(rows[begin:end]), depth)
        else:
            values, best = block.top(queries[i], depth)
        similarities[i], found[i] = values[:depth], best[:depth]
        begin = end
    return similarities, found


class _Scorer:
    """Scores that order rows as their similarities do, to rounding, by one matrix product."""

    def __init__(self, block: RowBlock, queries: Rows) -> None:
        self._euclidean = block.space.metric is Metric.EUCLIDEAN
        # Distances do not change when the origin is moved among the rows, but rounding errors shrink.
        self._origin = queries.mean(axis=0) if self._euclidean else np.float32(0)
        self._queries = np.ascontiguousarray(queries - self._origin) if self._euclidean else queries

    def of(self, rows: Rows) -> npt.NDArray[np.float32]:
        """float32 (queries, rows)."""
        if not self._euclidean:
            product: npt.NDArray[np.float32] = self._queries @ rows.T
            return product
        moved = rows - self._origin
        squares = np.einsum("ij,ij->i", moved, moved)
        scores: npt.NDArray[np.float32] = self._queries @ moved.T
        scores -= 0.5 * squares
        return scores


def _thresholds(block: RowBlock, scorer: _Scorer, depth: int, seed: int) -> npt.NDArray[np.float32]:
    """float32 (queries, 1): scores that a few times `depth` rows reach."""
    count = block.row_count
    if count <= _SMALL_ROWS:
        sampled = np.asarray(block.rows)
        place = min(count, depth + _SPARE)
    else:
        size = max(_SMALL_ROWS, count // _SAMPLED_EVERY)
        picked = np.sort(np.random.default_rng(seed).choice(count, size, replace=False))
        sampled = block.rows[picked]
        place = min(size, 2 * -(-depth * size // count) + _SPARE)
    scores = scorer.of(sampled)
    kth = len(sampled) - place
    thresholds: npt.NDArray[np.float32] = np.partition(scores, kth, axis=1)[:, kth : kth + 1]
    return thresholds
