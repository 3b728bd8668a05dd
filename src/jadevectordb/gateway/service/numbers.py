"""Numbers as JSON should show them: a float32 in the fewest digits that read back as the same float32 (0.1, not 0.10000000149)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_POWERS = 10.0 ** np.arange(23)  # exact as float64
_DIGITS_MIN, _DIGITS_MAX = 6, 9  # 9 significant digits always suffice for a float32


def shortest(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64 of the same shape whose shortest decimal form is the shortest one of each float32.

    With m an integer below 2^53 and 10^k exact, m / 10^k is the float64 nearest to that decimal, so printing it gives the
    decimal back. The fewest digits that survive the way back to float32 are taken.
    """
    exact = values.astype(np.float64)
    result = exact.copy()
    magnitude = np.abs(exact)
    simple = (magnitude >= 1e-12) & (magnitude < 1 << 24)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(np.where(simple, magnitude, 1.0))).astype(np.int64)
    open_ = simple & (exact != np.rint(exact))  # integers are exact already
    for digits in range(_DIGITS_MIN, _DIGITS_MAX + 1):
        places = np.clip(digits - 1 - exponent, 0, len(_POWERS) - 1)
        power = _POWERS[places]
        rounded = np.rint(exact * power) / power
        fits = open_ & (rounded.astype(np.float32) == values)
        result[fits] = rounded[fits]
        open_ &= ~fits
        if not open_.any():
            break
    odd = open_ | ((magnitude != 0) & ~simple & np.isfinite(magnitude))
    if odd.any():
        result[odd] = values[odd].astype("U32").astype(np.float64)
    return result
