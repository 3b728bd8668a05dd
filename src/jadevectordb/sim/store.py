"""The metadata store over simulated servers: compare-and-set at the leader, a mirror for lists and watches, as over JetStream."""

from __future__ import annotations

from collections.abc import Callable

from jadevectordb.adapters.store_keys import check_key
from jadevectordb.adapters.store_watches import KeyWatch, StoreWatches
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_ANSWER_S_MAX
from jadevectordb.ports.metadata_store import OnChange, Record
from jadevectordb.sim.requests import Client
from jadevectordb.sim.servers import Answer, Server, Stream

_REATTACH_S = (0.2, 5.5)


class SimStore:
    """The store port, as one process of the world has it. Called in fibers of that process."""

    def __init__(
        self, client: Client, bucket: str, new_id: Callable[[], str], *, answer_s: float = STORE_ANSWER_S_MAX
    ) -> None:
        self._client = client
        self._new_id = new_id
        self._answer_s = answer_s
        self._stream: Stream = client.servers.stream(f"kv+{bucket}")
        self._records: dict[str, Record] = {}
        self._position = 0  # the newest sequence in the mirror
        self._closed = False
        self._parked = False
        self._watches = StoreWatches()
        self._stream.on_moved.append(self._moved)
        self._fiber = client.loop.spawn(client.process, self._mirror, "kv-mirror")

    # The mirror

    def _moved(self) -> None:
        if self._parked:
            self._parked = False
            self._fiber.wake()

    def _wait(self) -> None:
        self._parked = True
        self._fiber.park(5.0)
        self._parked = False

    def _mirror(self) -> None:
        client, stream, loop = self._client, self._stream, self._client.loop
        attached: Server | None = client.servers.attached(client.machine)
        while not self._closed:
            if attached is None or not self._is_reached(attached):
                found = client.servers.attached(client.machine)
                if found is None:
                    self._wait()
                else:
                    loop.sleep(loop.random.uniform(*_REATTACH_S))
                attached = found
                continue
            if stream.state(attached)[1] <= self._position:
                self._wait()
                continue
            loop.sleep(client.servers.network.way_s(attached.machine, client.machine))
            if self._is_reached(attached) and not self._closed:
                self._take(stream, stream.state(attached)[1])

    def _is_reached(self, server: Server) -> bool:
        client = self._client
        return server.is_up(client.loop.now_s) and client.servers.network.is_joined(client.machine, server.machine)

    def _take(self, stream: Stream, last: int) -> None:
        for unit in stream.truth[self._position : last]:  # one sequence a unit
            value = unit.items[0]
            assert unit.key is not None
            record = None if value is None else Record(value, unit.last)
            if record is None:
                self._records.pop(unit.key, None)
            else:
                self._records[unit.key] = record
            self._position = unit.last
            self._watches.tell(unit.key, record)

    def _catch_up(self) -> None:
        """The mirror has what the leader had when this was called. Raises UNAVAILABLE."""
        self._refuse_closed()
        loop, stream = self._client.loop, self._stream
        until_s = loop.now_s + self._answer_s
        last = self._client.ask(
            stream, lambda server, answer: answer(stream.state(server)[1]), self._answer_s, "asking about"
        )
        while self._position < last:
            if loop.now_s >= until_s:
                raise JadeError(ErrorCode.UNAVAILABLE, "the metadata store's changes do not arrive here; retry")
            loop.sleep(0.002)

    # The port

    def get(self, key: str) -> Record | None:
        check_key(key)
        self._refuse_closed()
        stream = self._stream

        def find(server: Server, answer: Answer) -> None:
            unit = stream.newest(server, key)
            answer((None, 0) if unit is None else (unit.items[0], unit.last))

        value, revision = self._client.ask(stream, find, self._answer_s, "asking about")
        return None if value is None else Record(value, revision)

    def list(self, prefix: str) -> dict[str, Record]:
        check_key(prefix)
        self._catch_up()
        return {key: self._records[key] for key in sorted(self._records) if key.startswith(prefix)}

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> int | None:
        check_key(key)
        self._refuse_closed()
        stream, unit_id = self._stream, self._new_id()

        def change(server: Server, answer: Answer) -> None:
            stream.change(server, key, value, expected, unit_id, answer)

        answer = self._client.ask(stream, change, self._answer_s, "changing a record of")
        return None if answer == "wrong" else int(answer)

    def watch(self, prefix: str, handler: OnChange) -> KeyWatch:
        check_key(prefix)
        self._catch_up()
        return self._watches.add(prefix, handler)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._moved()
        if self._client.loop.current is not self._fiber:
            self._fiber.join(None)
        self._stream.on_moved.remove(self._moved)
        self._watches.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise JadeError(ErrorCode.CLOSED, "the metadata store is closed; open it again")
