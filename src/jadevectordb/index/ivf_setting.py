"""What a search of inverted lists needs again and again, made once: a calibrated setting, and a thread's candidate buffers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.index.api import Plan
from jadevectordb.index.calibration import Calibration, Step
from jadevectordb.index.faiss_calls import faiss, pointer
from jadevectordb.index.probing import even_level, uneven_level

_BUFFERS_MAX = 32  # candidate buffers a thread keeps


class Setting:
    """A calibrated step made ready: the faiss parameters and the plan told to `explain`, shared by all threads, never changed."""

    __slots__ = ("candidates", "even_level", "nprobe", "parameters", "plan", "recall", "uneven_level")

    def __init__(self, step: Step, recall: float, calibration: Calibration) -> None:
        self.even_level = even_level(calibration, step.coverage)
        self.uneven_level = uneven_level(calibration, step.coverage)
        self.recall = recall
        self.nprobe = step.nprobe
        self.candidates = step.candidates
        self.parameters = faiss.SearchParametersIVF(nprobe=step.nprobe)
        self.plan = Plan(
            "index", f"calibrated for recall {recall:g}", step.candidates, nprobe=step.nprobe, lists=step.nprobe
        )


class Buffers(threading.local):
    """Candidate buffers of one thread, with their pointers: making them anew costs as much as a small search."""

    def __init__(self) -> None:
        self.by_count: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Any, Any]] = {}

    def of(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Any, Any]:
        found = self.by_count.get(count)
        if found is None:
            if len(self.by_count) >= _BUFFERS_MAX:
                self.by_count.clear()
            rows, values = np.empty(count, np.int64), np.empty(count, np.float32)
            found = self.by_count[count] = rows, values, pointer(rows), pointer(values)
        return found
