"""Sets of rows as packed bits: what filters produce, tombstones are kept in, and faiss takes as a selector.

A bitmap of n rows is a uint8 array of 8 * ceil(n / 64) bytes; row r is bit r % 8 of byte r // 8 (little bit order, as
`faiss.IDSelectorBitmap` reads it). Bits beyond n are zero, so that counting and combining need no mask, and the length
is a multiple of 8 bytes, so that everything runs on 64-bit words. At a million rows a combination costs a few microseconds.
Bitmaps are values: a function here never changes its arguments unless its name says so.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bitmap: TypeAlias = npt.NDArray[np.uint8]
RowArray: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_BIT = np.left_shift(np.uint8(1), np.arange(8, dtype=np.uint8))


def size_bytes(row_count: int) -> int:
    return ((row_count + 63) >> 6) << 3


def empty(row_count: int) -> Bitmap:
    """No row."""
    return np.zeros(size_bytes(row_count), np.uint8)


def full(row_count: int) -> Bitmap:
    """Every row."""
    bits = np.full(size_bytes(row_count), 255, np.uint8)
    _clear_padding(bits, row_count)
    return bits


def from_mask(mask: Mask) -> Bitmap:
    """mask: bool (n,)."""
    bits = np.zeros(size_bytes(len(mask)), np.uint8)
    packed = np.packbits(mask, bitorder="little")
    bits[: len(packed)] = packed
    return bits


def from_rows(rows: npt.NDArray[np.integer], row_count: int) -> Bitmap:
    """rows: any integer dtype, any order, each in 0..row_count-1."""
    mask = np.zeros(row_count, np.bool_)
    mask[rows] = True
    return from_mask(mask)


def to_rows(bits: Bitmap) -> RowArray:
    """The rows of the set, ascending, int64."""
    # Bytes first: a sparse set touches few of them, and unpacking all bits of a million rows would cost more than the search.
    at = np.flatnonzero(bits)
    if len(at) * 4 > len(bits):
        return np.flatnonzero(np.unpackbits(bits, bitorder="little").view(np.bool_))  # bools are looked through faster
    inside = np.unpackbits(bits[at], bitorder="little").view(np.bool_).reshape(-1, 8)
    byte, bit = np.nonzero(inside)
    return at[byte] * 8 + bit


def count(bits: Bitmap) -> int:
    return int(np.bitwise_count(bits.view(np.uint64)).sum())


def both(a: Bitmap, b: Bitmap) -> Bitmap:
    return np.bitwise_and(a.view(np.uint64), b.view(np.uint64)).view(np.uint8)


def either(a: Bitmap, b: Bitmap) -> Bitmap:
    return np.bitwise_or(a.view(np.uint64), b.view(np.uint64)).view(np.uint8)


def without(a: Bitmap, b: Bitmap) -> Bitmap:
    """Rows of a that are not in b."""
    return np.bitwise_and(a.view(np.uint64), ~b.view(np.uint64)).view(np.uint8)


def inverse(bits: Bitmap, row_count: int) -> Bitmap:
    flipped = np.bitwise_not(bits)
    _clear_padding(flipped, row_count)
    return flipped


def contains(bits: Bitmap, rows: npt.NDArray[np.integer]) -> Mask:
    """For each row, whether it is in the set; bool, as long as rows."""
    inside: Mask = (bits[rows >> 3] & _BIT[rows & 7]) != 0
    return inside


def first_rows(bits: Bitmap, row_count: int) -> Bitmap:
    """The set among the first rows of a larger bitmap, as a copy of the smaller size."""
    head = bits[: size_bytes(row_count)].copy()
    _clear_padding(head, row_count)
    return head


def clear_in_place(bits: Bitmap, rows: npt.NDArray[np.integer]) -> None:
    """Take rows out of the set; a row may be named more than once."""
    np.bitwise_and.at(bits, rows >> 3, np.bitwise_not(_BIT[rows & 7]))


def _clear_padding(bits: Bitmap, row_count: int) -> None:
    whole, rest = divmod(row_count, 8)
    if rest:
        bits[whole] &= (1 << rest) - 1
        whole += 1
    bits[whole:] = 0
