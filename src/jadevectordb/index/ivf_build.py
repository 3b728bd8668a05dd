"""Building an IVF index: inverted lists of 4-bit product codes (fast scan), trained and measured on the block itself.

Coarse centroids by k-means, about sqrt(n) of them; each row is stored in its centroid's list as a 4-bit product
quantisation (Jégou, Douze, Schmid 2011) of its residual, two dimensions a code, in the register-resident layout of
André, Kermarrec, Le Scouarnec 2015 ("fast scan"). The codes only propose candidates, so no more precision is bought.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index import calibration, density
from jadevectordb.index.calibration import Calibration
from jadevectordb.index.density import DensityModel
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.faiss_calls import faiss, pointer, threads_for_building, write_faiss
from jadevectordb.index.index_files import write_array, write_meta
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.truth import nearest
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Rows

CODES_NAME = "codes.faiss"
LISTS_NAME = "lists.bin"
DENSITY_NAME = "density.f32"
ROWS_MIN = 256  # fewer cannot train a quantiser worth having
_CODED_DIMENSION_MIN = 8  # below it the lists hold the rows themselves, which are as small as codes
_WIDE_DIMENSION_MIN = (
    1025  # from here on four dimensions a code: 16-bit sums of more than 512 codes lose their precision
)
_TRAINING_ROWS_PER_LIST = 100
_TRAINING_ROWS_MIN = 20_000
_ADD_CHUNK_ROWS = 65536
_TAIL_QUERIES = 64
_TAIL_ROWS = 32_768


class IvfBody(msgspec.Struct, frozen=True):
    """The IVF part of `index.json`."""

    lists: int
    coded_dimension: int  # the dimension in the index: padded with zeros to whole codes
    codes: int  # 4-bit codes of a row; 0 = lists hold the rows themselves
    calibration: Calibration


def list_count_for(row_count: int) -> int:
    """About sqrt(n), a power of two: the optimum is flat, and fewer lists make building and filtering cheaper."""
    return max(16, 1 << round(math.log2(0.8 * math.sqrt(row_count))))


def coding_for(dimension: int) -> tuple[int, int]:
    """(dimension in the index, codes of a row)."""
    if dimension < _CODED_DIMENSION_MIN:
        return dimension, 0
    per_code = 4 if dimension >= _WIDE_DIMENSION_MIN else 2
    codes = -(-dimension // per_code)
    return codes * per_code, codes


def padded(rows: Rows, width: int) -> Rows:
    """Rows (n, d) or one row (d,), with zeros up to `width`; itself when nothing is missing. Keeps every inner product and distance."""
    missing = width - rows.shape[-1]
    if missing == 0:
        return rows
    return np.ascontiguousarray(np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)]))


def build_ivf(
    space: VectorSpace, rows: Rows, directory: Path, *, threads: int, seed: int, lists: int | None = None
) -> list[str]:
    """Train, fill, measure and write; the names of the files written. rows: search rows, at least `ROWS_MIN`.

    lists: None, as many as suit the rows; else so many, or a quarter of the rows where that is less.
    """
    assert space.metric is not Metric.HAMMING and len(rows) >= ROWS_MIN
    with threads_for_building(threads):
        list_count = list_count_for(len(rows)) if lists is None else min(lists, len(rows) // 4)
        index = _train(space, rows, list_count, seed)
        list_of_row = _fill(index, rows)
        block = RowBlock(space, rows)
        density_model = _fit_density(block, index, list_of_row, seed + 2)
        calibrated = _calibrate(block, index, list_of_row, density_model, seed + 1)
        write_faiss(index, directory / CODES_NAME)
    body = IvfBody(index.nlist, index.d, coding_for(space.dimension)[1], calibrated)
    write_array(list_of_row, directory / LISTS_NAME)
    write_array(density_model.packed(), directory / DENSITY_NAME)
    names = [CODES_NAME, LISTS_NAME, DENSITY_NAME]
    return write_meta(directory, IndexKind.IVF, space, row_count=len(rows), names=names, body=body)


def _train(space: VectorSpace, rows: Rows, lists: int, seed: int) -> Any:
    dimension, codes = coding_for(space.dimension)
    metric = faiss.METRIC_L2 if space.metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
    # Under dot, rows are grouped by distance, or the longest centroids would attract every row; queries rank by inner product.
    quantizer = faiss.IndexFlatIP(dimension) if space.metric is Metric.COSINE else faiss.IndexFlatL2(dimension)
    if codes:
        index = faiss.IndexIVFPQFastScan(quantizer, dimension, lists, codes, 4, metric)
        index.by_residual = True
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = seed, 1
    else:
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, metric)
    index.cp.spherical = space.metric is Metric.COSINE
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # small blocks are fine: no warnings
    count = min(len(rows), max(_TRAINING_ROWS_PER_LIST * lists, _TRAINING_ROWS_MIN))
    picked: Rows = rows
    if count < len(rows):
        picked = rows[np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]
    index.train(np.ascontiguousarray(padded(picked, dimension)))
    return index


def _fill(index: Any, rows: Rows) -> npt.NDArray[np.integer[Any]]:
    """Add all rows, numbered from 0; the list of each, uint16 or uint32 (n,)."""
    list_of_row: npt.NDArray[np.integer[Any]] = np.empty(len(rows), lists_dtype(index.nlist))
    for start in range(0, len(rows), _ADD_CHUNK_ROWS):
        chunk = np.ascontiguousarray(padded(rows[start : start + _ADD_CHUNK_ROWS], index.d))
        index.add(chunk)
    for number in range(index.nlist):
        list_of_row[ids_of_list(index, number)] = number
    return list_of_row


def lists_dtype(lists: int) -> np.dtype[Any]:
    """How the list of a row is stored in `LISTS_NAME`."""
    return np.dtype(np.uint16 if lists <= 1 << 16 else np.uint32)


def ids_of_list(index: Any, number: int) -> npt.NDArray[np.int64]:
    """Row numbers stored in one list, a copy."""
    lists = index.invlists
    size = lists.list_size(number)
    if size == 0:
        return np.empty(0, np.int64)
    ids: npt.NDArray[np.int64] = faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
    return ids


def rank_lists(
    space: VectorSpace, centroids: RowBlock, queries: Rows
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All lists for each query, nearest first: coarse scores as the index wants them, float32 (m, lists), and lists, int64."""
    scores, lists = centroids.nearest_batch(queries, centroids.row_count)
    return (-scores if space.metric is Metric.EUCLIDEAN else scores), lists


