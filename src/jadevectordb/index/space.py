"""The vector space of a database: what a valid vector is, how it is laid out as a row, and what its scores mean.

Two row forms exist. Rows *as sent* (float32 values, or packed bits under hamming) are what the log and the record of a
vector hold. *Search rows* are what search compares: unit length under cosine, the same array otherwise.

Inside the engine every metric is a similarity, float32, larger is better: the inner product for cosine and dot, minus the
squared distance for euclidean, minus the number of differing bits for hamming. Scores and distances are made from it at the edge.
"""

from __future__ import annotations

import math
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from jadevectordb.index.faiss_calls import faiss, pointer
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import DIMENSION_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows
from jadevectordb.model.vector_input import NUMERIC_KINDS, bad_row, invalid_vector, wrong_dimension

UNIT_TOLERANCE = 1e-6  # a row whose length differs from 1 by at most this is a unit row and is left alone
_UNIT_SQUARED_TOLERANCE = 2 * UNIT_TOLERANCE
_SQUARED_LENGTH_SAFE_MIN = 1e-30  # below this a float32 sum of squares has lost digits to underflow
SQUARED_LENGTH_MAX = 4e37  # two longer vectors may differ by more than float32 can say: (2|x|)^2 must stay below 3.4e38
_CHUNK_ROWS = 65536
_SCALE_NORMAL_MIN, _SCALE_NORMAL_MAX = 1e-30, 1e30  # factors that float32 holds with full precision


