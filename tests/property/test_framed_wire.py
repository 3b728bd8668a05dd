"""Frames are found again however the bytes arrive; whatever else arrives neither proves anybody nor takes memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.adapters.framed_greeting import GREETING_BYTES_MAX, Greeting, NodeIdentity, Side
from jadevectordb.model.errors import ErrorCode, JadeError

FRAMES = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300)),
    max_size=12,
)


@given(FRAMES, st.lists(st.integers(1, 400), min_size=1))
def test_any_cut_gives_the_same_frames(frames: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(b"".join(wire.pack(*frame)) for frame in frames)
    splitter = wire.Splitter(300)
    found, position, turn = [], 0, 0
    while position < len(stream):
        piece = stream[position : position + cuts[turn % len(cuts)]]
        found += [(number, kind, code, bytes(payload)) for number, kind, code, payload in splitter.feed(piece)]
        position, turn = position + len(piece), turn + 1
    assert found == frames


def test_a_large_frame_in_small_pieces() -> None:
    payload = bytes(range(256)) * 40_000
    stream = b"".join(wire.pack(1, wire.BYTES_ANSWER, 0, payload)) * 2
    splitter = wire.Splitter(len(payload))
    found = [frame for at in range(0, len(stream), 1000) for frame in splitter.feed(stream[at : at + 1000])]
    assert [bytes(frame[3]) for frame in found] == [payload, payload]


@given(st.binary(min_size=4, max_size=200))
def test_what_is_no_frame_is_refused_or_short(garbage: bytes) -> None:
    splitter = wire.Splitter(100)
    try:
        for _ in range(50):
            for _, _, _, payload in splitter.feed(garbage):
                assert len(payload) <= 100
            assert splitter._held_bytes <= 110 + len(garbage)
    except JadeError as error:
        assert error.code is ErrorCode.REQUEST_TOO_LARGE


def greeting(side: Side, *, cluster: str = "c1", secret: str = "secret", newest: int = 1, node: str = "") -> Greeting:
    nonce = (b"a" if side is Side.ASKER else b"b") * 32
    return Greeting(side, NodeIdentity(node or side.value, cluster, secret), nonce, newest)


def exchange(asker: Greeting, answerer: Greeting) -> None:
    sides, frames = [answerer, asker], asker.begin()
    while frames:
        frames = [reply for kind, payload in frames for reply in sides[0].receive(kind, memoryview(payload))]
        sides.reverse()


def test_both_sides_are_sure_after_one_exchange() -> None:
    asker, answerer = greeting(Side.ASKER), greeting(Side.ANSWERER)
    exchange(asker, answerer)
    assert asker.is_done and answerer.is_done
    assert (asker.other_node, answerer.other_node) == ("answerer", "asker")
    assert asker.protocol == answerer.protocol == 1


def test_the_newest_version_that_both_speak() -> None:
    asker, answerer = greeting(Side.ASKER, newest=7), greeting(Side.ANSWERER)
    exchange(asker, answerer)
    assert asker.is_done and answerer.is_done and asker.protocol == answerer.protocol == 1


@pytest.mark.parametrize(
    ("other", "code", "words"),
    [
        ({"secret": "another"}, ErrorCode.UNAUTHORIZED, "secret"),
        ({"cluster": "c2"}, ErrorCode.CONFLICT, "cluster c2"),
    ],
)
def test_who_does_not_belong_is_refused_with_the_reason(other: dict[str, str], code: ErrorCode, words: str) -> None:
    asker, answerer = greeting(Side.ASKER, **other), greeting(Side.ANSWERER)  # type: ignore[arg-type]
    with pytest.raises(JadeError, match=words) as raised:
        exchange(asker, answerer)
    assert raised.value.code is code
    assert not asker.is_done and not answerer.is_done


def test_versions_without_a_common_one() -> None:
    asker, answerer = greeting(Side.ASKER), greeting(Side.ANSWERER)
    asker._own = type(asker._own)("jade nodes", 9, 8, "c1", "new", b"a" * 32)
    with pytest.raises(JadeError, match="versions 8 to 9") as raised:
        exchange(asker, answerer)
    assert raised.value.code is ErrorCode.FORMAT_TOO_NEW


def test_a_proof_can_not_be_reflected() -> None:
    asker = greeting(Side.ASKER)
    ((_, hello),) = asker.begin()
    ((kind, proof),) = asker.receive(wire.HELLO, memoryview(hello))  # its own greeting back, nonce and all
    with pytest.raises(JadeError):
        asker.receive(kind, memoryview(proof))
    assert not asker.is_done


@given(
    st.sampled_from(Side),
    st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=GREETING_BYTES_MAX // 16)), max_size=4),
    st.booleans(),
)
def test_nobody_gets_in_by_chance(side: Side, frames: list[tuple[int, bytes]], hello_first: bool) -> None:
    one = greeting(side)
    if hello_first:
        other = greeting(Side.ANSWERER if side is Side.ASKER else Side.ASKER, secret="guessed")
        frames = [other._hello(), *frames]
    try:
        for kind, payload in frames:
            one.receive(kind, memoryview(payload))
    except JadeError:
        pass
    assert not one.is_done


def test_the_secret_is_not_shown() -> None:
    assert "hush" not in repr(NodeIdentity("n", "c", "hush"))
    with pytest.raises(JadeError):
        NodeIdentity("n", "c", "")
