"""`AsyncClient`: `Client` for programs that run on an event loop. Every method has the same name, arguments and answer.

    async with jade.AsyncClient("http://127.0.0.1:8080", api_key="jadevdb_...") as client:
        db = await client.database("words")
        await db.search(query, k=10)

The same calls and the same decisions as in `sync`, run by tasks instead of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

import numpy.typing as npt

from jadevectordb.client import server_calls
from jadevectordb.client.address import Address
from jadevectordb.client.aio_connections import AsyncPool
from jadevectordb.client.arguments import FilterLike, Include
from jadevectordb.client.call import Call
from jadevectordb.client.connections import tls_context
from jadevectordb.client.core import Core, Retries, Timeouts, settings_of, timeouts_of
from jadevectordb.client.database_calls import EVERYTHING, DatabaseCalls
from jadevectordb.client.nodes import ASK_S_MAX, Nodes, ask_for_map
from jadevectordb.client.sync import WAIT_STEP_S, drawn, new_request_id
from jadevectordb.client.values import DatabaseInfo, Item, ServerInfo
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import Schema

if TYPE_CHECKING:
    from jadevectordb.client.bulk import BulkReport, RowLike

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """A server, for the tasks of one event loop; the arguments are those of `Client`."""

    def __init__(
        self,
        url: str | Iterable[str] | None = None,
        *,
        token: str | None = None,
        api_key: str | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout: Timeouts | float | None = None,
        retries: Retries | None = None,
        connections_max: int = 64,
        verify: bool | str | ssl.SSLContext = True,
        certificate: str | tuple[str, str] | None = None,
    ) -> None:
        addresses, credentials = settings_of(url, token, api_key, user, password, os.environ)
        nodes = Nodes(addresses, drawn())
        self._core = Core(nodes, credentials, timeouts_of(timeout), retries or Retries(), connections_max)
        self._tls = partial(tls_context, verify=verify, certificate=certificate)
        self._pools: dict[Address, AsyncPool] = {}
        self._closed = False
        for address in addresses:
            self._pool(address)
        self._signing_in: asyncio.Future[None] | None = None

    @property
    def url(self) -> str:
        return self._core.url

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.url}>"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        self._closed = True
        for pool in list(self._pools.values()):
            await pool.close()

    # Databases

    async def create_database(
        self,
        name: str,
        dimension: int,
        metric: str = "cosine",
        shards: int | None = None,
        index: str = "AUTO",
        schema: Schema | Mapping[str, Any] | None = None,
        *,
        strict: bool = False,
        text_language: str = "english",
        description: str = "",
        exist_ok: bool = False,
        replication: int | None = None,
        sharding: str | None = None,
        bounds: Sequence[str] | None = None,
        sample: npt.ArrayLike | None = None,
        cells: int | None = None,
    ) -> AsyncDatabase:
        """Make a database; see `Client.create_database`."""
        call = server_calls.create_database(
            name, dimension, metric, shards, index, schema,
            strict=strict, text_language=text_language, description=description, exist_ok=exist_ok,
            replication=replication, sharding=sharding, bounds=bounds, sample=sample, cells=cells,
        )  # fmt: skip
        return AsyncDatabase(self, await self.run(call))

    async def database(self, name: str) -> AsyncDatabase:
        """A database by its name or id. Raises UNKNOWN_DATABASE."""
        return AsyncDatabase(self, await self.run(server_calls.describe(name)))

    async def databases(self) -> list[str]:
        """The names of the databases you may see."""
        return [info.name for info in await self.run(server_calls.databases())]

    async def describe(self, name: str) -> DatabaseInfo:
        """How a database was made, whose it is, and how many vectors it has."""
        return await self.run(server_calls.describe(name))

    async def describe_all(self) -> list[DatabaseInfo]:
        """`describe` for every database you may see, oldest first."""
        return await self.run(server_calls.databases())

    async def drop_database(self, name: str) -> None:
        """Delete a database, by name or id, and everything in it."""
        await self.run(server_calls.drop_database(name))

    # The server

    async def info(self) -> ServerInfo:
        """Version, protocols, features."""
        return await self.run(server_calls.info())

    async def sign_in(self) -> None:
        """Exchange user and password for a session now instead of at the first call."""
        self._core.credentials.token = None
        await self._ensure_signed_in(self._deadline())

    async def call(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """Any route of the server, JSON in and out."""
        return await self.run(server_calls.by_hand(method, path, body, query))

    # Running calls

    async def run(self, call: Call[T]) -> T:
        """Send a call until it is answered, as often and as long as allowed."""
        deadline = self._deadline()
        attempt, again = 0, False
        while True:
            attempt += 1
            token = None
            try:
                if not call.public:
                    await self._ensure_signed_in(deadline)
                token = self._core.credentials.token
                value = await self._once(call, deadline)
                await self._learn(deadline)
                return value
            except JadeError as error:
                if not again and self._core.signs_in_again(call, error, token):
                    again = True
                    continue
                left_s = deadline - time.monotonic()
                pause_s = self._core.retries.pause_s(call, error, attempt, left_s, drawn(), self._core.nodes.tries)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _once(self, call: Call[T], deadline: float) -> T:
        nodes = self._core.nodes
        now_s = time.monotonic()
        address = nodes.choose(now_s)
        try:
            answer = await self._pool(address).exchange(
                self._core.head(call, address),
                call.body,
                careful=not call.repeatable,
                wait_s=call.wait_s,
                deadline=nodes.until(call, now_s, deadline),
                connect_s=nodes.connect_s(self._core.timeouts.connect_s),
            )
            nodes.answered(address, answer)
            return self._core.take(call, answer)
        except JadeError as error:
            nodes.failed(address, error, time.monotonic())
            raise

    def _pool(self, address: Address) -> AsyncPool:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "The client is closed: make a new one.")
        pool = self._pools.get(address)
        if pool is None:  # of two threads that make one at once, one is used
            made = AsyncPool(address, self._tls(address), self._core.timeouts, self._core.connections_max)
            pool = self._pools.setdefault(address, made)
        return pool

    async def _learn(self, deadline: float) -> None:
        """Ask for the nodes when an answer told that they may have changed. Who can't be asked is asked later."""
        if self._core.nodes.wants_map(time.monotonic()):
            with contextlib.suppress(JadeError):
                until = min(deadline, time.monotonic() + ASK_S_MAX)
                gone = self._core.nodes.learn(await self._once(ask_for_map(), until))
                for address in gone:
                    if address in self._pools:
                        await self._pools[address].end_idle()

    async def _ensure_signed_in(self, deadline: float) -> None:
        credentials = self._core.credentials
        while credentials.must_sign_in:
            if self._signing_in is not None and not self._signing_in.done():
                await asyncio.wait([self._signing_in])  # another task does it: look again what came of it
                continue
            self._signing_in = asyncio.get_running_loop().create_future()
            try:
                credentials.take(await self._once(credentials.sign_in(), deadline))
            finally:
                self._signing_in.set_result(None)

    def _deadline(self) -> float:
        return time.monotonic() + self._core.timeouts.total_s


