"""Messages stored in a stream exactly once, or an honest "not known": publishing, repeating and asking what became of it.

Every message has an id that the stream remembers for some minutes. Publishing it again answers with the first one's place, so
an answer that was lost costs nothing. When no answer comes, the cheap question is asked first (`look`): the same id with a
condition that can never hold. The servers look for the id before they look at the condition, so the answer is the place of
the message that is there, or a refusal that stores nothing. Which condition they look at only then depends on the
stream: with several replicas one on the last sequence (one on the last message's id is looked at too late, and the id
then counts as being stored until the next leader), with one replica the other way round.

Several messages for one stream go as one atomic batch: all of them, one after the other, or none. If a batch was stored and its
answer lost, the same batch is refused as a duplicate, and its last message's id tells where it lies.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from nats.aio.msg import Msg

from jadevectordb.adapters.jetstream_api import (
    BATCH_BROKEN,
    BATCH_DUPLICATE,
    MESSAGE_ID_IN_FLIGHT,
    STREAM_NOT_FOUND,
    WRONG_LAST_ID,
    WRONG_LAST_SEQUENCE,
    ApiError,
    Deadline,
    Retry,
    refusal,
    stream_refused,
    stream_state,
)
from jadevectordb.adapters.nats_connection import Connected, DisconnectedError, NatsConnection, NoRespondersError
from jadevectordb.model.errors import JadeError

ANSWER_S = 0.3  # before the first look what became of it; doubled. A server that steps down may swallow a message
_KNOWN_S = 1.0  # to ask whether there is such a stream
_NO_SEQUENCE = str(2**63 - 1)
_NO_ID = "no message has this id"

MESSAGE_ID = "Nats-Msg-Id"
_EXPECTED_LAST = "Nats-Expected-Last-Sequence"
_EXPECTED_LAST_ID = "Nats-Expected-Last-Msg-Id"
EXPECTED_LAST_OF_SUBJECT = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    data: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> dict[str, str]:
        return {MESSAGE_ID: self.id, **dict(self.headers)}


@dataclass(frozen=True, slots=True)
class Place:
    last: int  # sequence of the last message
    duplicate: bool  # it was there before this call, or was stored by an earlier try of it


async def publish(
    connection: NatsConnection,
    stream: str,
    subject: str,
    messages: Seq[Message],
    deadline: Deadline,
    *,
    replicated: bool,
) -> Place:
    """Where the messages lie, durable on a majority. replicated: the stream has more than one replica.

    Raises NOT_FOUND, DISK_FULL, IO_ERROR, and UNAVAILABLE, which tells in `details["undecided"]` whether they may be stored
    all the same, now or soon.
    """
    retry = Retry(connection, deadline, f"writing to {stream}")
    sent = False
    answer_s = ANSWER_S
    while not deadline.over:
        try:
            connected = await asyncio.wait_for(connection.connected(), deadline.left_s(1e6))
            if sent:
                found = await look(
                    connected, subject, messages[-1].id, deadline.left_s(answer_s), replicated=replicated
                )
                if found is not None:
                    return Place(found, True)
            sent = True
            return await _try(connected, subject, messages, deadline.left_s(answer_s))
        except ApiError as error:
            if error.number == STREAM_NOT_FOUND or not _again(error):
                raise stream_refused(stream, error) from error
            await retry.pause(str(error))
        except NoRespondersError:
            await _refuse_unknown(connection, stream, deadline)
            await retry.pause("no server leads it at the moment")
        except DisconnectedError:
            await retry.pause("the connection ended")
        except TimeoutError:
            answer_s *= 2
            await retry.pause("no answer")
    undecided = (
        "; whether it was written is not known, sending it again with the same request id is safe" if sent else ""
    )
    raise retry.unavailable(undecided, undecided=sent, stream=stream)


async def _refuse_unknown(connection: NatsConnection, stream: str, deadline: Deadline) -> None:
    """Nobody listens: there is no leader just now, or there is no such stream. Raises NOT_FOUND."""
    try:
        await stream_state(connection, stream, Deadline(connection, deadline.left_s(_KNOWN_S)))
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            raise stream_refused(stream, error) from error
    except JadeError:
        return  # nobody can say


def _again(error: ApiError) -> bool:
    return (
        error.not_now or error.number in BATCH_BROKEN or error.number in (MESSAGE_ID_IN_FLIGHT, BATCH_DUPLICATE)
    )  # after a duplicate, the look finds it


async def _try(connected: Connected, subject: str, messages: Seq[Message], wait_s: float) -> Place:
    if len(messages) == 1:
        answering = await connected.post(subject, messages[0].data, messages[0].all_headers())
    else:
        answering = await _post_batch(connected, subject, messages)
    answer = await asyncio.wait_for(answering, wait_s)
    sequence, duplicate = place_of(answer)
    return Place(sequence, duplicate)


async def _post_batch(connected: Connected, subject: str, messages: Seq[Message]) -> asyncio.Future[Msg]:
    batch = secrets.token_hex(16)
    for number, message in enumerate(messages[:-1], 1):
        headers = {**message.all_headers(), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        await connected.send(subject, message.data, headers)
    last = messages[-1]
    headers = {**last.all_headers(), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(messages))}
    return await connected.post(subject, last.data, {**headers, "Nats-Batch-Commit": "1"})


async def look(connected: Connected, subject: str, message_id: str, wait_s: float, *, replicated: bool) -> int | None:
    """The place of the message with this id, None when the stream has none. Stores nothing.

    Raises ApiError (MESSAGE_ID_IN_FLIGHT: it is being stored), DisconnectedError, NoRespondersError, TimeoutError.
    """
    try:
        never = {_EXPECTED_LAST: _NO_SEQUENCE} if replicated else {_EXPECTED_LAST_ID: _NO_ID}
        answer = await connected.ask(subject, b"", {MESSAGE_ID: message_id, **never}, wait_s)
        return place_of(answer)[0]
    except ApiError as error:
        if error.number in (WRONG_LAST_SEQUENCE, WRONG_LAST_ID):
            return None
        raise


def place_of(answer: Msg) -> tuple[int, bool]:
    """Sequence, and whether it is a duplicate's. Raises ApiError."""
    found = json.loads(answer.data)
    refused = refusal(found)
    if refused is not None:
        raise refused
    return int(found["seq"]), bool(found.get("duplicate", False))
