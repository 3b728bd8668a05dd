"""One node asks another: each call of the worker service as it succeeds, comes too late, and fails; over real connections."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.rpc_world import HandClock, packed, rpc_world

from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.rpc.errors import trailing_metadata
from jadevectordb.gateway.rpc.generated import worker_pb2 as wire
from jadevectordb.gateway.rpc.peer.cancellation import Cancellation
from jadevectordb.gateway.rpc.peer.connections import ConnectionPool, channel_opener
from jadevectordb.gateway.rpc.peer.peer import Peer
from jadevectordb.gateway.rpc.peer.peers import Peers
from jadevectordb.gateway.rpc.peer.policy import BreakerState
from jadevectordb.gateway.rpc.peer.pool_policy import PoolLimits
from jadevectordb.gateway.rpc.server import RpcServer
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import BREAKER_FAILURES_MIN, BREAKER_OPEN_S_MIN
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of

WAIT_S = 60.0  # for what must come: a machine may be slow
SERVICE = "jadevectordb.v1.WorkerService"
SHARD = {"database": "d", "shard": 0}
Script = Callable[[int, bytes, grpc.ServicerContext], bytes]
# Every call of the service: how a peer makes it, and an answer
CALLS: dict[str, tuple[Callable[..., Any], Any]] = {
    "SearchShard": (
        lambda p, **o: p.search_shard(wire.SearchShardRequest(shard=SHARD), **o),
        wire.SearchShardResponse(watermark=7),
    ),
    "WriteBatch": (
        lambda p, **o: p.write_batch(wire.WriteBatchRequest(shard=SHARD, request_id="r"), **o),
        wire.WriteBatchResponse(sequence=7),
    ),
    "Delete": (
        lambda p, **o: p.delete(wire.DeleteRequest(shard=SHARD, request_id="r"), **o),
        wire.DeleteResponse(sequence=7),
    ),
    "Health": (lambda p, **o: p.health(**o), wire.HealthResponse(version="7")),
    "Stats": (lambda p, **o: p.stats(**o), wire.StatsResponse(rows=7)),
    "ShardInfo": (lambda p, **o: p.shard_info("d", **o), wire.ShardInfoResponse(shards=[wire.ShardState(rows=7)])),
    "AssignShard": (
        lambda p, **o: p.assign_shard(wire.AssignShardRequest(shard=SHARD), **o),
        wire.AssignShardResponse(),
    ),
    "RemoveShard": (
        lambda p, **o: p.remove_shard(wire.RemoveShardRequest(shard=SHARD), **o),
        wire.RemoveShardResponse(),
    ),
}


class Scripted(grpc.GenericRpcHandler):
    """A real server whose every answer is what the test says: script(number of the call from 1, message, context)."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls = 0
        self.addresses: list[str] = []  # where each call came from: one a connection
        self.moments_s: list[float] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(40)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.calls += 1
            number = self.calls
            self.addresses.append(context.peer())
            self.moments_s.append(time.monotonic())
        return self.script(number, message, context)

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    server = Scripted(script)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def peer_at(address: str, clock: Any = None, limits: PoolLimits | None = None) -> Iterator[Peer]:
    clock = clock or SystemClock()
    peer = Peer(ConnectionPool(address, channel_opener(), clock, limits or PoolLimits()), clock, lambda: 0.5)
    try:
        yield peer
    finally:
        peer.close()


def fail(context: grpc.ServicerContext, error: JadeError, status: grpc.StatusCode) -> bytes:
    context.set_trailing_metadata(trailing_metadata(error))
    context.abort(status, error.message)


def fails(do: Callable[[], Any]) -> JadeError:
    with pytest.raises(JadeError) as caught:
        do()
    return caught.value


# Every call: success, timeout, failure


@pytest.mark.parametrize("name", CALLS)
def test_success(name: str) -> None:
    do, answer = CALLS[name]
    with scripted(lambda n, m, c: answer.SerializeToString()) as server, peer_at(server.address) as peer:
        assert do(peer, timeout_s=WAIT_S) == answer
        assert (peer.status().calls, peer.status().tries, peer.status().failed) == (1, 1, 0)


@pytest.mark.parametrize("name", CALLS)
def test_timeout(name: str) -> None:
    over = threading.Event()
    with scripted(lambda n, m, c: bytes(over.wait(WAIT_S))) as server, peer_at(server.address) as peer:
        try:
            error = fails(lambda: CALLS[name][0](peer, timeout_s=0.05))
        finally:
            over.set()
        assert error.code is ErrorCode.TIMEOUT and error.retryable and error.details["peer"] == server.address
        assert peer.status().tries <= 1, "there was no time left to try again"


