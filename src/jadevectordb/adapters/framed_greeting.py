"""How two nodes make sure of each other before the first call: same protocol, same cluster, same secret. No I/O here.

    asker                                    answerer
    HELLO versions, cluster, node, nonce  →  checks versions and cluster
    checks the same                       ←  HELLO versions, cluster, node, nonce
    PROOF hmac(secret, "asker", both)     →  checks it
    checks it; calls may begin            ←  PROOF hmac(secret, "answerer", both)

The asker proves first, so whoever only knocks gets nothing to guess the secret from; both nonces and a word for the side are in
each proof, so none can be played back or reflected. The proofs cover who is at the ends, not what travels later: on a network
where somebody could take over a connection, TLS is what protects it.

Who is refused is told why (a Failure) before the connection ends, and the one who refuses says so in his log.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from jadevectordb.adapters import framed_wire as wire
from jadevectordb.model.errors import ErrorCode, JadeError

PROTOCOL_NEWEST = 1  # versions of what travels that this code speaks
PROTOCOL_OLDEST = 1
NONCE_BYTES = 32
GREETING_BYTES_MAX = 4096  # a frame of somebody who has not proved himself yet
_MAGIC = "jade nodes"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a node says of itself to others. secret: the cluster's, the same on all nodes; never sent."""

    node: str
    cluster: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.secret:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "the cluster's secret is empty; give all nodes the same one")


class Hello(msgspec.Struct, frozen=True, array_like=True):
    magic: str
    newest: int
    oldest: int
    cluster: str
    node: str
    nonce: bytes


class Side(Enum):
    ASKER = "asker"
    ANSWERER = "answerer"


class Greeting:
    """One side of the exchange. `receive` takes the other's frames until `is_done`."""

    def __init__(self, side: Side, identity: NodeIdentity, nonce: bytes, newest: int = PROTOCOL_NEWEST) -> None:
        """nonce: NONCE_BYTES that nobody can foretell."""
        assert len(nonce) == NONCE_BYTES
        self._side = side
        self._identity = identity
        self._own = Hello(_MAGIC, newest, PROTOCOL_OLDEST, identity.cluster, identity.node, nonce)
        self._other: Hello | None = None
        self.protocol = 0  # agreed upon
        self.is_done = False

    @property
    def other_node(self) -> str:
        """The other side's node, as it says until `is_done`, proved from then on; "" before it said anything."""
        return self._other.node if self._other else ""

    def begin(self) -> list[tuple[int, bytes]]:
        """Frames (kind, payload) to send at once."""
        return [self._hello()] if self._side is Side.ASKER else []

    def receive(self, kind: int, payload: memoryview) -> list[tuple[int, bytes]]:
        """Frames to send now. Raises FORMAT_TOO_NEW, CONFLICT (another cluster), UNAUTHORIZED, INVALID_ARGUMENT (no node at all), and
        what the other side refused with."""
        if kind == wire.REFUSAL:
            error = wire.failure_error(payload)
            raise JadeError(error.code, f"refused by the other side: {error.message}", details=error.details)
        if kind == wire.HELLO and self._other is None:
            self._other = self._checked(payload)
            return [self._hello()] if self._side is Side.ANSWERER else [(wire.PROOF, self._proof(Side.ASKER))]
        if kind == wire.PROOF and self._other is not None:
            other_side = Side.ANSWERER if self._side is Side.ASKER else Side.ASKER
            if not hmac.compare_digest(payload, self._proof(other_side)):
                raise JadeError(
                    ErrorCode.UNAUTHORIZED,
                    f"nodes {self._identity.node} and {self._other.node} have different cluster secrets; give all nodes the same one",
                )
            self.is_done = True
            return [(wire.PROOF, self._proof(Side.ANSWERER))] if self._side is Side.ANSWERER else []
        raise _stranger(f"a frame of kind {kind} came where it makes no sense")

    def _hello(self) -> tuple[int, bytes]:
        return wire.HELLO, wire.encode(self._own)

    def _checked(self, payload: memoryview) -> Hello:
        try:
            other = msgspec.msgpack.decode(payload, type=Hello)
        except msgspec.MsgspecError as error:
            raise _stranger(str(error)) from None
        if other.magic != _MAGIC or len(other.nonce) != NONCE_BYTES:
            raise _stranger("its greeting is another one")
        own = self._own
        if other.newest < own.oldest or own.newest < other.oldest:
            raise JadeError(
                ErrorCode.FORMAT_TOO_NEW,
                f"node {other.node} speaks versions {other.oldest} to {other.newest} of the protocol between nodes, node {own.node} "
                f"versions {own.oldest} to {own.newest}; bring the older one to a release between",
            )
        self.protocol = min(other.newest, own.newest)
        if other.cluster != own.cluster:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"node {other.node} belongs to cluster {other.cluster}, node {own.node} to cluster {own.cluster}; "
                "look at the addresses the nodes were given",
            )
        return other

    def _proof(self, side: Side) -> bytes:
        assert self._other is not None
        asker, answerer = (self._own, self._other) if self._side is Side.ASKER else (self._other, self._own)
        said = wire.encode([_MAGIC, side.value, self.protocol, asker, answerer])
        return hmac.new(self._identity.secret.encode(), said, hashlib.sha256).digest()


def _stranger(why: str) -> JadeError:
    return JadeError(
        ErrorCode.INVALID_ARGUMENT, f"the other side does not speak the protocol between nodes of JadeVectorDB ({why})"
    )