def _calibrate(
    block: RowBlock, index: Any, list_of_row: npt.NDArray[np.integer[Any]], model: DensityModel, seed: int
) -> Calibration:
    coarse = RowBlock(VectorSpace(block.space.metric, index.d), centroids_of(index))
    costs = calibration.costs_of(block.space.row_width, coding_for(block.space.dimension)[1])
    curves = []
    sample = None
    for k in calibration.KS:
        if k >= block.row_count:
            continue
        sample = calibration.draw_sample(block, seed + k, k + calibration.TIES_SPARE, calibration.SAMPLE_ROWS[k])
        queries = padded(sample.queries, index.d)
        scores, lists = rank_lists(block.space, coarse, queries)
        rank_of_list = np.empty(lists.shape, np.int32)
        np.put_along_axis(rank_of_list, lists, np.arange(index.nlist, dtype=np.int32)[None, :], axis=1)
        nprobes = _grid(rank_of_list, sample.truth[:, :k], list_of_row)
        widest = nprobes[-1]
        depth = min(calibration.CANDIDATES_MAX[k], block.row_count)
        candidates = search_lists_batch(index, queries, scores[:, :widest], lists[:, :widest], depth)
        grid = calibration.Grid(nprobes, block.row_count / index.nlist, costs)
        curves.append(calibration.calibrate(k, sample, rank_of_list, list_of_row, candidates=candidates, grid=grid))
    assert sample is not None
    sizes = np.bincount(list_of_row, minlength=index.nlist).astype(np.float32)
    inverse_costs = calibration.inverse_list_costs(sizes, costs)
    even = _covered(model, padded(sample.queries, index.d), list_of_row[sample.truth], sizes, inverse_costs)
    uneven = _covered_in_regions(block, model, list_of_row, inverse_costs, seed + 1)
    return Calibration(curves, even, uneven)


def _covered(
    model: DensityModel,
    queries: Rows,
    truth_lists: npt.NDArray[np.integer[Any]],
    allowed: npt.NDArray[np.float32],
    inverse_costs: npt.NDArray[np.float32],
) -> list[float]:
    """The share of true neighbours inside the lists that make up each of `LEVELS` of the model's sum, the worst over `KS`.

    Lists are taken as a search takes them: those first that promise most for the time they cost.
    """
    worst = np.ones(len(calibration.LEVELS))
    for k in calibration.KS:
        if k > truth_lists.shape[1]:
            continue
        before = np.empty((len(queries), k))
        for i, query in enumerate(queries):
            hits = model.odds(*model.similarity_laws(query), allowed, k) * allowed
            order = np.argsort(-hits * inverse_costs)
            reached = hits[order].cumsum()
            share = np.empty(len(allowed))
            share[order] = (reached - hits[order]) / reached[-1]
            before[i] = share[truth_lists[i, :k]]
        worst = np.minimum(worst, [(before < level).mean() for level in calibration.LEVELS])
    return [float(share) for share in worst]


