"""Cells of a database that is sharded by vector: which shard a vector belongs to, and which shards a search has to visit.

The space is divided into Voronoi cells around centroids (k-means of a sample, `query.cell_training`). Each cell has an owner, the
shard that holds its vectors; near cells have the same owner as far as shards of equal size allow. A search looks at the cells
nearest to its query and visits their owners. How many cells are enough for a recall was measured on the sample, with queries
held out of it, and stays in the record: it says what holds for data like the sample.

The record is written once, when the database is created, before the database is heard of, and never changed: a writer and a
reader that know it route alike. What was written under it is found by it, whatever data comes.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.metric import Metric

CELLS_PREFIX: Final = "cells/"
_FORMAT: Final = 1
_CHUNK_ROWS: Final = 4096
_MISSED_BY_CELLS: Final = 2 / 3  # of what an answer may miss

Floats = npt.NDArray[np.float32]


class Coverage(msgspec.Struct, frozen=True, array_like=True):
    """shares[n]: of the k nearest neighbours, how many the owners of the n + 1 nearest cells hold at least; 0 to 1, never falling."""

    k: int
    shares: list[float]


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """centroids: float32 little-endian, one row a cell, of search rows (unit length under cosine). owners: the shard of each cell.

    coverage: by ascending k. sampled: rows that the centroids come from. queries: held out of the sample, that coverage comes from.
    """

    dimension: int
    metric: Metric
    centroids: bytes
    owners: list[int]
    coverage: list[Coverage]
    sampled: int
    queries: int
    format: int = _FORMAT


@dataclass(frozen=True, slots=True)
class Visit:
    """shards: ascending. recall: what the shards themselves have to reach, so that the answer reaches what was asked."""

    shards: tuple[int, ...]
    recall: float
    cells: int
    why: str


class CellMap:
    """The cells of one database, ready to route by. Immutable."""

    def __init__(self, cells: Cells, shard_count: int) -> None:
        """Raises CORRUPT for a record that does not fit."""
        count = len(cells.owners)
        fits = len(cells.centroids) == 4 * count * cells.dimension and cells.format == _FORMAT and count > 0
        if not fits or not all(0 <= owner < shard_count for owner in cells.owners):
            raise JadeError(ErrorCode.CORRUPT, "The record of a database's cells does not fit the database.")
        self.record = cells
        self.shard_count = shard_count
        self._by_product = cells.metric is Metric.DOT
        self._centroids = np.frombuffer(cells.centroids, "<f4").reshape(count, cells.dimension).astype(np.float32)
        self._half_squares = 0.5 * np.einsum("ij,ij->i", self._centroids, self._centroids)
        self._owners = np.array(cells.owners, np.int64)

    def shards_of(self, rows: Floats) -> npt.NDArray[np.int64]:
        """int64 (n,): the owner of the cell that each row lies in. rows: search rows, float32 (n, dimension)."""
        return self._owners[self.cells_of(rows)]

    def cells_of(self, rows: Floats) -> npt.NDArray[np.int64]:
        """int64 (n,): the nearest centroid by distance, whatever the metric: under dot the longest would attract every row."""
        found = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            found[start : start + _CHUNK_ROWS] = (self._half_squares - chunk @ self._centroids.T).argmin(axis=1)
        return found

    def nearest_cells(self, query: Floats) -> npt.NDArray[np.int64]:
        """All cells, int64 (cells,), in the order in which they promise near vectors. query: a search row."""
        products = self._centroids @ query
        far = -products if self._by_product else self._half_squares - products
        return np.argsort(far, kind="stable")

    def visit(self, query: Floats, k: int, recall: float) -> Visit:
        """The fewest shards that are expected to hold enough of the k nearest neighbours.

        A third of what may be missed is left to the shards' own searches: they can do better more cheaply than more shards.
        """
        coverage = next((one for one in self.record.coverage if one.k >= k), None)
        if coverage is None:
            return self._all(recall, f"k is {k}: coverage was measured up to {self._k_max}")
        needed = 1 - (1 - recall) * _MISSED_BY_CELLS
        count = next((at for at, share in enumerate(coverage.shares, 1) if share >= needed), len(coverage.shares))
        shards = np.unique(self._owners[self.nearest_cells(query)[:count]])
        if len(shards) == self.shard_count:
            return self._all(recall, f"the {count} cells that recall {recall:g} takes lie in all of them")
        share = min(1.0, coverage.shares[count - 1])
        why = f"they own the {count} nearest of {len(self._owners)} cells, which hold {share:.1%} of {coverage.k} neighbours"
        return Visit(tuple(shards.tolist()), min(1.0, recall / share), count, why)

    def _all(self, recall: float, why: str) -> Visit:
        return Visit(tuple(range(self.shard_count)), recall, len(self._owners), why)

    @property
    def _k_max(self) -> int:
        return max((one.k for one in self.record.coverage), default=0)


def grouped(centroids: Floats, weights: Seq[float] | npt.NDArray[np.float64], shard_count: int) -> list[int]:
    """An owner for each cell: shards of about equal weight, whose cells lie together; each shard has one at least.

    Cells are halved across the direction in which they spread most, and the halves again (a principal direction divisive
    partitioning, Boley 1998, with the cut where the weights ask for it). centroids: (cells, d), as many as shards at least.
    """
    assert 1 <= shard_count <= len(centroids) == len(weights)
    points, mass = np.asarray(centroids, np.float64), np.asarray(weights, np.float64) + 1e-9
    owners = np.empty(len(points), np.int64)
    waiting = [(np.arange(len(points)), 0, shard_count)]
    while waiting:
        cells, first, shards = waiting.pop()
        if shards == 1:
            owners[cells] = first
            continue
        left = shards // 2
        inner = points[cells] - np.average(points[cells], axis=0, weights=mass[cells])
        direction = np.linalg.svd(inner * np.sqrt(mass[cells])[:, None], full_matrices=False)[2][0]
        ordered = cells[np.argsort(inner @ direction, kind="stable")]
        before = np.cumsum(mass[ordered])
        cut = int(np.abs(before - before[-1] * left / shards).argmin()) + 1
        cut = min(max(cut, left), len(cells) - (shards - left))
        waiting += [(ordered[:cut], first, left), (ordered[cut:], first + left, shards - left)]
    found: list[int] = owners.tolist()
    return found


def cells_key(database: str) -> str:
    return CELLS_PREFIX + database


def encode_cells(cells: Cells) -> bytes:
    return msgspec.msgpack.encode(cells)


def decode_cells(value: bytes) -> Cells:
    """Raises CORRUPT: written by a newer version, or damaged."""
    try:
        return msgspec.msgpack.decode(value, type=Cells)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"the record of a database's cells cannot be read ({error}); run the newest version of the cluster's nodes here",
        ) from error
