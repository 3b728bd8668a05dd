"""Writers over REST and gRPC that remember exactly what the server acknowledged, and what was on its way when it died.

Each writer has ids of its own, so that what must be stored under them follows from its acknowledged operations alone. Of those
on their way, any number from the front may have been done, each of them whole.
"""

from __future__ import annotations

import http.client
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import numpy as np

from tests.rpc_world import Caller

DIMENSION = 8
IDS_MAX = 400  # of one writer
_STREAM_BATCHES = 6


@dataclass(frozen=True)
class Row:
    """vector: float32 values as bytes. metadata: JSON with sorted keys."""

    vector: bytes
    metadata: str


Changes = dict[str, Row | None]  # by id; None: deleted


def row_of(vector: Any, metadata: dict[str, Any]) -> Row:
    return Row(np.asarray(vector, np.float32).tobytes(), json.dumps(metadata, sort_keys=True))


class Writer(threading.Thread):
    """database: its name. Ends when the server does; what ends it earlier is in `trouble`."""

    def __init__(self, name: str, database: str, token: str, seed: int, stored: dict[str, Row]) -> None:
        super().__init__(name=name, daemon=True)
        self.database = database
        self.stored = stored
        self.on_their_way: list[Changes] = []
        self.acknowledged = 0
        self.trouble: Exception | None = None
        self.is_killed = threading.Event()  # set before the server is killed
        self._token = token
        self._chance = Random(f"{name}/{seed}")
        self._batch = 0

    def run(self) -> None:
        try:
            self._connect()
            while not self.is_killed.is_set():
                self._operate()
        except Exception as error:
            if not self.is_killed.is_set():
                self.trouble = error
        finally:
            self._disconnect()

    def _connect(self) -> None:
        raise NotImplementedError

    def _operate(self) -> None:
        raise NotImplementedError

    def _disconnect(self) -> None:
        raise NotImplementedError

    # What there is to do

    def _rows(self, count: int) -> dict[str, Row]:
        self._batch += 1
        names = self._chance.sample(range(IDS_MAX), count)
        vectors = (
            np.random.default_rng(self._chance.randrange(1 << 30))
            .standard_normal((count, DIMENSION))
            .astype(np.float32)
        )
        metadata = {"owner": self.name, "batch": self._batch}
        return {f"{self.name}-{n}": row_of(v, {**metadata, "n": n}) for n, v in zip(names, vectors, strict=True)}

    def _some_stored(self) -> list[str]:
        return self._chance.sample(sorted(self.stored), min(len(self.stored), self._chance.randrange(1, 30)))

    def _marked(self, names: list[str]) -> tuple[dict[str, Any], Changes]:
        """Metadata to be merged into what these ids have, and the rows that gives."""
        mark = {"mark": self._chance.randrange(1000), "n": -1}
        changes: Changes = {}
        for name in names:
            row = self.stored[name]
            changes[name] = Row(row.vector, json.dumps({**json.loads(row.metadata), **mark}, sort_keys=True))
        return mark, changes

    def _do(self, changes: Changes, send: Callable[[], object]) -> None:
        self.on_their_way.append(changes)
        send()
        self._acknowledge()

    def _acknowledge(self) -> None:
        """The first of those on their way is done."""
        apply(self.stored, self.on_their_way[0])
        del self.on_their_way[0]
        self.acknowledged += 1