@pytest.mark.parametrize("name", CALLS)
def test_failure_crosses_whole(name: str) -> None:
    sent = JadeError(ErrorCode.VERSION_CONFLICT, "Vector 'a' has version 3.", details={"id": "a", "actual": 3})
    with (
        scripted(lambda n, m, c: fail(c, sent, grpc.StatusCode.ABORTED)) as server,
        peer_at(server.address) as peer,
    ):
        error = fails(lambda: CALLS[name][0](peer, timeout_s=WAIT_S))
        assert (error.code, error.message) == (sent.code, sent.message)
        assert error.details == {**sent.details, "peer": server.address}
        assert server.calls == 1, "a refusal is an answer"


def test_nobody_there() -> None:
    with scripted(lambda n, m, c: b"") as server:
        gone = server.address
    with peer_at(gone) as peer:
        error = fails(lambda: peer.health(timeout_s=WAIT_S))
        assert error.code is ErrorCode.UNAVAILABLE and gone in error.message
        assert peer.status().tries == 3


# Retries


def unavailable(context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


def test_tries_again_with_growing_pauses_and_then_succeeds() -> None:
    answer = wire.HealthResponse(version="1")
    with (
        scripted(lambda n, m, c: unavailable(c) if n < 3 else answer.SerializeToString()) as server,
        peer_at(server.address) as peer,
    ):
        assert peer.health(timeout_s=WAIT_S) == answer
        first, second, third = server.moments_s
        assert second - first >= 0.125 and third - second >= 0.25, (
            "100 and 200 ms, and half of that again times the jitter"
        )


@pytest.mark.parametrize(("request_id", "calls"), [("", 1), ("r1", 3)])
def test_a_write_is_repeated_only_under_a_request_id(request_id: str, calls: int) -> None:
    with scripted(lambda n, m, c: unavailable(c)) as server, peer_at(server.address) as peer:
        for number, do in enumerate(
            (
                lambda: peer.write_batch(wire.WriteBatchRequest(request_id=request_id), timeout_s=WAIT_S),
                lambda: peer.delete(wire.DeleteRequest(request_id=request_id), timeout_s=WAIT_S),
            ),
            1,
        ):
            assert fails(do).code is ErrorCode.UNAVAILABLE
            if number * calls <= BREAKER_FAILURES_MIN:
                assert server.calls == number * calls


def test_retries_end_with_the_deadline() -> None:
    with scripted(lambda n, m, c: unavailable(c)) as server, peer_at(server.address) as peer:
        assert fails(lambda: peer.stats(timeout_s=0.12)).code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)
        assert server.calls <= 1


# The circuit breaker


def test_the_breaker_opens_spares_the_peer_and_closes_again() -> None:
    sick = threading.Event()
    sick.set()
    clock = HandClock()
    answer = wire.HealthResponse(version="1")
    with (
        scripted(lambda n, m, c: unavailable(c) if sick.is_set() else answer.SerializeToString()) as server,
        peer_at(server.address, clock) as peer,
    ):
        for _ in range(BREAKER_FAILURES_MIN):
            fails(lambda: peer.write_batch(wire.WriteBatchRequest(), WAIT_S))
        asked = server.calls
        assert peer.status().breaker.state is BreakerState.OPEN
        error = fails(peer.health)
        assert (
            error.code is ErrorCode.UNAVAILABLE
            and error.details["breaker"] == "open"
            and error.details["retry_after_s"] > 0
        )
        assert server.calls == asked, "it was not asked"
        clock.moment_s += BREAKER_OPEN_S_MIN
        fails(lambda: peer.write_batch(wire.WriteBatchRequest(), WAIT_S))
        assert server.calls == asked + 1, "one probe"
        assert peer.status().breaker.state is BreakerState.OPEN
        sick.clear()
        clock.moment_s += 2 * BREAKER_OPEN_S_MIN
        assert peer.health(WAIT_S) == answer
        assert peer.status().breaker.state is BreakerState.CLOSED and peer.status().breaker.opened == 2


def test_refusals_do_not_open_it() -> None:
    refusal = JadeError(ErrorCode.UNKNOWN_DATABASE, "There is none.")
    with (
        scripted(lambda n, m, c: fail(c, refusal, grpc.StatusCode.NOT_FOUND)) as server,
        peer_at(server.address) as peer,
    ):
        for _ in range(30):
            assert fails(lambda: peer.shard_info("d", WAIT_S)).code is ErrorCode.UNKNOWN_DATABASE
        assert server.calls == 30 and peer.status().breaker.state is BreakerState.CLOSED


