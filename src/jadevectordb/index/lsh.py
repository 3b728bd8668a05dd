"""LSH: sign random projections (Charikar 2002). Each row becomes a string of bits, one a random direction; near rows agree in most bits.

On request only. All codes are scanned (population count of differing bits), the best candidates compared exactly. Rows
are centred first, so that bits split them evenly; under dot, rows are lifted to equal length with one more coordinate
(Bachrach and others 2014), which turns the largest product into the nearest direction. As every code is looked at, a
filter costs no recall: only the allowed codes are scanned.
"""

from __future__ import annotations

import bisect
import math
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index.allowed import Allowed
from jadevectordb.index.api import K_TYPICAL, RECALL_DEFAULT, Found, Plan, SearchOverrides
from jadevectordb.index.bitmap import Bitmap
from jadevectordb.index.block_index import CandidateIndex
from jadevectordb.index.calibration import TARGETS, Sample, costs_of, draw_sample, exact_cost_us, margin
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import faiss, pointer, threads_for_building, use_one_thread
from jadevectordb.index.index_files import IndexMeta, refuse, write_array, write_meta
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

CODES_NAME = "codes.bits"
PROJECTION_NAME = "projection.f32"
_SAMPLE_ROWS = 200
_KS = (10, 100)
_CANDIDATES_SHARE_MAX = 0.25  # of the block: beyond it an exact search is as fast
_CHUNK_ROWS = 16384
_FEW_ROWS = 1000
_DEAD_ROW_NS = 15.0  # codes are gathered before they are scanned where some rows are dead
_WORD_BITS = 64


class LshBody(msgspec.Struct, frozen=True):
    """candidates: for each k of `_KS`, how many rows to compare for each of `TARGETS`; None = out of reach."""

    bits: int
    candidates: list[list[int | None]]


def bits_for(dimension: int) -> int:
    return 256 if dimension <= 64 else 512 if dimension <= 256 else 1024


