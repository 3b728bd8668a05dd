"""Numbers inside strings: which strings are decimal numbers, and which number each one means.

Clients of version 1 of the REST interface store numbers as text or send them as text, so its filters compare the two by value. Filters,
their evaluator and the columns behind it must agree on which strings those are; they agree because this is the only place that says so.

A string is a decimal number when what is left after trimming white space is an optional sign, ASCII digits with at most one decimal point
among or around them, and optionally an exponent: `7`, ` -007 `, `+3.50`, `.5`, `5.`, `1e-07`. Exponents belong to it because that is how
Python and JavaScript write small and large floats. Not numbers: `NaN`, `inf`, `0x10`, `1_000`, `1,5`, digits of other scripts, and what
is too large for a number in metadata (`1e999`, an integer of more than 4,096 bits).
Its value is the one that JSON gives the same text: digits alone are an integer, exactly; everything else is the nearest float64.
"""

from __future__ import annotations

import math
import re
from typing import Final

from jadevectordb.model import limits

_SHAPE: Final = re.compile(r"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_LENGTH_MAX: Final = 1300  # characters after trimming; the largest integers that are allowed have 1234 digits


def numeric_value(text: str) -> int | float | None:
    """The number that the string is, or None when it is not a decimal number."""
    trimmed = text.strip()
    shape = _SHAPE.fullmatch(trimmed) if len(trimmed) <= _LENGTH_MAX else None
    if shape is None:
        return None
    if shape.lastindex is None:  # neither point nor exponent
        whole = int(trimmed)
        return whole if whole.bit_length() <= limits.INTEGER_BITS_MAX else None
    value = float(trimmed)
    return value if math.isfinite(value) else None