def _covered_in_regions(
    block: RowBlock,
    model: DensityModel,
    list_of_row: npt.NDArray[np.integer[Any]],
    inverse_costs: npt.NDArray[np.float32],
    seed: int,
) -> list[float]:
    """`_covered` under filters that keep only the rows nearest to some row, the worst over them."""
    rng = np.random.default_rng(seed)
    worst = np.ones(len(calibration.LEVELS))
    for share in calibration.REGION_SHARES:
        count = int(share * block.row_count)
        if count <= max(calibration.KS):
            continue
        centre = np.ascontiguousarray(block.rows[rng.integers(block.row_count)])
        region = np.argpartition(-block.similarities(centre), count)[:count]
        if count > calibration.REGION_ROWS_MAX:
            region = rng.choice(region, calibration.REGION_ROWS_MAX, replace=False)
        # Queries from far and from inside; the latter are taken out of the region, or they would find themselves.
        inner = rng.choice(region, calibration.REGION_SAMPLE_ROWS // 2, replace=False)
        region = np.setdiff1d(region, inner)
        outer = rng.choice(block.row_count, min(calibration.REGION_SAMPLE_ROWS, block.row_count), replace=False)
        inside = RowBlock(block.space, np.ascontiguousarray(block.rows[region]))
        allowed = np.bincount(list_of_row[region], minlength=model.list_count).astype(np.float32)
        for picked in (np.setdiff1d(outer, region), inner):
            queries = np.ascontiguousarray(block.rows[picked])
            depth = min(max(calibration.KS), len(region))
            if len(queries) == 0:
                continue
            _, truth = nearest(inside, queries, depth, seed)
            wide = padded(queries, model.width)
            covered = _covered(model, wide, list_of_row[region[truth]], allowed, inverse_costs)
            worst = np.minimum(worst, covered)
    return [float(share) for share in worst]


def _fit_density(block: RowBlock, index: Any, list_of_row: npt.NDArray[np.integer[Any]], seed: int) -> DensityModel:
    euclidean = block.space.metric is Metric.EUCLIDEAN
    model = density.fit_laws(
        block.rows, lambda number: ids_of_list(index, number), index.nlist, index.d, euclidean=euclidean
    )
    rng = np.random.default_rng(seed)
    own = rng.choice(block.row_count, min(_TAIL_QUERIES, block.row_count), replace=False)
    others = rng.choice(block.row_count, min(_TAIL_ROWS, block.row_count), replace=False)
    sampled = RowBlock(block.space, np.ascontiguousarray(block.rows[np.sort(others)]))
    lists = list_of_row[np.sort(others)]
    measured = []
    for row in own:
        query = np.ascontiguousarray(block.rows[row])
        mu, inverse_spread = model.similarity_laws(padded(query, index.d))
        z = (sampled.similarities(query) - mu[lists]) * inverse_spread[lists]
        measured.append(z[np.sort(others) != row])
    return model.with_tail(density.fit_tail(np.concatenate(measured)))


def _grid(
    rank_of_list: npt.NDArray[np.int32], truth: npt.NDArray[np.int64], list_of_row: npt.NDArray[np.integer[Any]]
) -> list[int]:
    """The nprobe values looked at: every one at first, then steps of about 8 %, up to where nearly all neighbours lie inside."""
    ranks = np.sort(rank_of_list[np.arange(len(truth))[:, None], list_of_row[truth]].ravel())
    enough = int(ranks[min(len(ranks) - 1, int(len(ranks) * calibration.COVERAGE_MAX))]) + 1
    grid = [1]
    while grid[-1] < enough:
        grid.append(min(enough, max(grid[-1] + 1, round(grid[-1] * 1.08))))
    return grid


def centroids_of(index: Any) -> Rows:
    """float32 (lists, dimension in the index), a copy."""
    flat = faiss.downcast_index(index.quantizer)
    values: Rows = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d).copy()
    return values


def search_lists_batch(
    index: Any, queries: Rows, scores: npt.NDArray[np.float32], lists: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """Candidates int64 (m, count) by approximate score out of the given lists (m, p) of each query; -1 = no more."""
    scores, lists = np.ascontiguousarray(scores), np.ascontiguousarray(lists)
    values = np.empty((len(queries), count), np.float32)
    rows = np.empty((len(queries), count), np.int64)
    index.search_preassigned_c(
        len(queries), pointer(queries), count, pointer(lists), pointer(scores), pointer(values), pointer(rows), False,
        faiss.SearchParametersIVF(nprobe=lists.shape[1]),
    )  # fmt: skip
    return rows
