"""The replicated log over simulated servers: the same contract, the same bytes in a message, the same refusals as over JetStream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

from jadevectordb.adapters.jetstream_archive import copy_streams
from jadevectordb.log.message import decode_message, encode_message, stream_seed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.limits import LOG_APPEND_S_MAX
from jadevectordb.model.operations import Entry
from jadevectordb.ports.log import Delivered, Frame
from jadevectordb.sim.loop import Fiber
from jadevectordb.sim.requests import Client
from jadevectordb.sim.servers import Server, Stream

_ASK_S = 10.0
_REATTACH_S = (0.2, 5.5)


class SimFollowing:
    """One run through a shard's log, in a fiber of its own."""

    def __init__(
        self,
        log: SimLog,
        shard: ShardId,
        position: Sequence,
        handler: Callable[[Delivered], None],
        on_error: Callable[[JadeError], None],
    ) -> None:
        self.position = position
        self.error: JadeError | None = None
        self.trouble = ""
        self._log = log
        self._client = log.client
        self._stream = log.stream(shard)
        self._shard = shard
        self._seed = stream_seed(self._stream.name)
        self._handler = handler
        self._on_error = on_error
        self._closed = False
        self._parked = False
        self._stream.on_moved.append(self._moved)
        self._fiber: Fiber = self._client.loop.spawn(self._client.process, self._run, f"follow-{shard}")

    def _moved(self) -> None:
        if self._parked:
            self._parked = False
            self._fiber.wake()

    def close(self) -> None:
        self._closed = True
        self._moved()
        if self._client.loop.current is not self._fiber:
            self._fiber.join(None)

    def _run(self) -> None:
        try:
            self._follow()
        except JadeError as error:
            self.error = error
            self._on_error(error)
        finally:
            self._stream.on_moved.remove(self._moved)
            self._log.moved()

    def _follow(self) -> None:
        client, stream, loop = self._client, self._stream, self._client.loop
        attached: Server | None = client.servers.attached(client.machine)
        while not self._closed:
            if stream.dropped:
                raise JadeError(ErrorCode.NOT_FOUND, f"the stream {stream.name} was dropped")
            if attached is None or not self._is_reached(attached):
                self.trouble = "the log's servers are away"
                found = client.servers.attached(client.machine)
                if found is None:
                    self._wait()
                else:
                    loop.sleep(loop.random.uniform(*_REATTACH_S))
                attached = found
                continue
            self.trouble = ""
            if self.position < stream.purged:
                raise self._log.truncated(stream, self.position + 1)
            if stream.state(attached)[1] <= self.position:
                self._wait()
                continue
            loop.sleep(client.servers.network.way_s(attached.machine, client.machine))
            if self._is_reached(attached):
                self._deliver(stream.state(attached)[1])

    def _is_reached(self, server: Server) -> bool:
        client = self._client
        return server.is_up(client.loop.now_s) and client.servers.network.is_joined(client.machine, server.machine)

    def _wait(self) -> None:
        self._parked = True
        self._fiber.park(5.0)
        self._parked = False

    def _deliver(self, last: int) -> None:
        for delivered in self._log.stored(self._shard, self.position + 1, last):
            if self._closed:
                return
            try:
                self._handler(delivered)
            except Exception as error:
                raise JadeError(
                    ErrorCode.INTERNAL_ERROR,
                    f"applying entry {delivered.sequence} of {self._stream.name} failed ({error!r}); open the replica anew",
                ) from error
            self.position = delivered.sequence
            self._log.moved()


