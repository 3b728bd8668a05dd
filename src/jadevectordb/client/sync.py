"""`Client`: databases of a server as a Python program sees them, much as `jadevectordb.open` shows those of a folder.

    import jadevectordb as jade

    with jade.Client("http://127.0.0.1:8080", api_key="jadevdb_...") as client:
        db = client.database("words")
        db.upsert(ids, vectors, metadata)
        db.search(query, k=10, filter={"pos": "noun"}, recall=0.95)

A thin shell: calls are made and read by `database_calls` and `core`; here they meet sockets, clocks and threads.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

import numpy.typing as npt

from jadevectordb.client import server_calls
from jadevectordb.client.address import Address
from jadevectordb.client.arguments import FilterLike, Include
from jadevectordb.client.call import Call
from jadevectordb.client.connections import Pool, tls_context
from jadevectordb.client.core import Core, Retries, Timeouts, settings_of, timeouts_of
from jadevectordb.client.database_calls import EVERYTHING, DatabaseCalls
from jadevectordb.client.nodes import ASK_S_MAX, Nodes, ask_for_map
from jadevectordb.client.values import DatabaseInfo, Item, ServerInfo
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import Schema

if TYPE_CHECKING:
    from jadevectordb.client.bulk import BulkReport, RowLike

P = ParamSpec("P")
T = TypeVar("T")
WAIT_STEP_S = 20.0  # how long one request of a longer wait lasts


class Client:
    """A server, or a cluster of them. Thread-safe: any number of threads may share one, each call has a connection of its own.

    url: else $JADEVECTORDB_URL, else http://127.0.0.1:8080. Of a cluster one node's, or several: a list, or with commas between; the
    client learns the others from it, uses one, and goes on with another when that fails. Who calls: a session token, an API key
    (else $JADEVECTORDB_API_KEY), or user and password, which are exchanged for a session at the first call and again when it
    has expired. timeout: seconds for a whole call, or Timeouts(...). retries: how calls are tried again (see Retries): reads,
    and writes, which the server applies once. connections_max: connections to a node at most; more calls at once wait for one.
    verify, certificate: see `tls_context`.
    Raises JadeError: the server's code, or UNAVAILABLE and TIMEOUT when it can't be reached.
    """

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
        connections_max: int = 16,
        verify: bool | str | ssl.SSLContext = True,
        certificate: str | tuple[str, str] | None = None,
    ) -> None:
        addresses, credentials = settings_of(url, token, api_key, user, password, os.environ)
        nodes = Nodes(addresses, drawn())
        self._core = Core(nodes, credentials, timeouts_of(timeout), retries or Retries(), connections_max)
        self._tls = partial(tls_context, verify=verify, certificate=certificate)
        self._pools: dict[Address, Pool] = {}
        self._closed = False
        for address in addresses:
            self._pool(address)
        self._signing_in = threading.Lock()

    @property
    def url(self) -> str:
        return self._core.url

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Idempotent; calls on their way end as they would."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    # Databases

    def create_database(
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
    ) -> Database:
        """Make a database. The arguments are those of `Store.create_database`; description: for people.

        shards: None, as the server is set. In a cluster: replication, replicas of each shard; sharding, hash (by the hash of the id),
        range, with bounds, the first id of every shard but the first, or vector, with a sample of the vectors to come, (n, dimension),
        and perhaps a number of cells; auto, with a sample, may choose it.

        Raises ALREADY_EXISTS, INVALID_ARGUMENT, FORBIDDEN.
        """
        call = server_calls.create_database(
            name, dimension, metric, shards, index, schema,
            strict=strict, text_language=text_language, description=description, exist_ok=exist_ok,
            replication=replication, sharding=sharding, bounds=bounds, sample=sample, cells=cells,
        )  # fmt: skip
        return Database(self, self.run(call))

    def database(self, name: str) -> Database:
        """A database by its name or id. Raises UNKNOWN_DATABASE, also for one that you may not see."""
        return Database(self, self.run(server_calls.describe(name)))

    def databases(self) -> list[str]:
        """The names of the databases you may see."""
        return [info.name for info in self.run(server_calls.databases())]

    def describe(self, name: str) -> DatabaseInfo:
        """How a database was made, whose it is, and how many vectors it has."""
        return self.run(server_calls.describe(name))

    def describe_all(self) -> list[DatabaseInfo]:
        """`describe` for every database you may see, oldest first."""
        return self.run(server_calls.databases())

    def drop_database(self, name: str) -> None:
        """Delete a database, by name or id, and everything in it. Raises UNKNOWN_DATABASE, FORBIDDEN."""
        self.run(server_calls.drop_database(name))

    # The server

    def info(self) -> ServerInfo:
        """Version, protocols, features."""
        return self.run(server_calls.info())

    def sign_in(self) -> None:
        """Exchange user and password for a session now instead of at the first call. Raises UNAUTHORIZED, RATE_LIMITED."""
        self._core.credentials.token = None
        self._ensure_signed_in(self._deadline())

    def call(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """Any route of the server, JSON in and out: `client.call("GET", "/v1/users")`."""
        return self.run(server_calls.by_hand(method, path, body, query))

    # Running calls

    def run(self, call: Call[T]) -> T:
        """Send a call until it is answered, as often and as long as allowed."""
        deadline = self._deadline()
        attempt, again = 0, False
        while True:
            attempt += 1
            token = None
            try:
                if not call.public:
                    self._ensure_signed_in(deadline)
                token = self._core.credentials.token
                value = self._once(call, deadline)
                self._learn(deadline)
                return value
            except JadeError as error:
                if not again and self._core.signs_in_again(call, error, token):
                    again = True
                    continue
                left_s = deadline - time.monotonic()
                pause_s = self._core.retries.pause_s(call, error, attempt, left_s, drawn(), self._core.nodes.tries)
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _once(self, call: Call[T], deadline: float) -> T:
        nodes = self._core.nodes
        now_s = time.monotonic()
        address = nodes.choose(now_s)
        try:
            answer = self._pool(address).exchange(
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

    def _pool(self, address: Address) -> Pool:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "The client is closed: make a new one.")
        pool = self._pools.get(address)
        if pool is None:  # of two threads that make one at once, one is used
            made = Pool(address, self._tls(address), self._core.timeouts, self._core.connections_max)
            pool = self._pools.setdefault(address, made)
        return pool

    def _learn(self, deadline: float) -> None:
        """Ask for the nodes when an answer told that they may have changed. Who can't be asked is asked later."""
        if self._core.nodes.wants_map(time.monotonic()):
            with contextlib.suppress(JadeError):
                until = min(deadline, time.monotonic() + ASK_S_MAX)
                gone = self._core.nodes.learn(self._once(ask_for_map(), until))
                for address in gone:
                    if address in self._pools:
                        self._pools[address].end_idle()

    def _ensure_signed_in(self, deadline: float) -> None:
        credentials = self._core.credentials
        if credentials.must_sign_in:
            with self._signing_in:
                if credentials.must_sign_in:  # else another thread did it meanwhile
                    credentials.take(self._once(credentials.sign_in(), deadline))

    def _deadline(self) -> float:
        return time.monotonic() + self._core.timeouts.total_s


