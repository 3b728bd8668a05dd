"""Which nodes to ask about which shards: a pure function of the cluster map, of who seems alive and of whom to prefer.

Shards go to as few nodes as the preference allows: a search costs one message a node, not one a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jadevectordb.topology.cluster_map import DatabaseRecord, ReplicaState


@dataclass(frozen=True, slots=True)
class Routes:
    """by_node: shards to ask of each node, numbers ascending. homeless: shards that nobody can be asked about."""

    by_node: dict[str, tuple[int, ...]] = field(default_factory=dict)
    homeless: tuple[int, ...] = ()


def route(
    record: DatabaseRecord,
    shards: Iterable[int],
    is_alive: Callable[[str], bool],
    order: Callable[[Collection[str]], list[str]],
    tried: Mapping[int, Collection[str]],
) -> Routes:
    """One node for each shard.

    order: nodes, the one to ask first in front. tried: nodes that were asked about a shard before, and are not asked again.
    Who seems dead is asked only about shards that nobody else has: the word that he is dead may be old.
    """
    candidates = [(number, _candidates(record, number, tried.get(number))) for number in sorted(shards)]
    preference = order({node for _, nodes in candidates for node in nodes})
    preference.sort(key=lambda node: not is_alive(node))
    rank = {node: place for place, node in enumerate(preference)}
    by_node: dict[str, list[int]] = {}
    homeless = []
    for number, nodes in candidates:
        if nodes:
            node = nodes[0] if len(nodes) == 1 else min(nodes, key=rank.__getitem__)
            by_node.setdefault(node, []).append(number)
        else:
            homeless.append(number)
    return Routes({node: tuple(numbers) for node, numbers in by_node.items()}, tuple(homeless))


def _candidates(record: DatabaseRecord, number: int, tried: Collection[str] | None) -> Sequence[str]:
    if number >= len(record.shards):
        return ()
    readable = record.shards[number].readable
    return [node for node in readable if node not in tried] if tried else readable


def live_replicas(record: DatabaseRecord, number: int, is_alive: Callable[[str], bool]) -> list[str]:
    """Nodes with an active replica of the shard that seem alive: those that a STRONG write waits for."""
    if number >= len(record.shards):
        return []
    replicas = record.shards[number].replicas
    return [r.node for r in replicas if r.state is ReplicaState.ACTIVE and is_alive(r.node)]