class VectorSpace:
    """Metric and dimension of a database. Immutable; shared freely between threads."""

    __slots__ = ("dimension", "metric", "row_bytes", "row_dtype", "row_width")

    def __init__(self, metric: Metric, dimension: int) -> None:
        if not 1 <= dimension <= DIMENSION_MAX:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"A dimension of {dimension} is not supported: choose 1 to {DIMENSION_MAX}.",
                details={"dimension": dimension, "max": DIMENSION_MAX},
            )
        self.metric = metric
        self.dimension = dimension
        binary = metric is Metric.HAMMING
        self.row_dtype: np.dtype[Any] = np.dtype(np.uint8 if binary else np.float32)
        # values, or bytes of packed bits (little bit order)
        self.row_width = (dimension + 7) // 8 if binary else dimension
        self.row_bytes = self.row_width * self.row_dtype.itemsize

    def __repr__(self) -> str:
        return f"VectorSpace({self.metric.value}, {self.dimension})"

    # ------------------------------------------------------------------ vectors in

    def check_and_pack(self, vectors: npt.ArrayLike) -> Rows:
        """Rows as sent, C-order (n, row_width), from what a user gives: one vector or n of them.

        vectors: any real dtype, (n, dimension) or (dimension,); under hamming the values are 0 and 1 (numbers or bools).
        A float32 C-order array is returned itself, not copied. Raises DIMENSION_MISMATCH or INVALID_VECTOR naming the row.
        """
        given = _as_matrix(vectors, self.dimension)
        if self.metric is Metric.HAMMING:
            return _pack_bits(given)
        if given.dtype == np.bool_:
            raise invalid_vector("Vectors of true and false values need the hamming metric; send numbers.")
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(given, np.float32)
            squares = np.einsum("ij,ij->i", rows, rows)
        low = _SQUARED_LENGTH_SAFE_MIN if self.metric is Metric.COSINE else -1.0
        # One pass tells the good from the doubtful: NaN and Inf spread into the sum of squares, and NaN fails every comparison.
        doubtful = ~((squares >= low) & (squares <= SQUARED_LENGTH_MAX))
        if doubtful.any():
            for row in np.flatnonzero(doubtful):
                self._explain(int(row), rows[row], given[row])
        return rows

    def _explain(self, row: int, values: npt.NDArray[np.float32], given: npt.NDArray[Any]) -> None:
        """Raise if the doubtful row is really bad; cosine takes very long and very short vectors."""
        finite = np.isfinite(values)
        if not finite.all():
            place = int(np.flatnonzero(~finite)[0])
            if np.isfinite(given[place]):
                why = f"is {given[place]!s}, too large for float32; scale the vectors down"
            else:
                why = f"is {values[place]!s}; NaN and infinity cannot be compared, leave the vector out or repair it"
            raise invalid_vector(f"Vector {row}: value {place} {why}.", row)
        squared = float(np.square(values, dtype=np.float64).sum())
        if self.metric is Metric.COSINE:
            if squared == 0.0:
                raise invalid_vector(
                    f"Vector {row} is all zeros: it has no direction, so cosine cannot compare it.", row
                )
        elif squared > SQUARED_LENGTH_MAX:
            raise invalid_vector(
                f"Vector {row} has length {math.sqrt(squared):.3g}: {self.metric.value} needs lengths below "
                f"{math.sqrt(SQUARED_LENGTH_MAX):.1g} to stay within float32; scale the vectors down.",
                row,
            )

    def needs_unit_copy(self, rows: Rows) -> bool:
        """Whether search rows differ from these rows as sent, so that a second copy must be kept."""
        if self.metric is not Metric.COSINE:
            return False
        for start in range(0, len(rows), _CHUNK_ROWS):
            squares = _squared_lengths(rows[start : start + _CHUNK_ROWS])
            if (np.abs(squares - 1.0) > _UNIT_SQUARED_TOLERANCE).any():
                return True
        return False

    def search_rows(self, rows: Rows) -> Rows:
        """What search compares, for rows as sent: unit length under cosine (a new array if any row changes), else the array itself."""
        if self.metric is not Metric.COSINE:
            return rows
        units: Rows | None = None
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            squares = _squared_lengths(rows[chunk])
            off = np.abs(squares - 1.0) > _UNIT_SQUARED_TOLERANCE
            if off.any():
                units = np.array(rows, np.float32, order="C") if units is None else units
                _scale_in_place(units[chunk], squares, off)
        return rows if units is None else units

    # ------------------------------------------------------------------ a query in

    def prepare_query(self, vector: npt.ArrayLike) -> Rows:
        """One search row, C-order (row_width,), from what a user gives. Same checks and errors as `check_and_pack`."""
        if (
            self.metric is Metric.HAMMING
            or type(vector) is not np.ndarray
            or vector.dtype != np.float32
            or vector.shape != (self.dimension,)
            or not vector.flags.c_contiguous
        ):
            return self._prepare_slowly(vector)
        # As fast as np.dot, and silent on overflow
        squared: float = faiss.fvec_norm_L2sqr(pointer(vector), self.dimension)
        if not _SQUARED_LENGTH_SAFE_MIN <= squared <= SQUARED_LENGTH_MAX:  # NaN and Inf included
            return self._prepare_slowly(vector)
        if self.metric is Metric.COSINE and abs(squared - 1.0) > _UNIT_SQUARED_TOLERANCE:
            return vector * np.float32(1.0 / math.sqrt(squared))
        return vector

    def _prepare_slowly(self, vector: npt.ArrayLike) -> Rows:
        rows = self.check_and_pack(vector)
        if len(rows) != 1:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"A search takes one query vector, {len(rows)} were given; use the batch search for several.",
                details={"given": len(rows)},
            )
        row: Rows = np.ascontiguousarray(self.search_rows(rows)[0])
        return row

    def prepare_queries(self, vectors: npt.ArrayLike) -> Rows:
        """Search rows, C-order (m, row_width), for a batch of queries."""
        return np.ascontiguousarray(self.search_rows(self.check_and_pack(vectors)))

    # ------------------------------------------------------------------ scores out

    def public_score(self, similarity: float) -> float:
        """What a hit's `score` is, larger is better: cosine and dot as they are, else 1 / (1 + distance)."""
        match self.metric:
            case Metric.COSINE | Metric.DOT:
                return similarity
            case Metric.EUCLIDEAN | Metric.HAMMING:
                return 1.0 / (1.0 + self.distance(similarity))
            case _:
                assert_never(self.metric)

    def distance(self, similarity: float) -> float:
        """The metric's distance, smaller is better: 1 - cosine, -dot, euclidean length of the difference, differing bits."""
        match self.metric:
            case Metric.COSINE:
                return 1.0 - similarity
            case Metric.DOT:
                return -similarity
            case Metric.EUCLIDEAN:
                return math.sqrt(max(0.0, -similarity))
            case Metric.HAMMING:
                return -similarity + 0.0  # no minus zero
            case _:
                assert_never(self.metric)

    def similarity_of_score(self, score: float) -> float:
        """The similarity whose public score this is, for thresholds. A score no vector can reach gives +inf, one all reach -inf."""
        match self.metric:
            case Metric.COSINE | Metric.DOT:
                return score
            case Metric.EUCLIDEAN | Metric.HAMMING:
                if score <= 0.0:
                    return -math.inf
                return self.similarity_of_distance(1.0 / score - 1.0)
            case _:
                assert_never(self.metric)

    def similarity_of_distance(self, distance: float) -> float:
        """The similarity at this distance, for thresholds. A negative length or bit count gives +inf: nothing is that near."""
        match self.metric:
            case Metric.COSINE:
                return 1.0 - distance
            case Metric.DOT:
                return -distance
            case Metric.EUCLIDEAN:
                return -distance * distance if distance >= 0.0 else math.inf
            case Metric.HAMMING:
                return -distance if distance >= 0.0 else math.inf
            case _:
                assert_never(self.metric)


