"""Hostile gRPC: messages filled by chance, bytes that are no message, frames that are no HTTP/2."""

from __future__ import annotations

import socket
import struct
from random import Random
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor

from jadevectordb.gateway.rpc.table import RPCS, Kind, Rpc
from tests.fuzz.bodies import DIMENSION, numbers
from tests.fuzz.exchange import ANSWER_S_MAX, Wrong
from tests.fuzz.values import DATABASES, IDS, NUMBERS, SHORT_LIVED, STRINGS, condition, flipped, text_of, value

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NEVER = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED")
_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def message_of(chance: Random, rpc: Rpc) -> bytes:
    """What is sent as the message of this RPC: well-formed or not."""
    message = rpc.request()
    _fill(chance, message, 3)
    if rpc.name in ("DeleteDatabase", "AlterDatabase") and message.database in DATABASES:
        message.database = chance.choice(SHORT_LIVED)
    data: bytes = message.SerializeToString()
    return flipped(chance, data) if chance.random() < 0.3 else data


def _fill(chance: Random, message: Any, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.3 and field.name != "database":
            continue
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if depth:
                _fill_messages(chance, message, field, depth)
        elif field.is_repeated:
            count = chance.choice((0, 1, 2, 3, DIMENSION, 3 * DIMENSION))
            getattr(message, field.name).extend(_scalar(chance, field) for _ in range(count))
        else:
            setattr(message, field.name, _scalar(chance, field))


def _fill_messages(chance: Random, message: Any, field: Any, depth: int) -> None:
    inner = getattr(message, field.name)
    if field.message_type.GetOptions().map_entry:
        return
    if field.is_repeated:
        for _ in range(chance.randrange(4)):
            _fill(chance, inner.add(), depth - 1)
    else:
        inner.SetInParent()
        _fill(chance, inner, depth - 1)


def _scalar(chance: Random, field: Any) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(chance, field.name)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.name == "database" and chance.random() < 0.9:
            return chance.choice(DATABASES)
        if field.name in ("name", "new_name"):
            return f"made{chance.randrange(4)}"
        text = chance.choice(IDS if chance.random() < 0.6 else STRINGS)
        return text.encode("utf-8", "replace").decode()
    if kind in _INTEGERS:
        low, high = _BOUNDS[kind]
        if field.name in ("shards", "dimension"):
            return chance.choice((0, 1, 2, DIMENSION, high))
        return chance.choice((0, 1, 2, 10, low, high, max(low, -1), chance.randrange(low, high)))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice((0, 1, 2, 99, -1))
    if "timeout" in field.name:  # a long wait is a long wait
        return chance.choice((0.0, 0.1, -1.0, float("nan")))
    return float(max(-1e300, min(1e300, chance.choice(NUMBERS[:-9]))))


def _bytes(chance: Random, name: str) -> bytes:
    if "json" in name or "filter" in name:
        return text_of(chance, condition(chance) if chance.random() < 0.7 else value(chance))
    if chance.random() < 0.7:
        return struct.pack(f"<{DIMENSION}f", *numbers(chance))
    return chance.randbytes(chance.choice((0, 1, 16, 17, 400)))


class RpcFuzzer:
    """One channel. address: host:port."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(address)

    def close(self) -> None:
        self._channel.close()

    def call(self, seed: int, number: int) -> str:
        """One call or one connection full of nonsense; its status. Raises Wrong with what was sent."""
        chance = Random(f"rpc/{seed}/{number}")
        if chance.random() < 0.1:
            return self._nonsense(chance)
        rpc = chance.choice(RPCS)
        messages = [message_of(chance, rpc) for _ in range(chance.randrange(4) if rpc.kind is Kind.BOTH_STREAM else 1)]
        path = rpc.path if chance.random() < 0.95 else chance.choice((rpc.path + "x", "/x/y", "/", rpc.path.lower()))
        metadata = [("authorization", "Bearer x")] if chance.random() < 0.03 else []
        call = self._channel.stream_stream(path)(iter(messages), timeout=ANSWER_S_MAX, metadata=metadata)
        try:
            if chance.random() < 0.05:
                call.cancel()
            for _ in call:
                pass
            status, sentence = "OK", ""
        except grpc.RpcError as error:
            status, sentence = error.code().name, error.details() or ""
        if (
            (status in _NEVER and rpc.kind is not Kind.WAIT)
            or status in ("INTERNAL", "UNKNOWN")
            or "Traceback" in sentence
        ):
            raise Wrong(f"gRPC call {number}: {path} answered {status} ({sentence[:500]}) to {messages!r:.3000}")
        return status

    def _nonsense(self, chance: Random) -> str:
        host, _, port = self._address.rpartition(":")
        data = chance.choice((b"", _PREFACE, _PREFACE + frame(4, 0, 0, b""))) + _frames(chance)
        with socket.create_connection((host, int(port)), ANSWER_S_MAX) as connection:
            connection.settimeout(ANSWER_S_MAX)
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            except TimeoutError:
                raise Wrong(f"the connection stayed open after {data!r:.3000}") from None
            except OSError:
                pass
        return "nonsense"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _frames(chance: Random) -> bytes:
    data = b""
    for _ in range(chance.randrange(1, 12)):
        payload = chance.randbytes(chance.choice((0, 4, 5, 8, 100, 20_000)))
        data += frame(chance.randrange(12), chance.randrange(256), chance.choice((0, 1, 2, 3, 2**31 - 1)), payload)
    return flipped(chance, data) if chance.random() < 0.5 else data
