"""What is wrong with vectors a caller gave, said alike by the engine and by the client of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError

NUMERIC_KINDS = "fiub"  # of numpy's dtypes: real numbers and booleans


def bad_row(vectors: Any, dimension: int) -> JadeError | None:
    """The error for the first row to blame, of vectors that make no table of numbers; None when no single row is to blame."""
    if isinstance(vectors, Sequence | np.ndarray) and not isinstance(vectors, str | bytes):
        for row, vector in enumerate(vectors):
            try:
                one = np.asarray(vector)
            except (ValueError, TypeError, OverflowError):
                return invalid_vector(f"Vector {row} is not a flat list of numbers.", row)
            if one.dtype.kind not in NUMERIC_KINDS:
                return invalid_vector(
                    f"Vector {row} holds something that is not a real number (type {one.dtype}).", row
                )
            if one.ndim == 1 and len(one) != dimension:
                return wrong_dimension(row, dimension, len(one))
    return None


def invalid_vector(sentence: str, row: int | None = None) -> JadeError:
    return JadeError(ErrorCode.INVALID_VECTOR, sentence, details={} if row is None else {"row": row})


def wrong_dimension(row: int, expected: int, actual: int) -> JadeError:
    return JadeError(
        ErrorCode.DIMENSION_MISMATCH,
        f"Vector {row} has {actual} values, the database has dimension {expected}: send vectors of {expected} values.",
        details={"row": row, "expected": expected, "actual": actual},
    )
