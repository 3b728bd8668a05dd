"""Which search structure a block of rows gets, as users name it."""

from __future__ import annotations

from enum import StrEnum


class IndexKind(StrEnum):
    FLAT = "FLAT"  # no structure: every row is compared, always exact
    IVF = "IVF"  # inverted lists of 4-bit product codes, candidates compared exactly
    HNSW = "HNSW"  # a graph of near neighbours
    LSH = "LSH"  # sign random projections
    AUTO = "AUTO"  # FLAT for small blocks, IVF for large ones
