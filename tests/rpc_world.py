"""What tests of gRPC share: a whole server in this process on ports the system picked, ways to call it, a clock set by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np

from jadevectordb.gateway.rpc.generated import database_pb2, search_pb2, vectors_pb2, worker_pb2
from jadevectordb.gateway.rpc.server import RpcOptions, RpcServer
from jadevectordb.gateway.service.logs import start_log
from jadevectordb.gateway.service.services import Services
from jadevectordb.server import Server
from jadevectordb.settings.sources import load

ADMIN_PASSWORD = "correct horse battery"
_MODULES = {
    "DatabaseService": database_pb2,
    "VectorService": vectors_pb2,
    "SearchService": search_pb2,
    "WorkerService": worker_pb2,
}
_S = 60.0  # long enough for a busy machine


class HandClock:
    """The clock port, moved by the test."""

    def __init__(self) -> None:
        self.moment_s = 1000.0

    def now_ms(self) -> int:
        return 1_700_000_000_000 + int(self.moment_s * 1000)

    def monotonic_s(self) -> float:
        return self.moment_s


class Caller:
    """Calls RPCs by name over one channel. metadata: sent with every call."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.channel = channel
        self.metadata = metadata

    def __call__(self, rpc: str, /, timeout: float = _S, **fields: Any) -> Any:
        """The answer of `Service/Method` to a request of these fields."""
        method, request = self.method(rpc, **fields)
        return method(request, timeout=timeout, metadata=self.metadata)

    def method(self, rpc: str, /, kind: str = "unary_unary", **fields: Any) -> tuple[Any, Any]:
        service, _, name = rpc.partition("/")
        module = _MODULES[service]
        request, answer = getattr(module, f"{name}Request"), getattr(module, f"{name}Response")
        make = getattr(self.channel, kind)
        path = f"/jadevectordb.v1.{rpc}"
        return make(
            path, request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        ), request(**fields)

    def fails(self, rpc: str, /, **fields: Any) -> Failed:
        try:
            answer = self(rpc, **fields)
        except grpc.RpcError as error:
            return Failed(error)
        raise AssertionError(f"{rpc} was answered: {answer}")

    def with_metadata(self, *metadata: tuple[str, str]) -> Caller:
        return Caller(self.channel, metadata)


class Failed:
    """How a call failed."""

    def __init__(self, error: Any) -> None:
        self.status: str = error.code().name
        self.message: str = error.details()
        self.metadata: dict[str, Any] = dict(error.trailing_metadata() or ())
        self.code: str = self.metadata.get("jade-code", "")
        self.retryable: bool = self.metadata.get("jade-retryable") == "true"
        packed = self.metadata.get("jade-details-bin")
        self.details: dict[str, Any] = msgspec.json.decode(packed) if packed else {}

    def __repr__(self) -> str:
        return f"Failed({self.status}, {self.code}, {self.message!r})"


@contextlib.contextmanager
def services(folder: Path, **settings: Any) -> Iterator[Services]:
    """Everything a server is made of, not listening. settings: `section__name`."""
    flags = {name.replace("__", "."): value for name, value in settings.items()}
    known = load(None, {}, {"server.data": str(folder / "data"), "server.grpc_port": -1, **flags})
    with start_log("info", "json", str(folder / "server.log")) as log:
        server = Server(known, log.recent)
        try:
            yield server.services
        finally:
            server.close()


@contextlib.contextmanager
def listening(
    services: Services, options: RpcOptions | None = None, grace_s: float = 60.0
) -> Iterator[tuple[RpcServer, str]]:
    server = RpcServer(services, "127.0.0.1", 0, options)
    port = server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        server.stop(grace_s)


@contextlib.contextmanager
def rpc_world(
    folder: Path, options: RpcOptions | None = None, **settings: Any
) -> Iterator[tuple[Caller, RpcServer, Services]]:
    """An open server, and a caller over one channel."""
    with (
        services(folder, **{"auth__mode": "open-loopback", **settings}) as built,
        listening(built, options) as (server, address),
        grpc.insecure_channel(address) as channel,
    ):
        yield Caller(channel), server, built


def packed(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()
