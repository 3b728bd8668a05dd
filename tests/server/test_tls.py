"""TLS and client certificates over a real server: REST and gRPC answer those they should, and nobody else."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import trustme
from tests.serving import ServerProcess, serving

import jadevectordb as jade


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        server = self.authority.issue_cert("localhost", "127.0.0.1")
        self.client = self.authority.issue_cert("somebody@example.org")
        self.forged = self.stranger.issue_cert("somebody@example.org")
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        self.authority.cert_pem.write_to_path(str(self.ca))
        server.cert_chain_pems[0].write_to_path(str(self.certificate))
        server.private_key_pem.write_to_path(str(self.key))

    def flags(self, *, mutual: bool) -> list[str]:
        flags = ["--tls-certificate", str(self.certificate), "--tls-key", str(self.key)]
        return [*flags, "--tls-client-ca", str(self.ca)] if mutual else flags

    def context(self, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            client.configure_cert(context)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=[False, True], ids=["tls", "mtls"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[tuple[ServerProcess, bool]]:
    with serving(tmp_path_factory.mktemp("tls") / "data", *certificates.flags(mutual=request.param)) as running:
        yield running, request.param


def health(server: ServerProcess, context: ssl.SSLContext) -> int:
    host, _, port = re.sub("https://", "", server.url).partition(":")
    with closing(http.client.HTTPSConnection(host, int(port), context=context, timeout=60)) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status


def test_rest_over_tls(server: tuple[ServerProcess, bool], certificates: Certificates) -> None:
    running, mutual = server
    assert running.url.startswith("https://")
    assert health(running, certificates.context(certificates.client)) == 200
    for client in (None, certificates.forged):
        if mutual:
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                health(running, certificates.context(client))
        else:
            assert health(running, certificates.context(client)) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        health(running, ssl.create_default_context())


def test_the_client_over_tls(server: tuple[ServerProcess, bool], certificates: Certificates) -> None:
    running, mutual = server
    with jade.Client(running.url, verify=certificates.context(certificates.client)) as client:
        database = client.create_database(f"secure-{mutual}", dimension=2)
        database.upsert(["a", "b"], [[1, 0], [0, 1]])
        assert [hit.id for hit in database.search([1, 0.1], k=1)] == ["a"]


def test_grpc_over_tls(server: tuple[ServerProcess, bool], certificates: Certificates) -> None:
    running, mutual = server
    root = certificates.ca.read_bytes()
    key = certificates.client.private_key_pem.bytes()
    chain = certificates.client.cert_chain_pems[0].bytes()
    trusted = grpc.ssl_channel_credentials(root, key, chain)
    for credentials, welcome in ((trusted, True), (grpc.ssl_channel_credentials(root), not mutual)):
        with grpc.secure_channel(running.grpc.replace("127.0.0.1", "localhost"), credentials) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            if welcome:
                assert check(b"", timeout=60) == b"\x08\x01"
            else:
                with pytest.raises(grpc.RpcError):
                    check(b"", timeout=60)


def test_plain_speech_to_a_tls_port_is_no_way_in(
    server: tuple[ServerProcess, bool], certificates: Certificates
) -> None:
    running, _ = server
    host, _, port = running.url.removeprefix("https://").partition(":")
    with closing(socket.create_connection((host, int(port)), 60)) as connection:
        connection.settimeout(60)
        connection.sendall(b"GET /v2/databases HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            answer = b""
        assert b"200" not in answer[:20]
    assert health(running, certificates.context(certificates.client)) == 200