def _run_soon(
    build: Callable[Concatenate[DatabaseCalls, P], Call[T]],
) -> Callable[Concatenate[AsyncDatabase, P], Awaitable[T]]:
    """The method that makes the call and runs it: signature and docstring are those of the call."""

    @wraps(build)
    async def method(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(build(self._calls, *args, **kwargs))

    return method


class AsyncDatabase:
    """A database of a server. Made by `AsyncClient.create_database` and `AsyncClient.database`."""

    def __init__(self, client: AsyncClient, info: DatabaseInfo) -> None:
        self._client = client
        self._run = client.run
        self._calls = DatabaseCalls(info, new_request_id)

    @property
    def id(self) -> str:
        return self._calls.info.id

    @property
    def name(self) -> str:
        return self._calls.info.name

    @property
    def dimension(self) -> int:
        return self._calls.dimension

    @property
    def metric(self) -> str:
        return self._calls.metric

    @property
    def session(self) -> str:
        """See `Database.session`."""
        return self._client._core.session(self.id)

    @session.setter
    def session(self, value: str) -> None:
        self._client._core.remember(self.id, value)

    def __repr__(self) -> str:
        return f"<AsyncDatabase {self.name!r} at {self._client.url}: dimension {self.dimension}, {self.metric}>"

    upsert = _run_soon(DatabaseCalls.upsert)
    update_metadata = _run_soon(DatabaseCalls.update_metadata)
    delete = _run_soon(DatabaseCalls.delete)
    count = _run_soon(DatabaseCalls.count)
    scroll = _run_soon(DatabaseCalls.scroll)
    search = _run_soon(DatabaseCalls.search)
    search_batch = _run_soon(DatabaseCalls.search_batch)
    stats = _run_soon(DatabaseCalls.stats)
    conflicts = _run_soon(DatabaseCalls.conflicts)
    describe = _run_soon(DatabaseCalls.describe)

    @overload
    async def get(self, ids: str, include: Include = ..., consistency: str = ...) -> Item | None: ...  # type: ignore[overload-overlap]
    @overload
    async def get(self, ids: Iterable[str], include: Include = ..., consistency: str = ...) -> list[Item | None]: ...
    async def get(
        self, ids: str | Iterable[str], include: Include = EVERYTHING, consistency: str = ""
    ) -> Item | list[Item | None] | None:
        """One item (None when there is none), or a list as long as the ids given."""
        if isinstance(ids, str):
            return (await self._run(self._calls.get([ids], include, consistency)))[0]
        names = list(ids)
        return await self._run(self._calls.get(names, include, consistency)) if names else []

    @overload
    async def exists(self, ids: str, consistency: str = ...) -> bool: ...  # type: ignore[overload-overlap]
    @overload
    async def exists(self, ids: Iterable[str], consistency: str = ...) -> list[bool]: ...
    async def exists(self, ids: str | Iterable[str], consistency: str = "") -> bool | list[bool]:
        """Whether each id is stored."""
        if isinstance(ids, str):
            return (await self._run(self._calls.exists([ids], consistency)))[0]
        names = list(ids)
        return await self._run(self._calls.exists(names, consistency)) if names else []

    async def items(self, filter: FilterLike = None, include: Include = EVERYTHING) -> AsyncIterator[Item]:
        """Every item that matches, by scrolling."""
        cursor: str | None = None
        while True:
            page = await self.scroll(1000, cursor, filter, include)
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def explain(self, vector: Any = None, **options: Any) -> dict[str, Any]:
        """What `search` with the same arguments does."""
        explanation = (await self.search(vector, **options, explain=True)).explanation
        return {} if explanation is None else explanation.as_dict()

    async def upsert_many(
        self,
        rows: Iterable[RowLike] | AsyncIterable[RowLike],
        batch_rows: int = 1000,
        parallel: int = 4,
        progress: bool = True,
        resume: str | Path | None = None,
    ) -> BulkReport:
        """Write any number of vectors, from an ordinary or an asynchronous iterable; see `Database.upsert_many`."""
        from jadevectordb.client import bulk_run, bulk_tasks

        feed = bulk_tasks.Feed(rows) if isinstance(rows, AsyncIterable) else None
        source = feed if feed is not None else rows
        with bulk_run.opened(source, self._calls, batch_rows, parallel, progress, resume) as upload:  # type: ignore[arg-type]
            await bulk_tasks.run_in_tasks(upload, self.upsert, parallel, feed)
            return upload.report()

    async def wait_indexed(self, timeout: float | None = None) -> None:
        """Return when every row so far is in an indexed segment. Raises TIMEOUT after `timeout` s."""
        await self._wait("wait-indexed", timeout)

    async def compact(self, timeout: float | None = None) -> None:
        """Merge every shard into one segment without dead rows, and wait for it."""
        await self._wait("compact", timeout)

    async def _wait(self, what: str, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            step_s = WAIT_STEP_S if until is None else max(0.0, min(WAIT_STEP_S, until - time.monotonic()))
            try:
                return await self._run(
                    self._calls.wait_step(what, min(step_s, self._client._core.timeouts.total_s / 2))
                )
            except JadeError as error:
                own_word = error.code is ErrorCode.TIMEOUT and "phase" not in error.details
                if not own_word or (until is not None and time.monotonic() >= until):
                    raise
            what = "wait-indexed"  # a compaction that has begun is waited for, not begun anew
