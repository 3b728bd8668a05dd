"""One other node, as this node asks it: every call has a deadline, is tried again where that is safe, and trips the breaker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from jadevectordb.gateway.rpc.errors import error_of, jade_code_of
from jadevectordb.gateway.rpc.generated import worker_pb2 as wire
from jadevectordb.gateway.rpc.peer.cancellation import Cancellation
from jadevectordb.gateway.rpc.peer.connections import Connection, ConnectionPool
from jadevectordb.gateway.rpc.peer.policy import (
    DEADLINE_S,
    BreakerStatus,
    CallKind,
    CircuitBreaker,
    Failure,
    RetryPolicy,
    broke_connection,
    verdict_of,
)
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock

_PATH = "/jadevectordb.v1.WorkerService/"
Credential = tuple[tuple[str, str], ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What is known of a peer. connections: open now; in_use: calls under way; tries and retries: since the start."""

    address: str
    breaker: BreakerStatus
    connections: int
    in_use: int
    calls: int
    tries: int
    failed: int


class Peer:
    """Thread-safe. credential: call metadata that says who asks. jitter: random numbers, 0 <= x < 1.

    Methods raise what the peer raised, with `details["peer"]`, or UNAVAILABLE (not reached, or not asked because the breaker is
    open), TIMEOUT (no answer before the deadline), CANCELLED. timeout_s covers all tries of a call; None is the default
    of its kind. Writes are tried again only when they carry a request id: then a repetition is applied once.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        clock: Clock,
        jitter: Callable[[], float],
        credential: Credential = (),
        retry: RetryPolicy | None = None,
    ) -> None:
        self.address = pool.address
        self._pool = pool
        self._clock = clock
        self._jitter = jitter
        self._credential = credential
        self._retry = retry or RetryPolicy()
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker()
        self._calls = self._tries = self._failed = 0
        self._closing = Cancellation()

    # The calls

    def search_shard(
        self, request: wire.SearchShardRequest, timeout_s: float | None = None, cancellation: Cancellation | None = None
    ) -> wire.SearchShardResponse:
        return self._call(
            "SearchShard", request, wire.SearchShardResponse, CallKind.SEARCH, True, timeout_s, cancellation
        )

    def write_batch(
        self, request: wire.WriteBatchRequest, timeout_s: float | None = None, cancellation: Cancellation | None = None
    ) -> wire.WriteBatchResponse:
        once = bool(request.request_id)
        return self._call("WriteBatch", request, wire.WriteBatchResponse, CallKind.WRITE, once, timeout_s, cancellation)

    def delete(
        self, request: wire.DeleteRequest, timeout_s: float | None = None, cancellation: Cancellation | None = None
    ) -> wire.DeleteResponse:
        # Not repeatable without a request id: between two tries the vector may have been written anew
        once = bool(request.request_id)
        return self._call("Delete", request, wire.DeleteResponse, CallKind.WRITE, once, timeout_s, cancellation)

    def health(self, timeout_s: float | None = None) -> wire.HealthResponse:
        return self._call("Health", wire.HealthRequest(), wire.HealthResponse, CallKind.HEALTH, True, timeout_s, None)

    def stats(self, timeout_s: float | None = None) -> wire.StatsResponse:
        return self._call("Stats", wire.StatsRequest(), wire.StatsResponse, CallKind.OTHER, True, timeout_s, None)

    def shard_info(self, database: str, timeout_s: float | None = None) -> wire.ShardInfoResponse:
        request = wire.ShardInfoRequest(database=database)
        return self._call("ShardInfo", request, wire.ShardInfoResponse, CallKind.OTHER, True, timeout_s, None)

    def assign_shard(
        self, request: wire.AssignShardRequest, timeout_s: float | None = None
    ) -> wire.AssignShardResponse:
        # Fenced by map version and term: the same assignment twice is one
        return self._call("AssignShard", request, wire.AssignShardResponse, CallKind.OTHER, True, timeout_s, None)

    def remove_shard(
        self, request: wire.RemoveShardRequest, timeout_s: float | None = None
    ) -> wire.RemoveShardResponse:
        return self._call("RemoveShard", request, wire.RemoveShardResponse, CallKind.OTHER, True, timeout_s, None)

    # State

    def status(self) -> PeerStatus:
        with self._lock:
            breaker = self._breaker.status(self._clock.monotonic_s())
            calls, tries, failed = self._calls, self._tries, self._failed
        return PeerStatus(self.address, breaker, self._pool.size, self._pool.in_use, calls, tries, failed)

    def sweep(self) -> None:
        self._pool.sweep()

    def close(self) -> None:
        """Ends calls under way with CANCELLED. Idempotent."""
        self._closing.cancel()
        self._pool.close()

    # One call: tries until it is answered, given up, or out of time

    def _call(
        self,
        name: str,
        request: Any,
        answer: type[T],
        kind: CallKind,
        repeatable: bool,
        timeout_s: float | None,
        cancellation: Cancellation | None,
    ) -> T:
        limit_s = DEADLINE_S[kind] if timeout_s is None else timeout_s
        deadline_s = self._clock.monotonic_s() + limit_s
        error: JadeError | None = None
        tries = 0
        with self._lock:
            self._calls += 1
        while True:
            self._check_wanted(name, cancellation)
            now_s = self._clock.monotonic_s()
            with self._lock:
                ticket = self._breaker.admit(now_s)
                waiting_s = self._breaker.status(now_s).retry_in_s if ticket is None else 0.0
                self._tries += ticket is not None
            if ticket is None:
                raise error or self._not_asked(waiting_s)
            tries += 1
            failure: Failure | None = Failure("CANCELLED")  # unless it is known to have ended otherwise
            try:
                done, failure, error = self._try(name, request, answer, deadline_s - now_s, cancellation)
            finally:
                with self._lock:
                    self._breaker.record(ticket, verdict_of(failure), self._clock.monotonic_s())
                    self._failed += failure is not None
            if failure is None:
                assert done is not None
                return done
            assert error is not None
            delay_s = self._retry.delay_s(
                tries,
                failure,
                repeatable=repeatable,
                remaining_s=deadline_s - self._clock.monotonic_s(),
                jitter=self._jitter(),
            )
            if delay_s is None:
                raise error
            (cancellation or self._closing).wait(delay_s)

    def _try(
        self, name: str, request: Any, answer: type[T], timeout_s: float, cancellation: Cancellation | None
    ) -> tuple[T | None, Failure | None, JadeError | None]:
        connection = self._pool.acquire()
        broken = False
        try:
            return self._perform(connection, name, request, answer, timeout_s, cancellation), None, None
        except (grpc.FutureCancelledError, ValueError):  # called off, or the channel was closed meanwhile
            return (
                None,
                Failure("CANCELLED"),
                JadeError(ErrorCode.CANCELLED, f"{name} at {self.address} was called off."),
            )
        except grpc.RpcError as raised:
            call: Any = raised
            failure = Failure(call.code().name, jade_code_of(call.trailing_metadata()))
            broken = broke_connection(failure)
            return None, failure, error_of(call, self.address)
        finally:
            self._pool.release(connection, broken=broken)

    def _perform(
        self,
        connection: Connection,
        name: str,
        request: Any,
        answer: type[T],
        timeout_s: float,
        cancellation: Cancellation | None,
    ) -> T:
        deserialize = answer.FromString  # type: ignore[attr-defined]
        method = connection.method(_PATH + name, type(request).SerializeToString, deserialize)
        if cancellation is None:
            done: T = method(request, timeout=timeout_s, metadata=self._credential)
            return done
        future = method.future(request, timeout=timeout_s, metadata=self._credential)
        with cancellation.watched_by(future.cancel):
            answered: T = future.result()
            return answered

    def _check_wanted(self, name: str, cancellation: Cancellation | None) -> None:
        if self._closing.is_cancelled or (cancellation is not None and cancellation.is_cancelled):
            raise JadeError(
                ErrorCode.CANCELLED, f"{name} at {self.address} was called off.", details={"peer": self.address}
            )

    def _not_asked(self, waiting_s: float) -> JadeError:
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"{self.address} failed too often and is not asked now (circuit breaker); try again in {waiting_s:.1f} s.",
            details={"peer": self.address, "retry_after_s": round(waiting_s, 3), "breaker": "open"},
        )
