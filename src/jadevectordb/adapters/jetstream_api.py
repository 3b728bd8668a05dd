"""The requests to JetStream that the log and the metadata store need, each asked again until it is answered or its time is up.

Every one of them may be asked twice without harm. While servers elect a leader nobody answers, or somebody answers "not
now"; both are waited out here. What remains is an answer, an `ApiError` that means something to the caller, or UNAVAILABLE
with the last thing that was heard.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from jadevectordb.adapters.nats_connection import DisconnectedError, NatsConnection, NoRespondersError
from jadevectordb.model.errors import ErrorCode, JadeError

_TRY_S_MAX = 2.0  # one request; then it is asked again
_PAUSE_S = 0.05
_PAUSE_S_MAX = 0.5

WRONG_LAST_SEQUENCE = 10071  # a compare-and-set that was lost
WRONG_LAST_ID = 10070
WRITE_IN_FLIGHT = 10164  # another write of the same subject is not decided yet
MESSAGE_ID_IN_FLIGHT = 10158  # the same message is being stored
BATCH_DUPLICATE = 10201  # a message of the batch was stored before
STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
STREAM_NAME_TAKEN = 10058  # with another configuration
NOT_CLUSTERED = 10074  # replicas asked of a server that is alone
NO_SPACE = frozenset({10028, 10047})
BATCH_BROKEN = frozenset({10174, 10176})  # the servers have not all of it, or forgot it: send it again
NO_PEERS = 10005  # fewer servers are known than copies are wanted; one that is away counts once it was seen
_FOR_GOOD = NO_SPACE | {NOT_CLUSTERED}
_NOT_NOW = frozenset({10004, NO_PEERS, 10008, 10009, 10118})  # no leader, no peers or resources at hand, offline


class ApiError(Exception):
    """A refusal by the servers. number: JetStream's own code."""

    def __init__(self, number: int, code: int, description: str) -> None:
        super().__init__(f"{description} ({number})")
        self.number = number
        self.code = code
        self.description = description

    @property
    def not_now(self) -> bool:
        return self.number in _NOT_NOW or (self.code in (408, 500, 503) and self.number not in _FOR_GOOD)


@dataclass(frozen=True, slots=True)
class StreamState:
    """As the stream's leader says. first: last + 1 when nothing is kept. replicas: copies at hand, the leader's included."""

    first: int
    last: int
    messages: int
    bytes: int
    leader: str
    replicas: int
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as the stream's leader has it. data: None when what it answered cannot be read."""

    subject: str
    sequence: int
    data: bytes | None


class Deadline:
    """The end of one call's time, in the loop's seconds."""

    def __init__(self, connection: NatsConnection, seconds: float) -> None:
        self._loop = connection.loop
        self.seconds = seconds
        self.at = self._loop.time() + seconds

    def left_s(self, most_s: float) -> float:
        """At most so much of what is left; 0 when it is over."""
        return max(0.0, min(most_s, self.at - self._loop.time()))

    @property
    def over(self) -> bool:
        return self._loop.time() >= self.at


class Retry:
    """What is heard while something is tried again and again, and the pauses between."""

    def __init__(self, connection: NatsConnection, deadline: Deadline, what: str) -> None:
        self._connection = connection
        self._deadline = deadline
        self._what = what
        self._pause_s = _PAUSE_S
        self.heard = "nobody answered"

    async def pause(self, heard: str) -> None:
        self.heard = heard
        await asyncio.sleep(self._deadline.left_s(self._pause_s))
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)

    def unavailable(self, addition: str = "", **details: Any) -> JadeError:
        state = self._connection.state
        reason = self.heard if state.connected else f"not connected to any server: {state.refusal or 'not yet tried'}"
        return JadeError(
            ErrorCode.UNAVAILABLE,
            f"{self._what} was not possible within {self._deadline.seconds:g} s ({reason}); retry when enough of the log's "
            f"servers are up{addition}",
            details={"reason": reason, "connected": state.connected, **details},
        )


async def ask(
    connection: NatsConnection, operation: str, body: dict[str, Any] | None, deadline: Deadline, *, raised: int = 0
) -> Any:
    """The answer to one request, as JSON. raised: a refusal that is not waited out. Raises ApiError, UNAVAILABLE."""
    payload = json.dumps(body).encode() if body else b""
    retry = Retry(connection, deadline, operation.lower().rpartition(".")[0].replace(".", " "))
    while not deadline.over:
        try:
            connected = await asyncio.wait_for(connection.connected(), deadline.left_s(1e6))
            message = await connected.ask(f"$JS.API.{operation}", payload, None, deadline.left_s(_TRY_S_MAX))
            answer = json.loads(message.data)
            refused = refusal(answer)
            if refused is None:
                return answer
            if not refused.not_now or refused.number == raised:
                raise refused
            await retry.pause(str(refused))
        except NoRespondersError:
            await retry.pause("no server leads it at the moment")
        except DisconnectedError:
            await retry.pause("the connection ended")
        except TimeoutError:
            await retry.pause("no answer")
        except ValueError as error:
            await retry.pause(f"an answer that is no JSON ({error})")
    raise retry.unavailable()


def refusal(answer: dict[str, Any]) -> ApiError | None:
    error = answer.get("error")
    if not error:
        return None
    return ApiError(int(error.get("err_code", 0)), int(error.get("code", 0)), str(error.get("description", "")))