def _scale_in_place(
    rows: npt.NDArray[np.float32], squares: npt.NDArray[np.float64], off: npt.NDArray[np.bool_]
) -> None:
    """Bring the rows marked `off`, whose squared lengths are given, to unit length."""
    scale = np.ones(len(rows))
    np.divide(1.0, np.sqrt(squares), out=scale, where=off & (squares > 0))
    if scale.min() > _SCALE_NORMAL_MIN and scale.max() < _SCALE_NORMAL_MAX:
        rows *= scale[:, None].astype(np.float32)
    else:  # 1 / length of a very long or very short vector is no normal float32: float64 in between
        rows[off] = (rows[off].astype(np.float64) * scale[off, None]).astype(np.float32)


def _squared_lengths(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64 (n,). Summed in float64: a float32 sum overflows for long vectors and vanishes for short ones."""
    wide = rows.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", wide, wide)
    return squares


def _as_matrix(vectors: npt.ArrayLike, dimension: int) -> npt.NDArray[Any]:
    """A real-valued array (n, dimension) over what the user gave; raises naming the row that does not fit."""
    try:
        given = np.asarray(vectors)
    except (ValueError, TypeError, OverflowError):
        raise _not_a_table(vectors, dimension) from None
    if given.ndim == 1 and len(given) == 0:
        given = given.reshape(0, dimension)
    if given.dtype.kind == "O":
        raise _not_a_table(vectors, dimension)
    if given.dtype.kind not in NUMERIC_KINDS:
        raise invalid_vector(f"Vectors must be real numbers; these have the type {given.dtype}.")
    if given.ndim == 1:
        given = given.reshape(1, -1)
    if given.ndim != 2:
        raise invalid_vector(
            f"Vectors must form one row each, (n, {dimension}); the array given has {given.ndim} axes."
        )
    if given.shape[1] != dimension:
        raise wrong_dimension(0, dimension, given.shape[1])
    return given


def _not_a_table(vectors: npt.ArrayLike, dimension: int) -> JadeError:
    return bad_row(vectors, dimension) or invalid_vector(f"Vectors must be real numbers in rows of {dimension}.")


def _pack_bits(given: npt.NDArray[Any]) -> Rows:
    if given.dtype != np.bool_:
        strange = (given != 0) & (given != 1)
        if strange.any():
            row, place = (int(x) for x in np.argwhere(strange)[0])
            raise invalid_vector(
                f"Vector {row}: value {place} is {given[row, place]!s}; hamming compares vectors of 0 and 1.", row
            )
    return np.packbits(given != 0, axis=1, bitorder="little")
