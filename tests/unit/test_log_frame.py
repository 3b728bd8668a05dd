"""Frames, file headers and the committed record as bytes: they come back, they notice damage, and they stay what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.log import frame
from jadevectordb.log.frame import Committed, DamageError, FileHeader, encode_entry
from jadevectordb.model.operations import Barrier, Delete, Entry

U64 = st.integers(0, 2**64 - 1)
SHARD = st.integers(0, 2**32 - 1)
SEQUENCE = st.integers(1, 2**63)
HEADERS = st.builds(FileHeader, U64, U64, U64, U64, st.dictionaries(SHARD, SEQUENCE, max_size=70))


@given(HEADERS, st.data())
def test_file_headers_come_back_and_notice_any_flipped_bit(header: FileHeader, data: st.DataObject) -> None:
    encoded = header.encode()
    assert len(encoded) % frame.FRAME_ALIGNMENT == 0 and frame.file_header_bytes(encoded) == len(encoded)
    assert frame.parse_file_header(encoded) == header
    damaged = bytearray(encoded)
    damaged[data.draw(st.integers(0, 2**20 - 1)) * len(encoded) >> 20] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamageError):
        frame.file_header_bytes(damaged)
        frame.parse_file_header(damaged)


@given(
    st.lists(st.tuples(SHARD, SEQUENCE, st.integers(0, 2**63), st.integers(0, 40)), min_size=1, max_size=5),
    U64,
    st.integers(0, 2**62),
    st.integers(0, 2**50).map(lambda n: n * 64),
    U64,
)
def test_frames_come_back(
    entries: list[tuple[int, int, int, int]], salt: int, number: int, offset: int, committed: int
) -> None:
    encoded = [encode_entry(shard, Entry(Delete(["x"] * count), time)) for shard, _, time, count in entries]
    sequences = [sequence for _, sequence, _, _ in entries]
    pieces = frame.frame_pieces(encoded, sequences, salt=salt, number=number, offset=offset, committed=committed)
    data = b"before" + b"".join(pieces)
    assert len(data) - 6 == frame.frame_bytes(encoded) and (len(data) - 6) % 64 == 0
    header = frame.parse_frame_header(data, 6, salt=salt, offset=offset)
    assert header[:5] == (number, offset, len(data) - 6, committed, len(entries))
    rows = frame.parse_table(data, 6, header, salt=salt)
    for row, one, (shard, sequence, time, _) in zip(rows, encoded, entries, strict=True):
        assert (row.shard, row.sequence, row.time, row.length, row.start % 16) == (shard, sequence, time, one.length, 0)
        entry_bytes = data[6 + row.start : 6 + row.start + row.length]
        frame.check_entry(entry_bytes, row, offset=0)
        assert entry_bytes == b"".join(one.parts)


def one_frame(offset: int, salt: int = 7) -> bytes:
    encoded = [encode_entry(3, Entry(Barrier(), 5))]
    return b"".join(frame.frame_pieces(encoded, [9], salt=salt, number=2, offset=offset, committed=64))


def test_a_frame_counts_only_where_it_was_written() -> None:
    data = one_frame(128)
    assert frame.parse_frame_header(data, 0, salt=7, offset=128).number == 2
    with pytest.raises(DamageError, match="was written at 128") as caught:
        frame.parse_frame_header(data, 0, salt=7, offset=192)
    assert caught.value.offset == 192
    with pytest.raises(DamageError, match="header does not match"):
        frame.parse_frame_header(data, 0, salt=8, offset=128)  # another file's


def test_every_bit_of_header_table_and_entry_counts() -> None:
    data = one_frame(128)
    header = frame.parse_frame_header(data, 0, salt=7, offset=128)
    [row] = frame.parse_table(data, 0, header, salt=7)
    used = [*range(64 + frame.ROW_BYTES), *range(row.start, row.start + row.length)]
    for bit in range(8):
        for at in used:
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(DamageError):
                found = frame.parse_frame_header(damaged, 0, salt=7, offset=128)
                [place] = frame.parse_table(damaged, 0, found, salt=7)
                frame.check_entry(damaged[place.start : place.start + place.length], place, offset=0)


@given(U64, U64, U64, st.integers(0, 8 * frame.COMMITTED_BYTES - 1))
def test_the_committed_record_comes_back_and_notices_any_flipped_bit(first: int, last: int, end: int, bit: int) -> None:
    record = Committed(first, last, end)
    data = bytearray(record.encode())
    assert frame.parse_committed(data) == record == frame.parse_committed(bytes(data) + b"more")
    data[bit // 8] ^= 1 << bit % 8
    assert frame.parse_committed(data) is None
    assert frame.parse_committed(b"") is None


def test_the_bytes_of_version_1_stay_what_they_are() -> None:
    """A log written today must be read by every later version: change this only together with the version."""
    assert FileHeader(7, 4, 1, 640, {3: 9}).encode().hex() == FILE_HEADER
    assert one_frame(128).hex() == FRAME
    assert Committed(1, 4, 320).encode().hex() == COMMITTED


FILE_HEADER = (
    "4a414445206c6f6701000000800000000700000000000000c2921b6ed6b4c40104000000000000000100000000000000"
    "800200000000000001000000000000000300000000000000090000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000007c8bc72f5b2b5dee"
)
FRAME = (
    "6a46726d01000000010000000000000002000000000000008000000000000000c0000000000000004000000000000000"
    "ebe608a6da64fdc3967bc7c24537e24a0300000000000000090000000000000005000000000000001600000000000000"
    "9d7b7dbc955105b70000000000000000010600000000000000000000060000009505a0a0000100000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
)
COMMITTED = "4a41444520656e6401000000000000000100000000000000040000000000000040010000000000005f98b077c8fdd38e"
