"""Health and reflection, as every gRPC tool knows them: `grpc.health.v1` and `grpc.reflection`, v1 and v1alpha.

Health is answered without a credential, whatever stands in the way of the rest; so its calls have threads of their own, which
nobody can hold up but themselves, and only so many may watch. Reflection says what the .proto files say; it is for signed-in
callers, because it is a stream that holds a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.table import HEALTH, REFLECTION, RPC_OPERATIONS, Kind, Rpc
from jadevectordb.model.errors import ErrorCode, JadeError

_SERVING = health_pb2.HealthCheckResponse.SERVING


_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = "?"  # under this name all services that do not exist are watched


class Health:
    """Thread-safe. The server as a whole goes by the name ""."""

    def __init__(self, services: Iterable[str], watchers_max: int) -> None:
        self._names = ("", HEALTH, *services)
        self._stopping = False
        self._watches_pool = ThreadPoolExecutor(2, thread_name_prefix="jade-rpc-watch")
        self._servicer = health.HealthServicer()
        self._watchers_max = watchers_max
        self._watchers = 0  # 0 <= _watchers <= _watchers_max
        self._lock = threading.Lock()
        for name in self._names:
            self._servicer.set(name, _SERVING)

    def rpcs(self) -> tuple[Rpc, ...]:
        """Those that are answered at once; `Watch` has a handler of its own."""
        return (
            Rpc(HEALTH, "Check", RPC_OPERATIONS[f"/{HEALTH}/Check"], health_pb2.HealthCheckRequest, self._check),
            Rpc(HEALTH, "List", RPC_OPERATIONS[f"/{HEALTH}/List"], health_pb2.HealthListRequest, self._list),
        )

    def _check(self, call: Call, request: Any) -> Any:
        if request.service not in self._names:
            raise JadeError(ErrorCode.NOT_FOUND, f"There is no service {request.service!r:.200}.")
        return self._status()

    def _list(self, call: Call, request: Any) -> Any:
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._names, self._status()))

    def _status(self) -> Any:
        return health_pb2.HealthCheckResponse(status=_NOT_SERVING if self._stopping else _SERVING)

    def watch_handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """A stream that holds no thread while nothing changes."""

        def watch(
            request: Any, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None] | None = None
        ) -> Any:
            with self._lock:
                full = self._watchers >= self._watchers_max
                self._watchers += not full
            if full:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watch already: use Check.")
            if not context.add_callback(self._left):
                self._left()
                return None
            if request.service not in self._names:
                request.service = _UNKNOWN
            return self._servicer.Watch(request, context, send_response_callback)

        watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # how gRPC is told
        watch.experimental_thread_pool = self._watches_pool  # type: ignore[attr-defined]
        return grpc.unary_stream_rpc_method_handler(
            watch,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )

    def _left(self) -> None:
        with self._lock:
            self._watchers -= 1

    def stopping(self) -> None:
        """From now on NOT_SERVING."""
        self._stopping = True
        self._servicer.enter_graceful_shutdown()

    def close(self) -> None:
        self._watches_pool.shutdown(wait=True)


def reflection_rpcs(services: Iterable[str]) -> tuple[Rpc, ...]:
    """The two versions of the service have the same messages on the wire."""
    servicer: Any = reflection.ReflectionServicer((*services, HEALTH, *REFLECTION))

    def answers(call: Call, requests: Iterator[Any]) -> Iterator[Any]:
        found: Iterator[Any] = servicer.ServerReflectionInfo(requests, call.context)
        return found

    return tuple(
        Rpc(
            service,
            "ServerReflectionInfo",
            RPC_OPERATIONS[f"/{service}/ServerReflectionInfo"],
            reflection_pb2.ServerReflectionRequest,
            answers,
            Kind.BOTH_STREAM,
        )
        for service in REFLECTION
    )
