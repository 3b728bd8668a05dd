"""From a calibration to the setting of one search: the nearest stored target, and interpolation between the ks measured."""

from __future__ import annotations

import bisect
import math

import numpy as np

from jadevectordb.index.calibration import KS, LEVELS, TARGETS, Calibration, Step

_UNEVEN_MARGIN = 0.15  # of what is missing to full coverage
UNEVEN_CANDIDATES = (
    1.25  # times the calibrated: rows of one region are alike, and their codes tell them apart less well
)
K_CALIBRATED_MAX = KS[-1]  # beyond it, lists are chosen by the density model


def step_for(calibration: Calibration, recall: float, k: int) -> Step | None:
    """The setting that reaches this recall for the best k; None: only an exact search keeps the promise.

    Up to the smallest k measured its own setting serves (fewer neighbours are easier to find). Between two, nprobe and candidates
    are interpolated geometrically. Beyond the largest, candidates grow in proportion and nprobe is that of the largest: too
    few for so many neighbours, so the caller must choose the lists by `coverage`.
    """
    at = bisect.bisect_left(TARGETS, recall - 1e-9)
    if at == len(TARGETS):
        return None
    steps = {curve.k: curve.steps[at] for curve in calibration.curves}
    low, high = steps.get(KS[0]), steps.get(KS[1])
    if k <= KS[0] or low is None:
        return low if k <= KS[0] else None
    if high is None:
        return None
    if k > KS[1]:
        return Step(high.nprobe, math.ceil(high.candidates * k / KS[1]), high.recall, high.coverage)
    share = math.log(k / KS[0]) / math.log(KS[1] / KS[0])
    return Step(
        math.ceil(_between(low.nprobe, high.nprobe, share)),
        max(k, math.ceil(_between(low.candidates, high.candidates, share))),
        min(low.recall, high.recall),
        low.coverage * (1.0 - share) + high.coverage * share,
    )


def even_level(calibration: Calibration, coverage: float) -> float:
    """The share of the density model's sum that covers this share of the neighbours, where the filter is even around the query."""
    return _level(calibration.even_coverage, coverage)


def uneven_level(calibration: Calibration, coverage: float) -> float:
    """The same under a filter that is correlated with the vectors; other filters than those measured may be a little worse."""
    return _level(calibration.uneven_coverage, coverage + _UNEVEN_MARGIN * (1.0 - coverage))


def _level(measured: list[float], coverage: float) -> float:
    covered = np.maximum.accumulate(measured)
    if len(covered) == 0 or coverage > covered[-1]:
        return 1.0
    return float(np.interp(coverage, covered, LEVELS))


def _between(low: float, high: float, share: float) -> float:
    """Geometric interpolation."""
    return math.exp(math.log(low) * (1.0 - share) + math.log(high) * share)
