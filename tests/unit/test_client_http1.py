"""The reader of answers: every cut of a good answer reads the same, and what is not well-formed is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.client.http1 import AnswerReader, field_value, request_head
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX

FIXED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\nRetry-After: 2\r\n\r\n"
    b'4;note="x"\r\nhell\r\n7\r\no world\r\n0\r\nX-Trailer: y\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + FIXED


@pytest.mark.parametrize("wire", [FIXED, CHUNKED, INTERIM])
@given(data=st.data())
def test_however_it_is_cut(wire: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1))))
    reader = AnswerReader()
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert bytes(reader.body) == b"hello world"
    assert reader.status == (503 if wire is CHUNKED else 200)
    assert reader.keep_alive
    if wire is CHUNKED:
        assert reader.headers["retry-after"] == "2"


def test_a_body_until_the_connection_closes() -> None:
    reader = AnswerReader()
    assert not reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhel")
    assert not reader.feed(b"lo")
    assert reader.end()
    assert bytes(reader.body) == b"hello"
    assert not reader.keep_alive


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", False),  # more than was asked for
    ],
)
def test_whether_the_connection_can_be_used_again(head: bytes, kept: bool) -> None:
    reader = AnswerReader()
    assert reader.feed(head)
    assert reader.keep_alive is kept


def test_repeated_headers_are_joined() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nVary: a\r\nVary:b \t\r\nContent-Length: 0\r\n\r\n")
    assert reader.headers["vary"] == "a, b"


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 099 Early\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nA: b\r\n continued\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (ANSWER_HEADERS_MAX + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * ANSWER_HEAD_BYTES_MAX,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno header\r\n\r\n",
    ],
)
def test_what_is_not_well_formed_is_refused(wire: bytes) -> None:
    whole = AnswerReader()
    with pytest.raises(JadeError) as refused:
        whole.feed(wire)
        whole.end()
    assert refused.value.code in (ErrorCode.IO_ERROR, ErrorCode.REQUEST_TOO_LARGE)
    byte_by_byte = AnswerReader()
    with pytest.raises(JadeError):
        for i in range(len(wire)):
            byte_by_byte.feed(wire[i : i + 1])
        byte_by_byte.end()


def test_chunks_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.client.http1.ANSWER_BYTES_MAX", 8)
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n")
    with pytest.raises(JadeError) as refused:
        reader.feed(b"1\r\na\r\n")
    assert refused.value.code is ErrorCode.REQUEST_TOO_LARGE


def test_an_answer_cut_off() -> None:
    for wire in (b"", FIXED[:20], FIXED[:-1], CHUNKED[:-2]):
        reader = AnswerReader()
        if wire:
            assert not reader.feed(wire)
        with pytest.raises(JadeError) as cut:
            reader.end()
        assert cut.value.code is ErrorCode.UNAVAILABLE
        assert cut.value.details["phase"] == ("receive" if wire else "send")


def test_heads_and_their_values() -> None:
    assert (
        request_head("GET", "/v2/info", "Host: a\r\n", 0)
        == b"GET /v2/info HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    )
    assert field_value("jadevdb_x-Y.z", "key") == "jadevdb_x-Y.z"
    for value in ("a\r\nX: y", "a\nb", "", " a", "ключ", "a\x00"):
        with pytest.raises(JadeError) as refused:
            field_value(value, "key")
        assert "key" in refused.value.message
