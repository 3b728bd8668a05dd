"""Which node to ask first when several hold a replica: in turn, or the one that is least busy as seen from here.

No clock and no thread of its own: callers say when a call to a node began, how it ended and what time it is. A node that let a
call time out or lost it is suspected for a moment and asked last, so that one stopped process does not slow every search
until the cluster has noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jadevectordb.model.limits import NODES_BALANCED_MAX, SUSPECTED_S_MAX, SUSPECTED_S_MIN

_WEIGHT = 0.1  # of the newest latency in the smoothed one
_FORGET = 0.99  # what is left of a node's latency with every call that went elsewhere: a slow moment is not held against it for ever
_START_S = 0.001  # the latency of a node that was never asked
_LOCAL_FACTOR = 1.5  # the own node is preferred until it is this much busier: a call over the network costs both sides


class Balancing(StrEnum):
    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"


@dataclass(slots=True)
class _Node:
    in_flight: int = 0
    latency_s: float = _START_S
    failures: int = 0  # one after the other
    suspected_until_s: float = 0.0


class Balancer:
    """Thread-safe. local: the own node's name, "" when it holds no replicas."""

    def __init__(self, strategy: Balancing, local: str) -> None:
        self._strategy = strategy
        self._local = local
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._turn = 0
        self._suspicion_until_s = float("-inf")  # of any node

    def order(self, nodes: Iterable[str], now_s: float) -> list[str]:
        """The nodes, the one to ask first in front; suspected ones behind all others."""
        with self._lock:
            names = sorted(nodes)
            if self._strategy is Balancing.ROUND_ROBIN:
                self._turn += 1
                start = self._turn % max(1, len(names))
                names = names[start:] + names[:start]
            elif len(names) > 1:
                names.sort(key=self._load)
            if now_s < self._suspicion_until_s:
                names.sort(key=lambda name: self._is_suspected(name, now_s))
            return names

    def _load(self, name: str) -> float:
        node = self._nodes.get(name)
        load = _START_S if node is None else (node.in_flight + 1) * node.latency_s
        return load / _LOCAL_FACTOR if name == self._local else load

    def _is_suspected(self, name: str, now_s: float) -> bool:
        node = self._nodes.get(name)
        return node is not None and now_s < node.suspected_until_s

    def is_suspected(self, name: str, now_s: float) -> bool:
        with self._lock:
            return self._is_suspected(name, now_s)

    def began(self, name: str) -> None:
        with self._lock:
            self._node(name).in_flight += 1

    def ended(self, name: str, seconds: float | None) -> None:
        """seconds: how long its answer took; None when nobody waits for one any more."""
        with self._lock:
            node = self._node(name)
            node.in_flight = max(0, node.in_flight - 1)
            if seconds is None:
                return
            node.failures, node.suspected_until_s = 0, 0.0
            node.latency_s += _WEIGHT * (seconds - node.latency_s)
            for other_name, other in self._nodes.items():
                if other_name != name:
                    other.latency_s = max(_START_S, other.latency_s * _FORGET)

    def suspect(self, name: str, now_s: float) -> None:
        """It did not answer: ask others first for a while, longer each time."""
        with self._lock:
            node = self._node(name)
            node.failures = min(node.failures + 1, 16)
            node.suspected_until_s = now_s + min(SUSPECTED_S_MAX, SUSPECTED_S_MIN * 2.0 ** (node.failures - 1))
            self._suspicion_until_s = max(self._suspicion_until_s, node.suspected_until_s)

    def _node(self, name: str) -> _Node:
        node = self._nodes.get(name)
        if node is None:
            if len(self._nodes) >= NODES_BALANCED_MAX:  # names that have long left the cluster
                self._nodes.pop(next(iter(self._nodes)))
            node = self._nodes[name] = _Node()
        return node