def _run_now(build: Callable[Concatenate[DatabaseCalls, P], Call[T]]) -> Callable[Concatenate[Database, P], T]:
    """The method that makes the call and runs it: signature and docstring are those of the call."""

    @wraps(build)
    def method(self: Database, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(build(self._calls, *args, **kwargs))

    return method


class Database:
    """A database of a server. Made by `Client.create_database` and `Client.database`; keeps to it even when it is renamed."""

    def __init__(self, client: Client, info: DatabaseInfo) -> None:
        self._client = client
        self._run = client.run
        self._calls = DatabaseCalls(info, new_request_id)

    # What it is

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
        """A text that stands for all that this client wrote or was shown; "" when the server needs none. Another client that is given
        it sees no less: its reads fail with UNAVAILABLE rather than answer from before. Setting "" forgets.
        """
        return self._client._core.session(self.id)

    @session.setter
    def session(self, value: str) -> None:
        self._client._core.remember(self.id, value)

    def __repr__(self) -> str:
        return f"<Database {self.name!r} at {self._client.url}: dimension {self.dimension}, {self.metric}>"

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, vector_id: str) -> bool:
        return self.exists(vector_id)

    # Reading and writing, as in the embedded database

    upsert = _run_now(DatabaseCalls.upsert)
    update_metadata = _run_now(DatabaseCalls.update_metadata)
    delete = _run_now(DatabaseCalls.delete)
    count = _run_now(DatabaseCalls.count)
    scroll = _run_now(DatabaseCalls.scroll)
    search = _run_now(DatabaseCalls.search)
    search_batch = _run_now(DatabaseCalls.search_batch)
    stats = _run_now(DatabaseCalls.stats)
    conflicts = _run_now(DatabaseCalls.conflicts)
    describe = _run_now(DatabaseCalls.describe)

    @overload
    def get(self, ids: str, include: Include = ..., consistency: str = ...) -> Item | None: ...  # type: ignore[overload-overlap]
    @overload
    def get(self, ids: Iterable[str], include: Include = ..., consistency: str = ...) -> list[Item | None]: ...
    def get(
        self, ids: str | Iterable[str], include: Include = EVERYTHING, consistency: str = ""
    ) -> Item | list[Item | None] | None:
        """One item (None when there is none), or a list as long as the ids given. include: of metadata, vector."""
        if isinstance(ids, str):
            return self._run(self._calls.get([ids], include, consistency))[0]
        names = list(ids)
        return self._run(self._calls.get(names, include, consistency)) if names else []

    @overload
    def exists(self, ids: str, consistency: str = ...) -> bool: ...  # type: ignore[overload-overlap]
    @overload
    def exists(self, ids: Iterable[str], consistency: str = ...) -> list[bool]: ...
    def exists(self, ids: str | Iterable[str], consistency: str = "") -> bool | list[bool]:
        """Whether each id is stored."""
        if isinstance(ids, str):
            return self._run(self._calls.exists([ids], consistency))[0]
        names = list(ids)
        return self._run(self._calls.exists(names, consistency)) if names else []

    def items(self, filter: FilterLike = None, include: Include = EVERYTHING) -> Iterator[Item]:
        """Every item that matches, by scrolling."""
        cursor: str | None = None
        while True:
            page = self.scroll(1000, cursor, filter, include)
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def explain(self, vector: Any = None, **options: Any) -> dict[str, Any]:
        """What `search` with the same arguments does: per segment the strategy, matches, candidates and times."""
        explanation = self.search(vector, **options, explain=True).explanation
        return {} if explanation is None else explanation.as_dict()

    # Many vectors

    def upsert_many(
        self,
        rows: Iterable[RowLike],
        batch_rows: int = 1000,
        parallel: int = 4,
        progress: bool = True,
        resume: str | Path | None = None,
    ) -> BulkReport:
        """Write any number of vectors: in batches, several on their way at once, in bounded memory.

        rows: (id, vector), (id, vector, metadata), or dicts with id, vector and metadata; read as they are needed. A later row of
        the same id replaces an earlier one. batch_rows: vectors in a request. parallel: requests at once. progress: a bar on
        stderr, on a terminal only (needs rich). resume: a file that remembers how far it came: after an interruption of any kind the
        same call with the same rows goes on where it was; the file is removed at the end.
        Raises what `upsert` raises, with the rows that were acknowledged in `details["rows_done"]`; they stay.
        """
        from jadevectordb.client import bulk_run  # loads what most programs do without

        with bulk_run.opened(rows, self._calls, batch_rows, parallel, progress, resume) as upload:
            bulk_run.run_in_threads(upload, self.upsert, parallel)
            return upload.report()

    # Looking after it

    def wait_indexed(self, timeout: float | None = None) -> None:
        """Return when every row so far is in an indexed segment. Raises TIMEOUT after `timeout` s; None: waits as long as it takes.

        Not needed for correctness: rows are found as soon as they are written.
        """
        self._wait("wait-indexed", timeout)

    def compact(self, timeout: float | None = None) -> None:
        """Merge every shard into one segment without dead rows, and wait for it."""
        self._wait("compact", timeout)

    def _wait(self, what: str, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            step_s = WAIT_STEP_S if until is None else max(0.0, min(WAIT_STEP_S, until - time.monotonic()))
            try:
                return self._run(self._calls.wait_step(what, min(step_s, self._client._core.timeouts.total_s / 2)))
            except JadeError as error:
                own_word = error.code is ErrorCode.TIMEOUT and "phase" not in error.details
                if not own_word or (until is not None and time.monotonic() >= until):
                    raise
            what = "wait-indexed"  # a compaction that has begun is waited for, not begun anew


def new_request_id() -> str:
    return os.urandom(12).hex()


def drawn() -> float:
    """0 to 1."""
    return int.from_bytes(os.urandom(2)) / 0xFFFF