# Connections


def test_calls_at_the_same_time_have_connections_of_their_own_and_later_ones_use_them_again() -> None:
    together = threading.Barrier(12)

    def answer(number: int, message: bytes, context: grpc.ServicerContext) -> bytes:
        if number <= 12:
            together.wait(WAIT_S)
        return wire.HealthResponse(version="1").SerializeToString()

    with scripted(answer) as server, peer_at(server.address) as peer, ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(peer.health, WAIT_S) for _ in range(12)]:
            assert done.result().version == "1"
        assert len(set(server.addresses)) == 12, "nobody waited behind another"
        assert peer.status().connections == 12 and peer.status().in_use == 0
        for _ in range(5):
            peer.health(WAIT_S)
        assert len(set(server.addresses)) == 12


def test_idle_connections_are_closed_down_to_two() -> None:
    clock = HandClock()
    with scripted(lambda n, m, c: b"") as server, peer_at(server.address, clock) as peer:
        peer.health(WAIT_S)
        assert peer.status().connections == 5
        clock.moment_s += 61
        peer.sweep()
        assert peer.status().connections == 2
        peer.health(WAIT_S)


def test_a_connection_that_broke_is_not_used_again() -> None:
    with scripted(lambda n, m, c: b"") as first:
        address, port = first.address, first.port
        limits = PoolLimits(least=1, initial=1, most=1)
        pool = ConnectionPool(address, channel_opener(), SystemClock(), limits)
        before = pool.acquire()
        pool.release(before, broken=False)
        assert pool.acquire() is before
        pool.release(before, broken=True)
        after = pool.acquire()
        assert after is not before and pool.size == 1
        pool.close()
    with peer_at(f"127.0.0.1:{port}") as peer:
        fails(lambda: peer.health(timeout_s=WAIT_S))
        assert peer.status().connections == 2, "three of the first five were tried, found broken, and closed"


def test_a_peer_that_comes_back_is_found_at_once(tmp_path: Path) -> None:
    with rpc_world(tmp_path / "a") as (_, server, built), peer_at(f"127.0.0.1:{server.port}") as peer:
        assert peer.health(timeout_s=WAIT_S).version
        server.stop(0)
        assert fails(lambda: peer.health(timeout_s=WAIT_S)).code is ErrorCode.UNAVAILABLE
        again = RpcServer(built, "127.0.0.1", server.port)
        again.start()
        try:
            assert peer.health(timeout_s=WAIT_S).version
        finally:
            again.stop(0)


# Calling off


