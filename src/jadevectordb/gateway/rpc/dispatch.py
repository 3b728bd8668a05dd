"""From bytes to bytes: what happens to every call around its handler. gRPC hands over raw messages; no stubs are generated.

Order: is the answer still wanted, who asks, may they; then the message is received, parsed, the handler called, the answer
packed. To gRPC every method is one that streams requests: so a handler is called as soon as a call begins, and a caller
without rights is refused before anything it sends is waited for. On the wire there is no difference.

An error becomes a status with the precise code in the trailing metadata; what nobody foresaw becomes INTERNAL with a sentence,
and the log has the trace.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from jadevectordb.gateway.access.operations import OPERATIONS, Operation, Scope
from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.errors import CODE_KEY, RETRYABLE_KEY, STATUS, is_internal, sentence_of, trailing_metadata
from jadevectordb.gateway.rpc.node import OK, Node
from jadevectordb.gateway.rpc.table import Kind, Rpc
from jadevectordb.gateway.service.meters import Meter
from jadevectordb.model.errors import ErrorCode, JadeError

logger = logging.getLogger("jadevectordb.rpc")

_INTERNAL = grpc.StatusCode.INTERNAL
_NOTHING = nullcontext()


class Served:
    """One RPC as gRPC calls it. Made once at start. pool: threads of its own, None for those of the server."""

    def __init__(self, node: Node, rpc: Rpc, pool: ThreadPoolExecutor | None = None) -> None:
        self.node = node
        self.rpc = rpc
        self.operation: Operation = OPERATIONS[rpc.operation]
        self.meter: Meter = node.services.telemetry.meter("grpc", rpc.kind.value, rpc.path, rpc.operation)
        node.meters.append(self.meter)
        self._parse: Callable[[bytes], Any] = rpc.request.FromString
        self._handler: Callable[[Call, Any], Any] = rpc.handler
        self._pool = pool
        self._by_database = self.operation.scope is Scope.DATABASE

    def method_handler(self) -> grpc.RpcMethodHandler[bytes, bytes]:
        # Functions, not methods: gRPC reads the pool from an attribute
        if self.rpc.kind in (Kind.UNARY, Kind.WAIT):

            def unary(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
                return self._unary(messages, context)

            if self._pool is not None:
                unary.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
            return grpc.stream_unary_rpc_method_handler(unary)
        return grpc.stream_stream_rpc_method_handler(self._stream)

    # The forms of a call

    def _unary(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        ending = _Ending(self, context)
        call = ending.call
        try:
            with self.node.long_calls.holding() if self.rpc.kind is Kind.WAIT else _NOTHING:
                call.admit()
                request = self._receive(ending, messages)
                self._resolve(call, request)
                packed: bytes = self._handler(call, request).SerializeToString()
            ending.done(len(packed))
            return packed
        except JadeError as error:
            ending.failed(error)
        except Exception:
            ending.unforeseen()
        finally:
            ending.close()

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        ending = _Ending(self, context)
        call, watch, sent = ending.call, self.node.watch, 0
        try:
            with self.node.long_calls.holding():
                call.admit()
                watch.moved(context)
                for answer in self._answers(ending, messages):
                    packed: bytes = answer.SerializeToString()
                    sent += len(packed)
                    yield packed
                    watch.moved(context)
            ending.done(sent)
        except JadeError as error:
            ending.failed(error)
        except Exception:
            ending.unforeseen()
        finally:
            watch.forget(context)
            ending.close()

    def _answers(self, ending: _Ending, messages: Iterator[bytes]) -> Iterator[Any]:
        answers: Iterator[Any]
        if self.rpc.kind is Kind.BOTH_STREAM:
            answers = self._handler(ending.call, self._requests(ending, messages))
        else:
            request = self._receive(ending, messages)
            self._resolve(ending.call, request)
            answers = self._handler(ending.call, request)
        return answers

    # Steps

    def _receive(self, ending: _Ending, messages: Iterator[bytes]) -> Any:
        """The one message of a call."""
        context = ending.call.context
        self.node.watch.moved(context)
        try:
            data = next(messages, None)
        except grpc.RpcError:
            ending.call.check_wanted()
            raise _cancelled() from None
        finally:
            self.node.watch.forget(context)
        if data is None:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "The call was closed without a message.")
        ending.bytes_in = len(data)
        return self._read(data)

    def _requests(self, ending: _Ending, messages: Iterator[bytes]) -> Iterator[Any]:
        """The messages of a stream, as they come."""
        watch, context = self.node.watch, ending.call.context
        try:
            for data in messages:
                watch.moved(context)
                ending.bytes_in += len(data)
                yield self._read(data)
        except grpc.RpcError:
            ending.call.check_wanted()
            raise _cancelled() from None

    def _read(self, data: bytes) -> Any:
        try:
            return self._parse(data)
        except DecodeError:
            name = self.rpc.request.DESCRIPTOR.full_name
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"The message is not a {name}.") from None

    def _resolve(self, call: Call, request: Any) -> None:
        if self._by_database:
            call.resolve(request.shard.database if self.rpc.by_shard else request.database)


class _Ending:
    """A call from its begin to how it ended, counted exactly once."""

    __slots__ = ("_bytes_out", "_context", "_served", "_started", "_status", "bytes_in", "call")

    def __init__(self, served: Served, context: grpc.ServicerContext) -> None:
        self._served = served
        self._context = context
        self._bytes_out = 0
        self._status = "CANCELLED"  # unless it is known to have ended otherwise
        self._started = time.perf_counter()
        self.bytes_in = 0
        served.meter.begin()
        self.call = Call(served.node, served.operation, context)

    def done(self, bytes_out: int) -> None:
        self._status, self._bytes_out = OK, bytes_out
        self.call.audit()

    def failed(self, raised: JadeError) -> NoReturn:
        session = self.call.session_after_error(raised)
        error = self.call.explain(raised)
        status = STATUS[error.code]
        self._status = status.name
        self.call.audit_failure(error)
        if is_internal(error.code):
            logger.warning("%s: %s", self._served.rpc.path, error)
        self._context.set_trailing_metadata(trailing_metadata(error, session))
        self._context.abort(status, sentence_of(error))

    def unforeseen(self) -> NoReturn:
        self._status = _INTERNAL.name
        reference = secrets.token_hex(4)
        logger.exception("%s failed for a reason nobody foresaw (reference %s)", self._served.rpc.path, reference)
        self._context.set_trailing_metadata(((CODE_KEY, "INTERNAL_ERROR"), (RETRYABLE_KEY, "false")))
        self._context.abort(_INTERNAL, f"Something went wrong inside the server; its log says what, under {reference}.")

    def close(self) -> None:
        served = self._served
        served.meter.leave()
        served.meter.record(self._status, time.perf_counter() - self._started, self.bytes_in, self._bytes_out)


def _cancelled() -> JadeError:
    return JadeError(ErrorCode.CANCELLED, "The call was cancelled; what had not begun was not done.")