def code_bits(dimension: int, tables: int | None, bits: int | None) -> int:
    """The length of a code, by tables and bits a table where they are given: a multiple of whole words."""
    usual = bits_for(dimension)
    wanted = (tables or usual // _WORD_BITS) * (bits or _WORD_BITS)
    return -(-wanted // _WORD_BITS) * _WORD_BITS


class Hasher:
    """Rows to codes. weights: float32 (bits, width + 1); the last column is the threshold of each direction."""

    def __init__(self, weights: npt.NDArray[np.float32], lift: float) -> None:
        self.weights = weights
        self._lift_squared = lift * lift

    def codes(self, rows: Rows, *, stored: bool) -> npt.NDArray[np.uint8]:
        """uint8 (n, bits / 8). stored: rows of the block are lifted under dot, queries lie in the plane."""
        dimension = rows.shape[1]
        directions, thresholds = self.weights[:, :-1], self.weights[:, -1]
        codes = np.empty((len(rows), len(self.weights) // 8), np.uint8)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = np.asarray(rows[start : start + _CHUNK_ROWS])
            projected = chunk @ directions[:, :dimension].T - thresholds
            if directions.shape[1] > dimension and stored:
                height = np.sqrt(np.maximum(0.0, self._lift_squared - np.square(chunk, dtype=np.float64).sum(axis=1)))
                projected += height[:, None].astype(np.float32) * directions[:, dimension]
            codes[start : start + _CHUNK_ROWS] = np.packbits(projected > 0, axis=1, bitorder="little")
        return codes


def build_lsh(space: VectorSpace, rows: Rows, directory: Path, *, threads: int, seed: int, bits: int) -> list[str]:
    """Hash, measure and write; the names of the files written."""
    rng = np.random.default_rng(seed)
    lifted = space.metric is Metric.DOT
    directions = rng.standard_normal((bits, space.dimension + lifted)).astype(np.float32)
    thresholds = np.zeros(bits, np.float32)
    if not lifted:
        picked = rows[np.sort(rng.choice(len(rows), min(len(rows), 10_000), replace=False))]
        thresholds = (directions @ picked.mean(axis=0)).astype(np.float32)
    weights = np.ascontiguousarray(np.column_stack([directions, thresholds]))
    hasher = Hasher(weights, _longest(rows) if lifted else 0.0)
    codes = hasher.codes(rows, stored=True)
    with threads_for_building(threads):
        sample = draw_sample(RowBlock(space, rows), seed + 1, max(_KS), _SAMPLE_ROWS)
    body = LshBody(bits, _calibrate(sample, hasher.codes(sample.queries, stored=False), codes))
    write_array(codes, directory / CODES_NAME)
    write_array(weights, directory / PROJECTION_NAME)
    names = [CODES_NAME, PROJECTION_NAME]
    return write_meta(directory, IndexKind.LSH, space, row_count=len(rows), names=names, body=body)


def _longest(rows: Rows) -> float:
    squares = [
        float(np.square(rows[start : start + _CHUNK_ROWS], dtype=np.float64).sum(axis=1).max())
        for start in range(0, len(rows), _CHUNK_ROWS)
    ]
    return math.sqrt(max(squares))


def _calibrate(
    sample: Sample, query_codes: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8]
) -> list[list[int | None]]:
    """Where the true neighbours stand by differing bits says how many candidates hold the share asked for."""
    words = codes.view(np.uint64)
    places = np.empty(sample.truth.shape, np.int64)
    for i, code in enumerate(query_codes.view(np.uint64)):
        differing = np.bitwise_count(words ^ code).sum(axis=1, dtype=np.int64)
        up_to = np.cumsum(np.bincount(differing, minlength=1))
        places[i] = up_to[differing[sample.truth[i]]]  # among equals the last place: the scan may take any of them
    table: list[list[int | None]] = []
    for k in _KS:
        needed = np.sort(places[:, :k].ravel())
        steps: list[int | None] = []
        for target in TARGETS:
            count = int(needed[min(len(needed) - 1, math.ceil((target + margin(target)) * len(needed)) - 1)])
            steps.append(max(k, count) if count <= _CANDIDATES_SHARE_MAX * len(codes) else None)
        table.append(steps)
    return table


class LshIndex(CandidateIndex):
    """Opened by `open_lsh`."""

    def __init__(self, block: RowBlock, hasher: Hasher, codes: npt.NDArray[np.uint8], body: LshBody) -> None:
        super().__init__(block)
        self._hasher = hasher
        self._codes = codes
        self._candidates = body.candidates

    @property
    def kind(self) -> IndexKind:
        return IndexKind.LSH

    @property
    def memory_bytes(self) -> int:
        return 0  # codes and directions are mapped

    def _find(
        self,
        query: Rows,
        k: int,
        recall: float,
        *,
        bits: Bitmap | None,
        known: Allowed | None,
        overrides: SearchOverrides,
    ) -> Found | str:
        allowed = None
        codes = self._codes
        if known is not None:
            if known.count <= max(k, _FEW_ROWS):
                return "few allowed rows"
            allowed = self._rows(bits, known)
            codes = codes[allowed]
        # Allowed neighbours stand further away, where bits tell rows apart less well: as if so many more were wanted.
        wanted = k if known is None else math.ceil(k * self.row_count / known.count)
        count = overrides.candidates or self._count(recall, wanted)
        if count is None or count > _CANDIDATES_SHARE_MAX * len(codes):
            return "the index does not reach this recall"
        count = min(max(count, k), len(codes))
        places = self._scan(self._hasher.codes(query[None, :], stored=False), codes, count)
        candidates = np.sort(places if allowed is None else allowed[places])
        similarities, rows = self._block.top_of(query, candidates, k)
        return Found(similarities, rows, Plan("index", "differing bits", count))

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        count = overrides.candidates or self._count(RECALL_DEFAULT, K_TYPICAL)
        if overrides.exact or count is None or count > _CANDIDATES_SHARE_MAX * self.row_count:
            return exact_cost_us(self._block, has_dead=has_dead)
        candidate_ns = costs_of(self._block.space.row_width, 0).candidate_ns
        row_ns = 4.0 + 0.025 * self._codes.shape[1] + (_DEAD_ROW_NS if has_dead else 0.0)
        return float(15 + (self.row_count * row_ns + count * candidate_ns) / 1000)

    @staticmethod
    def _scan(code: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int64]:
        """Positions of the `count` codes that differ least, int64; they exist."""
        use_one_thread()
        distances, places = np.empty(count, np.int32), np.empty(count, np.int64)
        assert codes.flags.c_contiguous and code.flags.c_contiguous and code.shape[1] == codes.shape[1]
        faiss.hammings_knn_mc(
            pointer(code), pointer(codes), 1, len(codes), count, codes.shape[1], pointer(distances), pointer(places)
        )
        return places

    def _count(self, recall: float, k: int) -> int | None:
        at = bisect.bisect_left(TARGETS, recall - 1e-9)
        if at == len(TARGETS):
            return None
        low, high = self._candidates[0][at], self._candidates[1][at]
        if k <= _KS[0] or low is None:
            return low
        if high is None:
            return None
        if k >= _KS[1]:
            return math.ceil(high * k / _KS[1])
        share = math.log(k / _KS[0]) / math.log(_KS[1] / _KS[0])
        return math.ceil(math.exp(math.log(low) * (1 - share) + math.log(high) * share))


def open_lsh(directory: Path, block: RowBlock, meta: IndexMeta) -> LshIndex:
    """Map codes and directions. Raises CORRUPT naming the file."""
    try:
        body = msgspec.json.decode(meta.body, type=LshBody)
    except msgspec.DecodeError as error:
        refuse(directory / "index.json", f"has no valid LSH part ({error})")
    width = block.space.dimension + (block.space.metric is Metric.DOT)
    shapes = {CODES_NAME: (block.row_count, body.bits // 8), PROJECTION_NAME: (body.bits, width + 1)}
    sizes = {CODES_NAME: 1, PROJECTION_NAME: 4}
    for name, shape in shapes.items():
        if name not in meta.files or meta.files[name].bytes != math.prod(shape) * sizes[name]:
            refuse(directory / name, "was made for other rows")
    codes = np.memmap(directory / CODES_NAME, np.uint8, "r", shape=shapes[CODES_NAME])
    weights = np.memmap(directory / PROJECTION_NAME, np.float32, "r", shape=shapes[PROJECTION_NAME])
    return LshIndex(block, Hasher(np.asarray(weights), 0.0), np.asarray(codes), body)