def test_a_search_that_is_called_off_ends_at_the_peer_too() -> None:
    begun, told = threading.Event(), threading.Event()

    def slow(number: int, message: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(told.set)
        begun.set()
        told.wait(WAIT_S)
        return b""

    with scripted(slow) as server, peer_at(server.address) as peer, ThreadPoolExecutor(1) as threads:
        cancellation = Cancellation()
        search = threads.submit(peer.search_shard, wire.SearchShardRequest(), WAIT_S, cancellation)
        assert begun.wait(WAIT_S)
        cancellation.cancel()
        assert fails(search.result).code is ErrorCode.CANCELLED
        assert told.wait(WAIT_S), "the cancellation reached the other side"
        assert (
            fails(lambda: peer.search_shard(wire.SearchShardRequest(), WAIT_S, cancellation)).code
            is ErrorCode.CANCELLED
        )
        assert server.calls == 1 and peer.status().breaker.failures == 0


def test_closing_ends_calls_under_way() -> None:
    begun, over = threading.Event(), threading.Event()

    def slow(number: int, message: bytes, context: grpc.ServicerContext) -> bytes:
        begun.set()
        over.wait(WAIT_S)
        return b""

    with scripted(slow) as server, peer_at(server.address) as peer, ThreadPoolExecutor(1) as threads:
        call = threads.submit(peer.stats, WAIT_S)
        assert begun.wait(WAIT_S)
        peer.close()
        assert fails(call.result).code is ErrorCode.CANCELLED
        over.set()
        assert fails(peer.stats).code is ErrorCode.CANCELLED


def test_peers_are_kept_by_address_and_end_together() -> None:
    with scripted(lambda n, m, c: b"") as server:
        peers = Peers(SystemClock(), channel_opener(), lambda: 0.0)
        assert peers.at(server.address) is peers.at(server.address)
        peers.at(server.address).health(WAIT_S)
        assert [status.address for status in peers.status()] == [server.address]
        peers.forget(server.address)
        assert peers.status() == []
        peers.close()
        peers.close()
        assert fails(lambda: peers.at(server.address)).code is ErrorCode.CLOSED


# Against a real node


def test_a_node_serves_its_shards(tmp_path: Path) -> None:
    with rpc_world(tmp_path) as (call, server, _), peer_at(f"127.0.0.1:{server.port}") as peer:
        name = call("DatabaseService/CreateDatabase", name="d", dimension=4, shards=3).database.id
        rows = np.random.default_rng(1).standard_normal((300, 4), np.float32)
        ids = [f"v{i}" for i in range(300)]
        shards = shards_of(hash_ids(ids), 3)
        for shard in range(3):
            mine = np.flatnonzero(shards == shard)
            columns = {"ids": [ids[i] for i in mine], "vectors": {"packed": packed(rows[mine])}}
            batch = wire.WriteBatchRequest(
                shard={"database": name, "shard": shard}, columns=columns, request_id=f"r{shard}"
            )
            once, again = peer.write_batch(batch, WAIT_S), peer.write_batch(batch, WAIT_S)
            assert once.receipt.count == len(mine) and once.sequence >= 1
            assert again.receipt.duplicate and again.sequence == once.sequence
        query = {"packed": packed([1, 2, 3, 4])}
        whole = call("SearchService/Search", database=name, vector=query, k=10, exact=True)
        found = []
        for shard in range(3):
            request = wire.SearchShardRequest(
                shard={"database": name, "shard": shard}, vector=query, k=10, exact=True, watermark_min=1
            )
            answer = peer.search_shard(request, WAIT_S)
            assert answer.watermark >= 1 and all(shards[ids.index(hit.id)] == shard for hit in answer.hits)
            found += answer.hits
        merged = sorted(found, key=lambda hit: (-hit.score, hit.id))[:10]
        assert [(h.id, h.score) for h in merged] == [(h.id, h.score) for h in whole.hits]
        states = peer.shard_info(name, WAIT_S).shards
        assert [state.rows for state in states] == np.bincount(shards).tolist()
        assert all(state.watermark == state.log_end for state in states)
        gone = peer.delete(
            wire.DeleteRequest(shard={"database": name, "shard": int(shards[0])}, ids=["v0"], request_id="x"), WAIT_S
        )
        assert gone.receipt.count == 1
        stats = peer.stats(WAIT_S)
        assert (stats.databases, stats.shards, stats.rows) == (1, 3, 299) and stats.calls > stats.calls_failed
        assert peer.health(WAIT_S).state == wire.NODE_STATE_HEALTHY
        until_s = time.monotonic() + WAIT_S
        while peer.health(WAIT_S).calls_in_flight != 1:  # the one before may not have ended yet
            assert time.monotonic() < until_s


def test_what_is_routed_wrongly_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with rpc_world(tmp_path) as (call, server, _), peer_at(f"127.0.0.1:{server.port}") as peer:
        name = call("DatabaseService/CreateDatabase", name="d", dimension=1, shards=2).database.id
        ids = [f"v{i}" for i in range(20)]
        other = int(1 - shards_of(hash_ids(["v0"]), 2)[0])
        shard = {"database": name, "shard": other}
        columns = {"ids": ids, "vectors": {"packed": packed(np.ones(20))}}
        for do in (
            lambda: peer.write_batch(wire.WriteBatchRequest(shard=shard, columns=columns), WAIT_S),
            lambda: peer.delete(wire.DeleteRequest(shard=shard, ids=["v0"]), WAIT_S),
        ):
            error = fails(do)
            assert error.code is ErrorCode.CONFLICT and error.details["id"] == "v0" and error.details["asked"] == other
        assert call("VectorService/CountVectors", database=name).count == 0
        nowhere = wire.SearchShardRequest(shard={"database": name, "shard": 2}, vector={"values": [1]})
        assert fails(lambda: peer.search_shard(nowhere, WAIT_S)).code is ErrorCode.INVALID_ARGUMENT
        behind = wire.SearchShardRequest(shard={"database": name, "shard": 0}, vector={"values": [1]}, watermark_min=99)
        assert fails(lambda: peer.search_shard(behind, WAIT_S)).code is ErrorCode.UNAVAILABLE
        assert (
            fails(lambda: peer.assign_shard(wire.AssignShardRequest(shard=shard), WAIT_S)).code
            is ErrorCode.NOT_IMPLEMENTED
        )