class RestWriter(Writer):
    def __init__(self, url: str, *others: Any) -> None:
        super().__init__(*others)
        self._address = url.removeprefix("http://")

    def _connect(self) -> None:
        self._http = http.client.HTTPConnection(self._address, timeout=60)

    def _disconnect(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, body: bytes, content_type: str = "application/json") -> None:
        headers = {"Content-Type": content_type, "Authorization": f"Bearer {self._token}"}
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        said = answer.read()
        assert answer.status in (200, 201), f"{method} {path}: {answer.status} {said[:500]!r}"

    def _post(self, path: str, body: Any) -> None:
        self._send("POST", f"/v2/databases/{self.database}{path}", json.dumps(body).encode())

    def _operate(self) -> None:
        draw = self._chance.random()
        if draw < 0.35 or not self.stored:
            self._store_raw(self._rows(self._chance.choice((1, 20, 200))))
        elif draw < 0.55:
            self._store_columns(self._rows(self._chance.randrange(1, 20)))
        elif draw < 0.7:
            self._store_one(self._rows(1))
        elif draw < 0.85:
            names = self._some_stored()
            mark, changes = self._marked(names)
            self._do(changes, lambda: self._post("/vectors/metadata", {"ids": names, "metadata": mark}))
        elif draw < 0.95:
            names = self._some_stored()
            self._do(dict.fromkeys(names), lambda: self._post("/vectors/delete", {"ids": names}))
        else:
            self._delete_where(self._chance.randrange(self._batch + 1))

    def _store_raw(self, rows: dict[str, Row]) -> None:
        header = json.dumps(
            {"ids": list(rows), "metadata": [json.loads(row.metadata) for row in rows.values()]}
        ).encode()
        header += b" " * (-(4 + len(header)) % 4)
        body = struct.pack("<I", len(header)) + header + b"".join(row.vector for row in rows.values())
        path = f"/v2/databases/{self.database}/vectors"
        self._do(dict(rows), lambda: self._send("POST", path, body, "application/octet-stream"))

    def _store_columns(self, rows: dict[str, Row]) -> None:
        values = [np.frombuffer(row.vector, np.float32).tolist() for row in rows.values()]
        body = {"ids": list(rows), "values": values, "metadata": [json.loads(row.metadata) for row in rows.values()]}
        self._do(dict(rows), lambda: self._post("/vectors", body))

    def _store_one(self, rows: dict[str, Row]) -> None:
        """As clients of version 1 do."""
        ((name, row),) = rows.items()
        body = {
            "id": name,
            "values": np.frombuffer(row.vector, np.float32).tolist(),
            "metadata": json.loads(row.metadata),
        }
        path = f"/v1/databases/{self.database}/vectors"
        if name in self.stored:
            method, path = "PUT", f"{path}/{name}"
        else:
            method = "POST"
        self._do(dict(rows), lambda: self._send(method, path, json.dumps(body).encode()))

    def _delete_where(self, batch: int) -> None:
        condition = {"owner": self.name, "batch": batch}
        found = [name for name, row in self.stored.items() if json.loads(row.metadata)["batch"] == batch]
        self._do(dict.fromkeys(found), lambda: self._post("/vectors/delete", {"filter": condition}))


class GrpcWriter(Writer):
    def __init__(self, address: str, *others: Any) -> None:
        super().__init__(*others)
        self._address = address

    def _connect(self) -> None:
        self._channel = grpc.insecure_channel(self._address)
        self._call = Caller(self._channel, (("authorization", f"Bearer {self._token}"),))

    def _disconnect(self) -> None:
        self._channel.close()

    def _operate(self) -> None:
        draw = self._chance.random()
        if draw < 0.4 or not self.stored:
            rows = self._rows(self._chance.choice((1, 20, 200)))
            self._do(
                dict(rows),
                lambda: self._call("VectorService/UpsertVectors", database=self.database, columns=_columns(rows)),
            )
        elif draw < 0.7:
            self._store_stream()
        elif draw < 0.85:
            names = self._some_stored()
            mark, changes = self._marked(names)
            fields = {"database": self.database, "ids": names, "metadata_json": [json.dumps(mark).encode()]}
            self._do(changes, lambda: self._call("VectorService/UpdateMetadata", **fields))
        else:
            names = self._some_stored()
            self._do(
                dict.fromkeys(names),
                lambda: self._call("VectorService/DeleteVectors", database=self.database, ids=names),
            )

    def _store_stream(self) -> None:
        """Batches sent without waiting for the answers."""
        method, _ = self._call.method("VectorService/BulkUpsert", "stream_stream")
        batches = [self._rows(self._chance.choice((1, 50))) for _ in range(_STREAM_BATCHES)]

        def requests() -> Iterator[Any]:
            for rows in batches:
                self.on_their_way.append(dict(rows))
                yield self._call.method("VectorService/BulkUpsert", database=self.database, columns=_columns(rows))[1]

        for _ in method(requests(), timeout=60, metadata=self._call.metadata):
            self._acknowledge()
        assert not self.on_their_way, "the stream ended well, but not every message was acknowledged"


def _columns(rows: dict[str, Row]) -> dict[str, Any]:
    return {
        "ids": list(rows),
        "vectors": {"packed": b"".join(row.vector for row in rows.values())},
        "metadata_json": [row.metadata.encode() for row in rows.values()],
    }


def apply(stored: dict[str, Row], changes: Changes) -> None:
    for name, row in changes.items():
        if row is None:
            stored.pop(name, None)
        else:
            stored[name] = row


def settle(writer: Writer, found: dict[str, Row]) -> None:
    """Make `writer.stored` what was found, if that can be: all that was acknowledged and some of what followed, each whole."""
    state = dict(writer.stored)
    for done in range(len(writer.on_their_way) + 1):
        if state == found:
            writer.stored.clear()
            writer.stored.update(found)
            return
        if done < len(writer.on_their_way):
            apply(state, writer.on_their_way[done])
    wrong = {name for name in {*writer.stored, *found} if writer.stored.get(name) != found.get(name)}
    touched = [len(changes) for changes in writer.on_their_way]
    raise AssertionError(
        f"{writer.name}: {len(wrong)} ids are not as acknowledged, such as {sorted(wrong)[:5]}; "
        f"operations of {touched} ids were on their way"
    )
