"""Which server a call goes to, where several can answer it: the addresses that were given, and those that a cluster tells.

One node is used until it fails, then the next; one that failed rests for a while, longer each time. Every answer of a cluster's
node carries the version of the cluster map; when that is new, the map is asked for, which names the nodes. No socket, no clock:
the shells bring times and chance. Shared by all threads of a client: what changes does so by single assignments.
"""

from __future__ import annotations

import msgspec

from jadevectordb.client.address import Address
from jadevectordb.client.call import Answer, Call, read_as
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CLIENT_NODES_MAX

MAP_HEADER = "x-jade-map"
_REST_S, _REST_S_MAX = 0.5, 15.0
_ASK_S = 2.0  # between two questions for the map
ASK_S_MAX = 2.0  # for its answer: the caller has his own already and waits
_CONNECT_S_MAX = 2.0  # to a node, where others may answer instead
_SHARE_S_MIN = 0.5
_VERSION_DIGITS_MAX = 18


class _Node(msgspec.Struct):
    rest: str = ""
    alive: bool = True


class ClusterNodes(msgspec.Struct):
    """The answer of /v2/cluster/map, as much of it as a client needs."""

    is_cluster: bool = False
    version: int = 0
    nodes: list[_Node] = []


def ask_for_map() -> Call[ClusterNodes]:
    return Call("GET", "/v2/cluster/map", read_as(ClusterNodes))


class Nodes:
    """given: never empty, always kept. chance: 0 to 1, drawn; which of them is used first, so that clients spread."""

    def __init__(self, given: tuple[Address, ...], chance: float) -> None:
        assert given
        self.given = given
        self.known = given  # given ones first, then learnt ones
        self._current = given[min(int(chance * len(given)), len(given) - 1)]
        self._away: tuple[Address, ...] = ()  # what the cluster called dead: tried when nobody else is left
        self._is_cluster = False
        self._resting: dict[Address, tuple[float, int]] = {}  # until when, and how often it failed in a row
        self._version = -1  # of the map that `known` is of
        self._seen = -1  # the newest that an answer named
        self._asked_s = float("-inf")

    @property
    def count(self) -> int:
        return len(self.known)

    @property
    def tries(self) -> int:
        """How many nodes a call may go to one after the other, 1 = there is one server and no other.

        Of a cluster more than one, even while one alone lives: others come back.
        """
        return max(self.count, 2) if self._is_cluster else self.count

    def choose(self, now_s: float) -> Address:
        """Where the next call goes."""
        current = self._current
        if self._rested(current, now_s):
            return current
        known = self.known
        start = known.index(current) if current in known else 0
        ring = known[start:] + known[:start]
        # When all rest, the one that has rested longest, one that was dead included
        chosen = next((a for a in ring if self._rested(a, now_s)), None) or min(
            (*self._away, *ring), key=self._rests_until
        )
        self._current = chosen
        return chosen

    def _rested(self, address: Address, now_s: float) -> bool:
        return self._rests_until(address) <= now_s

    def _rests_until(self, address: Address) -> float:
        resting = self._resting.get(address)
        return float("-inf") if resting is None else resting[0]

    def failed(self, address: Address, error: JadeError, now_s: float) -> None:
        """A call to this node failed; it rests if that is the node's fault."""
        if self.tries > 1 and is_nodes_fault(error):
            times = self._resting.get(address, (0.0, 0))[1]
            self._resting[address] = (now_s + min(_REST_S_MAX, _REST_S * 2 ** min(times, 10)), times + 1)

    def answered(self, address: Address, answer: Answer) -> None:
        """The node answered; what it says of the cluster map is remembered."""
        if address in self._resting and answer.status < 500:
            self._resting.pop(address, None)
        told = answer.headers.get(MAP_HEADER)
        if told is not None and told.isascii() and told.isdigit() and len(told) <= _VERSION_DIGITS_MAX:
            self._seen = max(self._seen, int(told))

    def wants_map(self, now_s: float) -> bool:
        """Whether to ask for the map now; who is told so asks."""
        if self._seen <= self._version or now_s - self._asked_s < _ASK_S:
            return False
        self._asked_s = now_s
        return True

    def learn(self, told: ClusterNodes) -> list[Address]:
        """Take in the map. The result: addresses that are no nodes any more."""
        if not told.is_cluster or told.version < self._version:
            return []
        found = [(node, address) for node in told.nodes[:CLIENT_NODES_MAX] if (address := self._usable(node.rest))]
        learnt = [address for node, address in found if node.alive]
        before, self.known = self.known, tuple(dict.fromkeys((*self.given, *learnt)))
        self._away = tuple(dict.fromkeys(address for _, address in found if address not in self.known))
        self._is_cluster = True
        self._version = told.version
        self._seen = max(self._seen, told.version)
        gone = [address for address in before if address not in self.known]
        for address in gone:
            self._resting.pop(address, None)
        return gone

    def _usable(self, url: str) -> Address | None:
        """Behind a proxy nodes can't be told apart, and what was given as https is never sent over http."""
        try:
            address = Address.of(url)
        except JadeError:
            return None
        first = self.given[0]
        return None if first.path or (first.is_tls and not address.is_tls) else address

    def until(self, call: Call[object], now_s: float, deadline: float) -> float:
        """How long one node may take for a try: where others can answer, half of what is left, so that they get a chance."""
        left = deadline - now_s
        if self.tries == 1 or not call.repeatable:
            return deadline
        return now_s + min(left, max(left / 2, _SHARE_S_MIN, call.wait_s + _SHARE_S_MIN))

    def connect_s(self, usual: float) -> float:
        return usual if self.tries == 1 else min(usual, _CONNECT_S_MAX)


def is_nodes_fault(error: JadeError) -> bool:
    """Whether another node might do better: no connection, no answer, or the node says that it can't now."""
    if error.details.get("phase") is not None:
        return error.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)
    if error.details.get("status") != 503:
        return False
    return error.code in (ErrorCode.UNAVAILABLE, ErrorCode.STALE_MAP, ErrorCode.CLOSED, ErrorCode.TIMEOUT)
