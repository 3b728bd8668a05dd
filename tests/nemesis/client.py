"""A client of the cluster under test: everything it does is recorded before it is sent and after it was answered.

It talks to one node, moves on to another when that fails it, and now and then for no reason: what it saw at one node it must see at
every other. It is a session: it carries the sequences that answers of reads and writes brought, and an answer to a read that brings
none is a defect. A write whose outcome is not known is sometimes sent again, to another node, under the same request id: for the
history that is one operation, which must take effect once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.sim.history import Fate, Level, Seen
from jadevectordb.sim.recorder import Recorder, fate_of_error
from tests.nemesis.caller import Caller
from tests.nemesis.cluster import DATABASE, DIMENSION
from tests.nemesis.registers import Registers, vector_of

_PATH = f"/v2/databases/{DATABASE}"
_TIMEOUT_S = 6.0
_SENT_AGAIN = 0.5  # share of the writes with an unknown outcome
_KNOWN_MAX = 256
_DEFECTS_MAX = 20
_WANDERS = 0.2  # share of the calls that go to another node than the one before


@dataclass(frozen=True, slots=True)
class Defect:
    """An answer that no server should ever give."""

    operation: str
    error: str


class Client:
    """One thread's. rests: of all nodes."""

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        registers: Registers,
        rests: Sequence[str],
        token: str,
        rng: random.Random,
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.name = name
        self.defects: list[Defect] = []
        self._recorder = recorder
        self._registers = registers
        self._rng = rng
        self._callers = [Caller(rest, token, timeout_s) for rest in rests]
        self._at = rng.randrange(len(rests))
        self._written = 0
        self._token: dict[int, int] = {}
        self._database_id = ""
        self._known: dict[str, int] = {}  # versions, for conditions

    # Writing

    def write(self, level: Level, ids: list[str], *, conditional: bool = False) -> None:
        values = [self._new_value() for _ in ids]
        conditional = conditional and not self._registers.by_vector  # which takes no conditions
        conditions = [self._known.get(i, 0) for i in ids] if conditional else None
        shards = self._registers.shards_of(ids)
        rows = [
            {"id": i, "values": [float(x) for x in vector_of(i, v)], "metadata": {"v": v}}
            | ({} if conditions is None else {"if_version": conditions[place]})
            for place, (i, v) in enumerate(zip(ids, values, strict=True))
        ]
        op = self._recorder.write(
            self.name,
            level,
            ids,
            values,
            if_version=conditions,
            shards=shards,
            session=self.name,
            token=self._registers.told(self._token, ids),
            request=f"{self.name}-{self._written}",
        )
        body = {"vectors": rows, "request_id": f"{self.name}-{self._written}"}
        self._change(op, _PATH + "/vectors", body, level, ids, shards)

    def delete(self, level: Level, ids: list[str], *, conditional: bool = False) -> None:
        conditional = conditional and not self._registers.by_vector  # which takes no conditions
        conditions = [self._known.get(i, 0) for i in ids] if conditional else None
        shards = self._registers.shards_of(ids)
        self._new_value()
        op = self._recorder.delete(
            self.name,
            level,
            ids,
            if_version=conditions,
            shards=shards,
            session=self.name,
            token=self._registers.told(self._token, ids),
            request=f"{self.name}-{self._written}",
        )
        body: dict[str, Any] = {"ids": ids, "request_id": f"{self.name}-{self._written}"}
        if conditions is not None:
            body["if_version"] = conditions
        self._change(op, _PATH + "/vectors/delete", body, level, ids, shards)

    def _new_value(self) -> str:
        self._written += 1
        return f"{self.name}.{self._written}"

    def _change(self, op: str, path: str, body: Any, level: Level, ids: list[str], shards: list[int]) -> None:
        try:
            answer = self._send(path, body, level, again=True)
        except JadeError as error:
            self._not_done(op, error, ids, shards)
            return
        self._remember(answer["session"])
        self._recorder.ok(op, sequences=self._registers.told(sequences_in(answer["session"]), ids))

    def _not_done(self, op: str, error: JadeError, ids: list[str], shards: list[int]) -> None:
        self._look_at(op, error)
        details = error.details
        if len(set(shards)) == 1 or "failed_ids" not in details or fate_of_error(error) is Fate.UNKNOWN:
            self._recorder.raised(op, error)
            return
        # Done in part: the shards that refused did nothing, the others are whole
        failed = set(details["failed_ids"])
        self._recorder.ok(op, fates={i: Fate.FAILED for i in ids if i in failed})

    # Reading

    def read(self, level: Level, ids: list[str]) -> list[Seen] | None:
        """What was found under each id; None when nobody said."""
        shards = self._registers.shards_of(ids)
        token = self._registers.told(self._token, ids) if level is Level.SESSION else {}
        op = self._recorder.read(self.name, level, ids, shards=shards, session=self.name, token=token)
        try:
            answer = self._send(_PATH + "/vectors/get", {"ids": ids, "include": ["metadata"]}, level)
        except JadeError as error:
            self._look_at(op, error)
            self._recorder.raised(op, error)
            return None
        found = {shard for shard, item in zip(shards, answer["vectors"], strict=True) if item is not None}
        sequences = self._take_token(op, found)
        seen = []
        for vector_id, item in zip(ids, answer["vectors"], strict=True):
            if item is None:
                seen.append(Seen(vector_id))
                self._know(vector_id, 0)
            else:
                seen.append(Seen(vector_id, item["metadata"]["v"], item["version"]))
                self._know(vector_id, item["version"])
        self._recorder.ok(op, seen=seen, sequences=sequences)
        return seen

    def search(self, level: Level, k: int) -> None:
        query = [float(self._rng.gauss(0.0, 1.0)) for _ in range(DIMENSION)]
        token = self._registers.told(self._token) if level is Level.SESSION else {}
        op = self._recorder.search(self.name, level, query, k, session=self.name, token=token)
        body = {"vector": query, "k": k, "include": ["metadata", "version"]}
        try:
            answer = self._send(_PATH + "/search", body, level)
        except JadeError as error:
            self._look_at(op, error)
            self._recorder.raised(op, error)
            return
        seen = [Seen(hit["id"], hit["metadata"]["v"], hit["version"], hit["score"]) for hit in answer["hits"]]
        sequences = self._take_token(op, set(self._registers.shards_of([one.id for one in seen])))
        self._recorder.ok(op, seen=seen, sequences=sequences)

    def count(self) -> int | None:
        """How many vectors there are, when somebody says so. Not part of the history."""
        try:
            return int(self._send(_PATH + "/count", {}, Level.STRONG)["count"])
        except JadeError as error:
            self._look_at("count", error)
            return None

    def _know(self, vector_id: str, version: int) -> None:
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[vector_id] = version

    # Sending

    def _send(self, path: str, body: Any, level: Level, *, again: bool = False) -> Any:
        """again: an unknown outcome may be sent once more, elsewhere."""
        if self._rng.random() < _WANDERS:
            self._at = self._rng.randrange(len(self._callers))
        headers = {"X-Jade-Consistency": level.value.lower()}
        if level is Level.SESSION and self._token:
            headers["X-Jade-Session"] = self._session()
        try:
            return self._once(path, body, headers)
        except JadeError as error:
            if not again or fate_of_error(error) is not Fate.UNKNOWN or self._rng.random() > _SENT_AGAIN:
                raise
        try:
            return self._once(path, body, headers)
        except JadeError as error:
            status = error.details.get("status")
            # That this try did nothing says nothing of the first, which may still come
            raise JadeError(error.code, error.message, details={"undecided": True, "status": status}) from error

    def _once(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        try:
            return self._callers[self._at].call("POST", path, body, headers)
        except JadeError as error:
            if error.code is not ErrorCode.VERSION_CONFLICT:
                self._at = (self._at + self._rng.randrange(1, max(2, len(self._callers)))) % len(self._callers)
            raise

    def _take_token(self, op: str, shards: set[int]) -> dict[int, int]:
        """Of a read: where it was served from, by shard; at least of these, whose vectors it showed.

        Where vectors decide, shards are seen at moments of their own, and which showed a vector is not told: nothing is.
        """
        session = self._callers[self._at].session
        sequences = sequences_in(session)
        lacking = bool(shards) and not sequences if self._registers.by_vector else not shards <= sequences.keys()
        if lacking and len(self.defects) < _DEFECTS_MAX:
            self.defects.append(Defect(op, f"an answer about shards {sorted(shards)} with the session {session!r}"))
        self._remember(session)
        return {} if self._registers.by_vector else sequences

    def _remember(self, session: str) -> None:
        for shard, sequence in sequences_in(session).items():
            self._token[shard] = max(sequence, self._token.get(shard, 0))
        self._database_id = session.partition("~")[0] or self._database_id

    def _session(self) -> str:
        return f"{self._database_id}~{','.join(f'{shard}.{sequence}' for shard, sequence in self._token.items())}"

    def _look_at(self, op: str, error: JadeError) -> None:
        status = error.details.get("status")
        if status is not None and status not in (409, 503) and len(self.defects) < _DEFECTS_MAX:
            self.defects.append(Defect(op, f"{status} {error.code}: {error.message}"))

    def close(self) -> None:
        for caller in self._callers:
            caller.close()


def sequences_in(session: str) -> dict[int, int]:
    """By shard, of DATABASE~SHARD.SEQUENCE,..."""
    pairs = session.partition("~")[2]
    return {int(shard): int(sequence) for shard, _, sequence in (p.partition(".") for p in pairs.split(",") if p)}