class SimLog:
    """The log port of one database, as one process of the world has it. Called in fibers of that process."""

    def __init__(
        self, client: Client, database: str, new_id: Callable[[], str], *, append_s: float = LOG_APPEND_S_MAX
    ) -> None:
        self.client = client
        self._database = database
        self._new_id = new_id
        self._append_s = append_s
        self._shards: set[ShardId] = set()
        self._followings: list[SimFollowing] = []
        self._subscribed: dict[ShardId, list[SimFollowing]] = {}
        self._awaiting: list[Fiber] = []
        self._closed = False

    def _name(self, shard: ShardId) -> str:
        return f"log+{self._database}+{shard}"

    def stream(self, shard: ShardId) -> Stream:
        stream = self.client.servers.streams.get(self._name(shard))
        if stream is None or stream.dropped:
            raise JadeError(ErrorCode.NOT_FOUND, f"there is no stream {self._name(shard)}: its database was dropped")
        return stream

    def ensure_streams(self, shards: Iterable[ShardId]) -> None:
        streams = {shard: self.client.servers.stream(self._name(shard)) for shard in shards}
        for shard, stream in streams.items():
            self.client.ask(stream, lambda _server, answer: answer(True), _ASK_S, "creating")
            self._shards.add(shard)

    def drop(self) -> None:
        for shard in sorted(self._shards):
            stream = self.client.servers.stream(self._name(shard))
            stream.dropped = True
            stream.moved()
        self._shards.clear()

    # Appending

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]:
        self._refuse_closed()
        by_shard: dict[ShardId, list[int]] = {}
        for at, (shard, _) in enumerate(entries):
            by_shard.setdefault(shard, []).append(at)
        lasts: dict[ShardId, int] = {}
        failures: list[JadeError] = []
        waiting = []
        for shard, places in by_shard.items():
            stream = self.stream(shard)
            seed = stream_seed(stream.name)
            some = [entries[at][1] for at in places]
            items: list[bytes | None] = [encode_message(shard, entry, seed) for entry in some]
            unit_id = _message_id(some[-1]) or self._new_id()

            def publish(shard: ShardId = shard, stream: Stream = stream, items: list[bytes | None] = items,
                        unit_id: str = unit_id) -> None:  # fmt: skip
                try:
                    lasts[shard] = self.client.ask(
                        stream, lambda server, answer: stream.append(server, items, unit_id, answer),
                        self._append_s, "writing to",
                    )  # fmt: skip
                except JadeError as error:
                    failures.append(error)

            waiting.append(publish)
        if len(waiting) == 1:
            waiting[0]()
        else:
            fibers = [self.client.loop.spawn(self.client.process, one, "publish") for one in waiting]
            for fiber in fibers:
                fiber.join(None)
        if failures:
            details = {**failures[0].details, **({"durable": dict(lasts)} if lasts else {})}
            raise JadeError(failures[0].code, failures[0].message, details=details)
        sequences = [Sequence(0)] * len(entries)
        for shard, places in by_shard.items():
            for number, at in enumerate(places):
                sequences[at] = Sequence(lasts[shard] - len(places) + 1 + number)
        self._await_subscribers(lasts)
        return sequences

    def _await_subscribers(self, lasts: dict[ShardId, int]) -> None:
        waited = [(following, last) for shard, last in lasts.items() for following in self._subscribed.get(shard, ())]
        fiber = self.client.loop.current
        assert fiber is not None
        while any(following.position < last and not following.error for following, last in waited):
            self._awaiting.append(fiber)
            fiber.park(None)

    def moved(self) -> None:
        """A handler has returned."""
        awaiting, self._awaiting = self._awaiting, []
        for fiber in awaiting:
            fiber.wake()

    # Delivering

    def follow(
        self,
        shard: ShardId,
        from_sequence: Sequence,
        handler: Callable[[Delivered], None],
        on_error: Callable[[JadeError], None],
    ) -> SimFollowing:
        self._refuse_closed()
        following = SimFollowing(self, shard, Sequence(from_sequence - 1), handler, on_error)
        self._followings.append(following)
        return following

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        for shard in sorted(self._shards):
            following = self.follow(
                shard, Sequence(self.last(shard) + 1), lambda delivered: handler([delivered]), lambda _error: None
            )
            self._subscribed.setdefault(shard, []).append(following)

    # Reading

    def _state(self, shard: ShardId) -> tuple[int, int]:
        self._refuse_closed()
        stream = self.stream(shard)
        state: tuple[int, int] = self.client.ask(
            stream, lambda server, answer: answer(stream.state(server)), _ASK_S, "asking about"
        )
        return state

    def first(self, shard: ShardId) -> Sequence:
        return Sequence(self._state(shard)[0])

    def last(self, shard: ShardId) -> Sequence:
        return Sequence(self._state(shard)[1])

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        self._refuse_closed()
        found: list[Frame] = []
        for shard in sorted({*self._shards, *from_frame_of}):
            first, last = self._state(shard)
            start = from_frame_of.get(shard, first)
            if start < first:
                raise self.truncated(self.stream(shard), start)
            if start > last + 1:
                raise JadeError(
                    ErrorCode.CORRUPT,
                    f"the log {self._name(shard)} ends with entry {last}, but entry {start - 1} was acknowledged",
                )
            found += [[delivered] for delivered in self.stored(shard, start, last)]
        return iter(found)

    def stored(self, shard: ShardId, first: int, last: int) -> Iterator[Delivered]:
        """Entries that a majority has; decoded anew for whoever reads."""
        stream = self.stream(shard)
        seed = stream_seed(stream.name)
        low, high = 0, len(stream.truth)
        while low < high:  # the unit that `first` lies in
            middle = (low + high) // 2
            low, high = (middle + 1, high) if stream.truth[middle].last < first else (low, middle)
        for unit in stream.truth[low:]:
            if unit.first > last:
                return
            for sequence, item in enumerate(unit.items, unit.first):
                if first <= sequence <= last:
                    assert item is not None
                    yield Delivered(shard, Sequence(sequence), decode_message(item, shard, seed))

    def truncated(self, stream: Stream, sequence: int) -> JadeError:
        begins = stream.purged + 1
        return JadeError(
            ErrorCode.LOG_TRUNCATED,
            f"entry {sequence} of {stream.name} was asked for, but the log begins at {begins}; load a snapshot",
            details={"first": begins},
        )

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        self._refuse_closed()
        for shard, sequence in up_to.items():
            stream = self.stream(shard)

            def purge(server: Server, answer: Callable[[object], None], stream: Stream = stream,
                      sequence: Sequence = sequence) -> None:  # fmt: skip
                answer(True if stream.purge(server, sequence) else "again")

            self.client.ask(stream, purge, _ASK_S, "cutting")

    def sequence_at(self, shard: ShardId, time: HybridTime) -> Sequence:
        first, last = self._state(shard)
        kept = list(self.stored(shard, first, last))
        return next((one.sequence for one in reversed(kept) if one.entry.time <= time), Sequence(first - 1))

    def copy_to(self, directory: Path) -> None:
        parts = []
        for shard in sorted(self._shards):
            first, last = self._state(shard)
            parts.append((shard, first, self.stored(shard, first, last)))
        copy_streams(parts, directory)

    def bytes_on_disk(self) -> int:
        total = 0
        for shard in self._shards:
            stream = self.stream(shard)
            total += sum(
                len(item or b"")
                for unit in stream.truth
                for sequence, item in enumerate(unit.items, unit.first)
                if sequence > stream.purged
            )
        return total

    def close(self) -> None:
        self._closed = True
        followings, self._followings, self._subscribed = self._followings, [], {}
        for following in followings:
            following.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "the log is closed; open the database again")


def _message_id(entry: Entry) -> str:
    """The same for the same part of the same request; "" for an entry that belongs to none."""
    if not entry.request_id:
        return ""
    name = f"{entry.part}/{entry.parts}/{entry.request_id}"
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
