"""Packed row sets against Python sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.index import bitmap

universes = st.integers(1, 300).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.sets(st.integers(0, n - 1)))
)


def pack(rows: set[int], n: int) -> bitmap.Bitmap:
    return bitmap.from_rows(np.array(sorted(rows), np.int64), n)


@given(universes)
def test_algebra_agrees_with_python_sets(case: tuple[int, set[int], set[int]]) -> None:
    n, a, b = case
    x, y = pack(a, n), pack(b, n)
    assert bitmap.to_rows(x).tolist() == sorted(a)
    assert bitmap.count(x) == len(a)
    assert bitmap.to_rows(bitmap.both(x, y)).tolist() == sorted(a & b)
    assert bitmap.to_rows(bitmap.either(x, y)).tolist() == sorted(a | b)
    assert bitmap.to_rows(bitmap.without(x, y)).tolist() == sorted(a - b)
    assert bitmap.to_rows(bitmap.inverse(x, n)).tolist() == sorted(set(range(n)) - a)
    assert bitmap.contains(x, np.arange(n)).tolist() == [r in a for r in range(n)]
    bitmap.clear_in_place(x, np.array(sorted(b) * 2, np.int64))
    assert bitmap.to_rows(x).tolist() == sorted(a - b)


def test_full_and_empty_have_no_padding_bits() -> None:
    for n in (1, 7, 8, 63, 64, 65, 1000):
        assert bitmap.count(bitmap.full(n)) == n
        assert bitmap.count(bitmap.empty(n)) == 0
        assert len(bitmap.full(n)) % 8 == 0
