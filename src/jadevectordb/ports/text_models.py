"""Language models as ports: texts to vectors, and how well a text answers a query. They run on this machine or not at all."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

import numpy as np
import numpy.typing as npt


class EmbeddingModel(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def tokens_max(self) -> int:
        """A longer text is cut here."""
        ...

    def embed(self, texts: Seq[str]) -> npt.NDArray[np.float32]:
        """(n, dimension), unit length. A text's vector does not depend on the texts beside it beyond rounding."""
        ...


class CrossEncoder(Protocol):
    @property
    def name(self) -> str: ...
    def score(self, query: str, texts: Seq[str], batch: int) -> list[float]:
        """How well each text answers the query, 0 to 1. batch: texts run at once."""
        ...
