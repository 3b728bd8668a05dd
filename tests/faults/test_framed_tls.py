"""TLS between nodes: those whose certificate the cluster's authority signed talk, nobody else does."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Ping, SnapshotRead
from tests.tls_files import tls_files
from tests.transport_world import WAIT_S, Scripted, answering, ask, asking


@pytest.fixture(scope="module")
def ours() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def theirs() -> trustme.CA:
    return trustme.CA()


def test_calls_small_and_large(ours: trustme.CA, tmp_path: Path) -> None:
    payload = os.urandom(5 << 20)
    scripted = Scripted()
    scripted.at_once = lambda call: (
        scripted.pong(call) if isinstance(call, Ping) else payload[call.offset : call.offset + call.length]
    )
    node = tls_files(tmp_path / "n1", ours, "127.0.0.1")
    with answering(scripted, tls=node) as server, asking(tls=node) as transport:
        assert ask(transport, server.address, Ping()) == scripted.pong(Ping())
        for _ in range(5):  # a busy machine may be silent for so long that a connection is given up
            connections = transport.peers()[0].connections
            for length in (0, 1, 20_000, len(payload)):
                read = SnapshotRead(snapshot="s", path="p", offset=0, length=length)
                assert ask(transport, server.address, read) == payload[:length]
            if transport.peers()[0].connections == connections:
                break
        assert transport.peers()[0].connections == connections


def test_who_has_no_or_a_false_certificate_is_not_let_in(ours: trustme.CA, theirs: trustme.CA, tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.at_once = scripted.pong
    node = tls_files(tmp_path / "n1", ours, "127.0.0.1")
    stranger = tls_files(tmp_path / "stranger", theirs, "127.0.0.1", trusted=ours)
    with answering(scripted, tls=node) as server:
        for tls in (stranger, None):
            with asking(tls=tls) as transport:
                with pytest.raises(JadeError) as raised:
                    transport.call(server.address, Ping(), WAIT_S)
                assert raised.value.code is ErrorCode.UNAVAILABLE and raised.value.details["sent"] is False
        with closing(socket.create_connection((server.host, server.port), timeout=WAIT_S)) as silent:
            assert silent.recv(100) == b""  # it never began with TLS
        with asking(tls=node) as transport:
            assert ask(transport, server.address, Ping())
        assert not scripted._calls


def test_a_node_that_another_authority_signed_or_of_another_name_is_not_asked(
    ours: trustme.CA, theirs: trustme.CA, tmp_path: Path
) -> None:
    scripted = Scripted()
    scripted.at_once = scripted.pong
    node = tls_files(tmp_path / "n1", ours, "127.0.0.1")
    false = [
        tls_files(tmp_path / "false", theirs, "127.0.0.1", trusted=ours),
        tls_files(tmp_path / "other", ours, "n7.example"),
    ]
    for tls in [*false, None]:
        with answering(scripted, tls=tls) as server, asking(tls=node) as transport:
            with pytest.raises(JadeError) as raised:
                transport.call(server.address, Ping(), WAIT_S)
            assert raised.value.code is ErrorCode.UNAVAILABLE and raised.value.details["sent"] is False


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    missing = TlsFiles(certificate=tmp_path / "a", key=tmp_path / "b", authority=tmp_path / "c")
    for use in (lambda: answering(Scripted(), tls=missing), lambda: asking(tls=missing)):
        with pytest.raises(JadeError, match="can't be used") as raised, use():
            pass
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT
