"""How the benchmarks measure: one thread, CPU seconds beside wall time, rivals interleaved, best of several rounds.

Machines are shared and noisy. Ratios taken between rounds that alternate within one run hold; single absolute figures don't.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Search = Callable[[np.ndarray], Sequence[int]]  # one query in, row numbers out


@dataclass
class Timing:
    """recall: @10 against the truth. qps: queries per CPU second of the calling thread, best round. p50_us..: wall, that round."""

    recall: float
    qps: float
    p50_us: float
    p95_us: float
    p99_us: float


def recall_of(found: Sequence[Sequence[int]], truth: np.ndarray) -> float:
    hits = sum(len(set(map(int, f)) & set(t.tolist())) for f, t in zip(found, truth, strict=True))
    return hits / truth.size


def one_round(search: Search, queries: np.ndarray) -> tuple[float, np.ndarray, list[Sequence[int]]]:
    """(CPU seconds of this thread, wall seconds of each query, results)."""
    walls, found = np.empty(len(queries)), []
    cpu = time.thread_time()
    for i, query in enumerate(queries):
        started = time.perf_counter()
        found.append(search(query))
        walls[i] = time.perf_counter() - started
    return time.thread_time() - cpu, walls, found


def side_by_side(
    searches: dict[str, Search], queries: np.ndarray, truth: np.ndarray, rounds: int = 5
) -> dict[str, Timing]:
    """Run all in turn, round by round; the best round of each counts, so that a neighbour's burst hits nobody's figure."""
    best: dict[str, tuple[float, np.ndarray, list[Sequence[int]]]] = {}
    for search in searches.values():
        one_round(search, queries[:100])
    for _ in range(rounds):
        for name, search in searches.items():
            result = one_round(search, queries)
            if name not in best or result[0] < best[name][0]:
                best[name] = result
    return {name: _timing(*result, truth) for name, result in best.items()}


def _timing(cpu: float, walls: np.ndarray, found: list[Sequence[int]], truth: np.ndarray) -> Timing:
    p50, p95, p99 = np.percentile(walls * 1e6, [50, 95, 99])
    return Timing(
        round(recall_of(found, truth), 4), round(len(walls) / cpu, 1), round(p50, 1), round(p95, 1), round(p99, 1)
    )


def cheapest(
    name: str,
    settings: Sequence[int],
    make: Callable[[int], Search],
    target: float,
    data: tuple[np.ndarray, np.ndarray],
) -> tuple[int, Search]:
    """The first setting (ascending in cost) whose measured recall reaches the target."""
    queries, truth = data
    for setting in settings:
        search = make(setting)
        if recall_of([search(q) for q in queries], truth) >= target:
            return setting, search
    raise SystemExit(f"{name} does not reach recall {target}")