async def stream_state(connection: NatsConnection, stream: str, deadline: Deadline) -> StreamState:
    """Raises ApiError (STREAM_NOT_FOUND), UNAVAILABLE."""
    answer = await ask(connection, f"STREAM.INFO.{stream}", None, deadline)
    state, cluster = answer["state"], answer.get("cluster") or {}
    last = int(state["last_seq"])
    first = int(state["first_seq"]) if state["messages"] else last + 1
    online = 1 + sum(1 for replica in cluster.get("replicas") or [] if not replica.get("offline"))
    return StreamState(
        first,
        last,
        int(state["messages"]),
        int(state["bytes"]),
        str(cluster.get("leader", "")),
        online,
        answer["config"],
    )


async def ensure_stream(
    connection: NatsConnection, config: dict[str, Any], deadline: Deadline, *, places_s: float = 1e6
) -> None:
    """The stream exists with these settings, has a leader and all its copies are at hand.

    places_s: how long servers are waited for that have to be seen once before copies can be placed on them.
    Raises CONFLICT when it exists with settings that matter otherwise, UNAVAILABLE.
    """
    name = config["name"]
    try:
        await _create_stream(connection, config, deadline, Deadline(connection, places_s))
    except ApiError as error:
        if error.number != STREAM_NAME_TAKEN:
            raise stream_refused(name, error) from error
    retry = Retry(connection, deadline, f"making the stream {name} ready")
    while True:
        try:
            state = await stream_state(connection, name, deadline)
        except ApiError as error:
            # A server that has not heard of it yet may be the one that answers
            if error.number != STREAM_NOT_FOUND or deadline.over:
                raise stream_refused(name, error) from error
            await retry.pause("not every server knows it yet")
            continue
        differing = {key: state.config.get(key) for key, value in config.items() if state.config.get(key) != value}
        if differing:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"the stream {name} exists with other settings: {differing} instead of "
                f"{ {key: config[key] for key in differing} }; another cluster may use these servers",
                details={"stream": name, "found": differing},
            )
        copies = int(config["num_replicas"])
        if copies == 1 or (state.leader and state.replicas >= copies // 2 + 1):
            return
        if deadline.over:
            raise retry.unavailable(f" ({state.replicas} of {copies} copies are at hand)")
        await retry.pause("it has no leader yet")


async def _create_stream(
    connection: NatsConnection, config: dict[str, Any], deadline: Deadline, places: Deadline
) -> None:
    name, copies = config["name"], int(config["num_replicas"])
    retry = Retry(connection, deadline, f"placing {copies} copies of {name}")
    while not deadline.over:
        try:
            await ask(connection, f"STREAM.CREATE.{name}", config, deadline, raised=NO_PEERS)
            return
        except ApiError as error:
            if error.number != NO_PEERS:
                raise
            if places.over:
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"there is no place for {copies} copies of a log: one of its servers is away that the others have not seen "
                    f"since they were started themselves; start it ({error})",
                    details={"stream": name, "number": error.number},
                ) from error
            await retry.pause(str(error))
    raise retry.unavailable()


def stream_refused(stream: str, error: ApiError) -> JadeError:
    if error.number == STREAM_NOT_FOUND:
        return JadeError(
            ErrorCode.NOT_FOUND,
            f"the stream {stream} does not exist: the shard was never created, or was dropped",
            details={"stream": stream},
        )
    if error.number == NOT_CLUSTERED:
        return JadeError(
            ErrorCode.CONFLICT,
            f"{stream} shall have several replicas, but its server is alone: start it with the other servers of the cluster",
            details={"stream": stream},
        )
    if error.number in NO_SPACE:
        return JadeError(
            ErrorCode.DISK_FULL,
            f"the log's servers have no space left for {stream} ({error.description}); free some and retry",
            details={"stream": stream},
        )
    return JadeError(
        ErrorCode.IO_ERROR,
        f"the log's servers refused {stream}: {error}; look into their logs",
        details={"stream": stream, "number": error.number},
    )


async def get_message(
    connection: NatsConnection,
    stream: str,
    deadline: Deadline,
    *,
    sequence: int | None = None,
    subject: str | None = None,
) -> Stored | None:
    """The message with this sequence, or the newest of this subject, as the leader has it. Raises ApiError, UNAVAILABLE."""
    body: dict[str, Any] = {"seq": sequence} if sequence is not None else {"last_by_subj": subject}
    try:
        answer = await ask(connection, f"STREAM.MSG.GET.{stream}", body, deadline)
    except ApiError as error:
        if error.number == MESSAGE_NOT_FOUND:
            return None
        raise
    message = answer["message"]
    data: bytes | None
    try:
        data = base64.b64decode(message.get("data") or "", validate=True)
    except binascii.Error:
        data = None
    return Stored(str(message["subject"]), int(message["seq"]), data)


async def purge_below(
    connection: NatsConnection, stream: str, sequence: int, deadline: Deadline, *, subject: str | None = None
) -> None:
    """Remove everything before this sequence, of one subject or of all. Raises ApiError, UNAVAILABLE."""
    body: dict[str, Any] = {"seq": sequence}
    if subject is not None:
        body["filter"] = subject
    await ask(connection, f"STREAM.PURGE.{stream}", body, deadline)


async def delete_stream(connection: NatsConnection, stream: str, deadline: Deadline) -> None:
    """It does not exist afterwards. Raises ApiError, UNAVAILABLE."""
    try:
        await ask(connection, f"STREAM.DELETE.{stream}", None, deadline)
    except ApiError as error:
        if error.number != STREAM_NOT_FOUND:
            raise
