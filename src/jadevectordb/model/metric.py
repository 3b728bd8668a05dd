"""How two vectors are compared, as users name it."""

from __future__ import annotations

from enum import StrEnum


class Metric(StrEnum):
    """The measure of likeness of a database. Fixed when the database is made."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    DOT = "dot"
    HAMMING = "hamming"  # vectors of 0 and 1; the number of places where they differ
