"""What every process of a server does to take connections: the socket, the event loop, the web server's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Callable

import uvicorn

from jadevectordb.gateway.rest.app import Application
from jadevectordb.gateway.rest.fast_path import FastProtocol
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.settings.schema import Settings


def check_processes(settings: Settings) -> None:
    """Raises INVALID_ARGUMENT where several processes can't share a port and memory."""
    possible = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT") and hasattr(os, "memfd_create")
    if settings.server.processes > 1 and not possible:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"server.processes is {settings.server.processes}: several processes need Linux, this is {sys.platform}. Leave it at 1.",
        )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """shared: other processes of this server listen on the same port. Raises UNAVAILABLE."""
    try:
        return _bound(host, port, shared)
    except OSError as error:
        raise JadeError(
            ErrorCode.UNAVAILABLE,
            f"Can't listen on {host}:{port} ({error.strerror}): is another server running there? Choose another --port or --host.",
        ) from None


def listen_first(host: str, port: int) -> socket.socket:
    """The first of several that share a port, which nobody else may have. Raises UNAVAILABLE."""
    with contextlib.closing(listen(host, port)) as alone:  # sharing would let a second server in by mistake
        free: int = alone.getsockname()[1]
    return listen(host, free, shared=True)


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def configuration(given: Settings, application: Application) -> uvicorn.Config:
    settings, tls = given.server, given.tls
    return uvicorn.Config(
        application,
        http=FastProtocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        limit_concurrency=-(-settings.connections_max // settings.processes),
        backlog=2048,
        ssl_certfile=tls.certificate or None,
        ssl_keyfile=tls.key or None,
        ssl_ca_certs=tls.client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls.client_ca else ssl.CERT_NONE,
    )
