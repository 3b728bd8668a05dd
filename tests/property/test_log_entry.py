"""The entry codec: every operation comes back as it went in, and no bytes whatever make it raise anything but JadeError."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jadevectordb.log.entry import ENTRY_FORMAT_VERSION, decode, encode, encode_parts
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import SHARDS_MAX
from jadevectordb.model.operations import (
    Barrier,
    Delete,
    DeleteWhere,
    Entry,
    Operation,
    PlacedWrite,
    Seal,
    Update,
    Write,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
DOCUMENT = st.binary(max_size=40)
VERSION = st.integers(-1, 2**62)


@st.composite
def writes(draw: st.DrawFn) -> Write:
    ids = draw(st.lists(TEXT, max_size=6))
    width = draw(st.integers(0, 9))
    dtype = draw(st.sampled_from(["<f4", "u1"]))
    vectors = draw(arrays(dtype, (len(ids), width)))
    metadata = draw(st.lists(DOCUMENT, min_size=len(ids), max_size=len(ids)))
    return Write(ids, vectors, metadata, draw(versions(len(ids))))


def versions(count: int) -> st.SearchStrategy[list[int] | None]:
    return st.none() | st.lists(VERSION, min_size=count, max_size=count)


@st.composite
def placed_writes(draw: st.DrawFn) -> PlacedWrite:
    write = draw(writes())
    shards = st.integers(0, SHARDS_MAX - 1)
    places = draw(st.lists(shards, min_size=len(write.ids), max_size=len(write.ids)))
    return PlacedWrite(write.ids, write.vectors, write.metadata, None, places)


@st.composite
def other_operations(draw: st.DrawFn) -> Operation:
    ids = draw(st.lists(TEXT, max_size=6))
    patches = draw(st.lists(DOCUMENT, min_size=len(ids), max_size=len(ids)))
    if_version = draw(versions(len(ids)))
    return draw(
        st.sampled_from(
            [
                Delete(ids, if_version),
                Update(ids, patches, draw(st.booleans()), if_version),
                DeleteWhere(draw(DOCUMENT)),
                Seal(draw(st.booleans())),
                Barrier(),
            ]
        )
    )


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    parts = draw(st.integers(1, 2**31))
    part = draw(st.integers(0, parts - 1))
    operation = draw(writes() | placed_writes() | other_operations())
    seen = draw(st.none() | st.integers(0, 2**63 - 1))
    return Entry(operation, draw(st.integers(0, 2**63 - 1)), draw(TEXT), draw(TEXT), part, parts, seen)


def assert_same(one: Entry, other: Entry) -> None:
    place = (one.time, one.node, one.request_id, one.part, one.parts, one.seen)
    assert place == (other.time, other.node, other.request_id, other.part, other.parts, other.seen)
    if isinstance(one.operation, Write):
        a, b = one.operation, other.operation
        assert isinstance(b, Write)
        assert (a.ids, a.metadata, a.if_version) == (b.ids, b.metadata, b.if_version)
        assert type(a) is type(b) and getattr(a, "places", None) == getattr(b, "places", None)
        assert a.vectors.shape == b.vectors.shape and a.vectors.dtype == b.vectors.dtype
        assert a.vectors.tobytes() == b.vectors.tobytes()  # NaNs included: the log keeps bits, others judge them
    else:
        assert one.operation == other.operation


@given(entries())
def test_round_trip(entry: Entry) -> None:
    data = encode(entry)
    assert b"".join(encode_parts(entry)) == data
    assert_same(entry, decode(data))
    assert encode(decode(data)) == data  # one entry, one encoding


@given(entries(), st.data())
def test_any_changed_byte_is_an_entry_or_a_jade_error(entry: Entry, data: st.DataObject) -> None:
    encoded = bytearray(encode(entry))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)) | st.just(len(encoded)))
    assert_decodes_or_refuses(bytes(encoded[:cut]) + data.draw(st.binary(max_size=3)))


@given(st.binary(max_size=200))
@example(b"")
@example(struct.pack("<BBBxIII", 1, 1, 1, 2**32 - 1, 2**32 - 1, 2**32 - 1))
@example(struct.pack("<BBBxIII", 1, 1, 2, 0, 2**32 - 1, 6) + b"\xdd\xff\xff\xff\xff\x01")  # a list of 4 billion
@example(struct.pack("<BBBxIII", 1, 6, 0, 0, 0, 5) + b"\x95\xcf\xff\xff\xff")
def test_arbitrary_bytes_are_an_entry_or_a_jade_error(data: bytes) -> None:
    assert_decodes_or_refuses(data)
    assert_decodes_or_refuses(bytes([ENTRY_FORMAT_VERSION, 1 + len(data) % 6]) + data)


def assert_decodes_or_refuses(data: bytes) -> None:
    try:
        decode(data)
    except JadeError as error:
        assert error.code in (ErrorCode.CORRUPT, ErrorCode.FORMAT_TOO_NEW)


@pytest.mark.parametrize("place, value", [(0, ENTRY_FORMAT_VERSION + 1), (0, 255), (1, 7), (1, 200)])
def test_what_a_newer_program_wrote_is_refused_as_such(place: int, value: int) -> None:
    data = bytearray(encode(Entry(Barrier(), 1)))
    data[place] = value
    with pytest.raises(JadeError, match="newer JadeVectorDB") as caught:
        decode(bytes(data))
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW


def test_vectors_are_a_read_only_aligned_view_of_the_bytes() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = encode(Entry(Write(["a", "b", "c"], vectors, [b"{}"] * 3), 1))
    for buffer in (data, bytearray(data), memoryview(data)):
        decoded = decode(buffer).operation
        assert isinstance(decoded, Write)
        assert np.shares_memory(decoded.vectors, np.frombuffer(buffer, np.uint8))
        assert decoded.vectors.flags.aligned and decoded.vectors.flags.c_contiguous
        assert not decoded.vectors.flags.writeable


def test_encoding_copies_no_vectors_and_takes_any_layout() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    parts = encode_parts(Entry(Write(["a", "b", "c"], vectors, [b"{}"] * 3), 1))
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), vectors) for part in parts)
    turned = np.asfortranarray(vectors)
    foreign = vectors.astype(">f4")
    assert encode(Entry(Write(["a", "b", "c"], turned, [b"{}"] * 3), 1)) == b"".join(parts)
    assert encode(Entry(Write(["a", "b", "c"], foreign, [b"{}"] * 3), 1)) == b"".join(parts)


def test_the_bytes_of_version_1_stay_what_they_are() -> None:
    """A file written today must be read by every later version: change this only together with the version."""
    entry = Entry(Write(["a"], np.array([[1.0, -2.0]], np.float32), [b'{"n":1}'], [-1]), 65536, "n1", "r1", 1, 2)
    assert encode(entry).hex() == (
        "01010100" "02000000" "01000000" "1d000000" "0000803f000000c0"
        "98ce00010000a26e31a272310102" "91a161" "91c4077b226e223a317d" "91ff"
    )  # fmt: skip
    assert encode(Entry(Barrier(), 0)).hex() == "010600000000000000000000060000009500a0a00001"


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(JadeError, match="surrogate") as caught:
        encode(Entry(Delete(["\ud800"]), 1))
    assert caught.value.code is ErrorCode.INVALID_ID


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 40))
def test_size_is_vectors_and_documents_and_little_more(count: int, width: int) -> None:
    vectors = np.ones((count, width), np.float32)
    write = Write([f"{n:08d}" for n in range(count)], vectors, [b"{}"] * count)
    assert len(encode(Entry(write, 1))) <= vectors.nbytes + count * (8 + 2 + 3) + 64


OF_FORMAT_1 = {
    "010101000200000002000000240000000000803f000080bf0000003f0000004098ce00070000a26e31a27231010292a161a16292c4077b226e223a317dc4027b7d"
    "92ff03": Entry(
        Write(["a", "b"], np.array([[1, -1], [0.5, 2]], np.float32), [b'{"n":1}', b"{}"], [-1, 3]), 7 << 16, "n1", "r1", 1, 2
    ),
    "0102000000000000000000001000000097ce00090000a26e32a0000191a161c0": Entry(Delete(["a"], None), 9 << 16, "n2", "", 0, 1),
    "0103000000000000000000001d00000099ce000a0000a26e32a27232000191a16191c4077b226e223a327dc3c0": Entry(
        Update(["a"], [b'{"n":2}'], True, None), 10 << 16, "n2", "r2", 0, 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("written", OF_FORMAT_1)
def test_what_the_first_format_wrote_is_read_and_still_written(written: str) -> None:
    """These bytes were written before entries could carry a place that they had seen."""
    assert_same(decode(bytes.fromhex(written)), OF_FORMAT_1[written])
    assert encode(OF_FORMAT_1[written]).hex() == written


def test_a_place_is_written_behind_the_rest() -> None:
    plain = encode(Entry(Delete(["a"], None), 9 << 16))
    placed = encode(Entry(Delete(["a"], None), 9 << 16, seen=41))
    assert (plain[0], placed[0]) == (1, 2) and placed[1:-8] == plain[1:]
    assert decode(placed).seen == 41 and decode(plain).seen is None
