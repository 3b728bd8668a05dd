"""What the cluster map becomes, given what is seen: a pure function, the same on whichever node is master.

`decide` goes through its rules in one order, each on the map as the rules before it left it, and returns the changes with their
reasons; deciding again on what results changes nothing until something is seen to have changed. What it never does: take a replica
away, or let one go, that leaves a shard with fewer active replicas on living nodes than it shall have or has.

    1 what was created, altered or dropped is followed    5 shards with too few replicas get more
    2 what nodes report becomes the map's state           6 replicas that are too many, lost or draining retire, but only
    3 retired replicas leave the map when                   when as many as shall be serve without them
      their node has let go of them                       7 one replica a database moves to even out zones and nodes
    4 new databases are placed                            8 primaries move off nodes that do not serve, and are spread

What "serves", "lost", "kept" and "whole" mean is said in `control.scene`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from jadevectordb.control.observe import Observed
from jadevectordb.control.scene import Change, Scene
from jadevectordb.topology.cluster_map import (
    ClusterMap,
    DatabaseRecord,
    ReplicaRecord,
    ReplicaState,
    ShardRecord,
)
from jadevectordb.topology.placed import PlacedDatabase

REPLACE_AFTER_S: Final = 60.0
_S = ReplicaState
_NOT_YET: Final = (_S.ASSIGNED, _S.LOADING, _S.CATCHING_UP)


def decide(observed: Observed, *, replace_after_s: float = REPLACE_AFTER_S) -> list[Change]:
    """The changes that the map needs now, in order; each holds on the map with those before it made."""
    changes: list[Change] = []
    for rule in _RULES:
        for change in rule(Scene(observed, replace_after_s)):
            changes.append(change)
            observed = replace(observed, map=change.made_on(observed.map))
    return changes


def apply_changes(cluster_map: ClusterMap, changes: Iterable[Change], term: int) -> ClusterMap:
    """The next version of the map, written by the master of this term."""
    assert term >= cluster_map.term, "a master writes over nothing that a later one wrote"
    for change in changes:
        cluster_map = change.made_on(cluster_map)
    return msgspec.structs.replace(cluster_map, version=cluster_map.version + 1, term=term)


# --- the rules --------------------------------------------------------------------------------------------------------


def _follow_placed(scene: Scene) -> Iterator[Change]:
    """What was asked for: databases that are dropped, another number of replicas."""
    for name, record in scene.databases.items():
        placed = scene.observed.placed.get(name)
        if placed is None and not record.dropped:
            shards = tuple(ShardRecord(shard.number) for shard in record.shards)
            dropped = msgspec.structs.replace(record, shards=shards, dropped=True)
            yield Change(f"{name}: the database was dropped", name, dropped)
        elif placed is not None and not record.dropped and placed.replication != record.replication:
            altered = msgspec.structs.replace(record, replication=placed.replication)
            reason = f"{name}: {placed.replication} replicas a shard instead of {record.replication}"
            yield Change(reason, name, altered)


def _follow_reports(scene: Scene) -> Iterator[Change]:
    """ASSIGNED becomes ACTIVE when its node says so, and ACTIVE becomes ASSIGNED when it does not serve any more.

    The last one that answers stays ACTIVE while its node works on it (it waits, or answers from what it has), but not when
    it is known to hold nothing. A retiring one is called back when no other answers.
    """
    for record, shard in scene.shards():
        said = {r.node: scene.report(record.id, shard.number, r) for r in shard.replicas}
        for replica in sorted(shard.replicas, key=lambda r: (_turn(r, said[r.node]), r.node)):
            current = scene.databases[record.id].shards[shard.number]
            state = _state_after(scene, current, replica, said[replica.node])
            if state is not replica.state:
                reason = (
                    f"{replica.node} {'is' if state is _S.ACTIVE else 'is no longer'} active ({said[replica.node]})"
                )
                yield scene.edit(record.id, _with_state(current, replica.node, state), reason)


def _turn(replica: ReplicaRecord, said: ReplicaState | None) -> int:
    """Who becomes active comes first, then who holds nothing: so the last that can serve is known when it is its turn."""
    if replica.state is _S.RETIRING:
        return 3
    return 0 if replica.state is _S.ASSIGNED else 1 if said in (_S.FAILED, _S.GONE) else 2


def _state_after(scene: Scene, shard: ShardRecord, replica: ReplicaRecord, said: ReplicaState | None) -> ReplicaState:
    others_answer = any(scene.answers(r) for r in shard.replicas if r.node != replica.node)
    match replica.state:
        case _S.ASSIGNED if said is _S.ACTIVE:
            return _S.ACTIVE
        case _S.ACTIVE if said in (_S.FAILED, _S.GONE) or (said in _NOT_YET and others_answer):
            return _S.ASSIGNED
        case _S.RETIRING if said in (_S.ACTIVE, _S.RETIRING) and not others_answer:
            return _S.ACTIVE
        case _:
            return replica.state


def _place_new(scene: Scene) -> Iterator[Change]:
    loads = scene.loads_to_be()
    for name in sorted(scene.observed.placed):
        placed = scene.observed.placed[name]
        if name in scene.databases or not scene.nodes:
            continue
        record = _placed(scene, placed, loads)
        scene.databases[name] = record
        nodes = sorted({r.node for shard in record.shards for r in shard.replicas})
        yield Change(f"{name}: new, {len(record.shards)} shards on {', '.join(nodes)}", name, record)


def _placed(scene: Scene, placed: PlacedDatabase, loads: Counter[str]) -> DatabaseRecord:
    version = scene.observed.map.version + 1
    own: Counter[str] = Counter()
    shards = []
    for number in range(placed.config.shards):
        holders: list[str] = []
        for _ in range(min(placed.replication, len(scene.nodes))):
            node = scene.best_node(holders, holders, own, loads)
            assert node is not None
            holders.append(node)
            own[node] += 1
            loads[node] += 1
        shards.append(ShardRecord(number, tuple(ReplicaRecord(node, since=version) for node in holders)))
    return DatabaseRecord(placed.id, placed.replication, tuple(shards))


def _fill(scene: Scene) -> Iterator[Change]:
    loads = scene.loads_to_be()
    for record, shard in scene.shards():
        if record.dropped:
            continue
        while True:
            shard = scene.databases[record.id].shards[shard.number]
            kept = scene.kept(record.id, shard)
            if len(kept) >= record.replication:
                break
            holders = [r.node for r in shard.replicas]
            own = scene.database_loads(scene.databases[record.id])
            node = scene.best_node(holders, [r.node for r in kept], own, loads)
            if node is None:
                break
            loads[node] += 1
            more = ReplicaRecord(node, since=scene.observed.map.version + 1)
            reason = f"{node} gets a replica: {len(kept)} of {record.replication} are kept"
            yield scene.edit(record.id, _with_replica(shard, more), reason)


def _retire(scene: Scene) -> Iterator[Change]:
    """Replicas that are too many, lost or draining; as long as enough serve without them."""
    loads = scene.loads()
    for record, shard in scene.shards():
        kept = scene.kept(record.id, shard)
        for replica in shard.replicas:
            if replica.state is _S.RETIRING or replica in kept:
                continue
            if scene.count_serving(record.id, shard.number, kept) >= record.replication:
                yield _send_off(scene, record.id, shard.number, replica, _why_not_kept(scene, replica))
        while len(kept) > record.replication:
            replica = scene.surplus(record.id, shard.number, kept, loads)
            kept = [r for r in kept if r is not replica]
            if scene.count_serving(record.id, shard.number, kept) < record.replication:
                break
            loads[replica.node] -= 1
            yield _send_off(scene, record.id, shard.number, replica, f"is one more than {record.replication}")


def _why_not_kept(scene: Scene, replica: ReplicaRecord) -> str:
    if scene.draining(replica):
        return "is draining"
    return "has failed" if scene.observed.is_up(replica.node) else "has been away for too long"


def _send_off(scene: Scene, database: str, number: int, replica: ReplicaRecord, why: str) -> Change:
    """A living node is told to let go; of one that is away there is nothing to wait for."""
    shard = _with_no_move_from(scene.databases[database].shards[number], replica.node)
    if scene.observed.is_up(replica.node):
        return scene.edit(
            database, _with_state(shard, replica.node, _S.RETIRING), f"the replica on {replica.node} retires: it {why}"
        )
    return scene.edit(database, _without(shard, replica.node), f"{replica.node} has no replica any more: it {why}")


def _let_go(scene: Scene) -> Iterator[Change]:
    """A retiring replica leaves the map when its node has closed it, or is away while others serve."""
    for record, shard in scene.shards():
        for replica in shard.replicas:
            if replica.state is not _S.RETIRING:
                continue
            said = scene.report(record.id, shard.number, replica)
            current = scene.databases[record.id].shards[shard.number]
            away = not scene.observed.is_up(replica.node)
            if said is _S.GONE or (away and scene.count_serving(record.id, shard.number, current.replicas)):
                yield scene.edit(record.id, _without(current, replica.node), f"{replica.node} has let go")


def _even_out(scene: Scene) -> Iterator[Change]:
    """One more replica on another node, where that makes zones or loads more even; the surplus retires when it serves.

    A move for the sake of zones may leave loads that another database's move makes even: so all are looked at until none moves.
    """
    loads = scene.loads_to_be()
    moved = True
    while moved:
        moved = False
        for name in scene.databases:
            record = scene.databases[name]
            if (
                _is_even(scene, record, loads)
                or record.dropped
                or not all(scene.whole(record, shard) for shard in record.shards)
            ):
                continue
            move = _best_move(scene, record, loads)
            if move is not None:
                shard, source, target, why = move
                loads[source] -= 1
                loads[target] += 1
                moved = True
                more = ReplicaRecord(target, since=scene.observed.map.version + 1, replaces=source)
                yield scene.edit(name, _with_replica(shard, more), f"moves from {source} to {target}: {why}")


def _is_even(scene: Scene, record: DatabaseRecord, loads: Mapping[str, int]) -> bool:
    """There is no move to be found: said without looking for one, as this is so nearly always."""
    if max(loads.values(), default=0) - min(loads.values(), default=0) >= 2:
        return False
    return len(scene.zones) < 2 or all(scene.is_spread([r.node for r in shard.replicas]) for shard in record.shards)


def _best_move(
    scene: Scene, record: DatabaseRecord, loads: Mapping[str, int]
) -> tuple[ShardRecord, str, str, str] | None:
    """The move that gains most: first in zones, then in load where nodes differ by two or more."""
    own = scene.database_loads(record)
    best: tuple[tuple[int, int, int, int, str, str], ShardRecord, str, str, str] | None = None
    for shard in record.shards:
        if any(r.by_hand for r in shard.replicas):
            continue  # another of its replicas could land just where that one was moved away from
        holders = [r.node for r in shard.replicas]
        crowded = scene.crowding(holders)
        for target in scene.nodes:
            if target in holders:
                continue
            for source in holders:
                zones = scene.crowding([target, *(n for n in holders if n != source)]) - crowded
                load = loads[target] - loads[source]
                if zones > 0 or (zones == 0 and load > -2):
                    continue
                why = "zones" if zones < 0 else f"{loads[source]} replicas there, {loads[target]} here"
                rank = (zones, load, own[target] - own[source], shard.number, source, target)
                if best is None or rank < best[0]:
                    best = (rank, shard, source, target, why)
    return None if best is None else best[1:]


def _choose_primaries(scene: Scene) -> Iterator[Change]:
    counts: Counter[str] = Counter()
    for _record, shard in scene.shards():
        counts[shard.primary] += 1
    for record, shard in scene.shards():
        able = _able(scene, record, shard)
        if shard.primary in able:
            continue
        if not able:
            primary = shard.on(shard.primary)
            if shard.primary and (primary is None or primary.state is _S.ASSIGNED):
                counts[shard.primary] -= 1
                reason = f"no primary: {shard.primary} does not serve, nor does another"
                yield scene.edit(record.id, msgspec.structs.replace(shard, primary=""), reason)
            continue
        counts[shard.primary] -= 1
        node = min(able, key=lambda node: (counts[node], node))
        counts[node] += 1
        reason = f"primary is {node}" + (f", {shard.primary} serves no more" if shard.primary else "")
        yield scene.edit(record.id, msgspec.structs.replace(shard, primary=node), reason)
    yield from _spread_primaries(scene, counts)


def _spread_primaries(scene: Scene, counts: Counter[str]) -> Iterator[Change]:
    """Each move lessens the sum of squares of the counts, so this ends."""
    moved = True
    while moved:
        moved = False
        for record, shard in scene.shards():
            able = _able(scene, record, shard)
            if shard.primary not in able:
                continue
            node = min(able, key=lambda node: (counts[node], node))
            if counts[shard.primary] - counts[node] >= 2:
                counts[shard.primary] -= 1
                counts[node] += 1
                moved = True
                reason = f"primary moves from {shard.primary} to {node}, which has fewer"
                yield scene.edit(record.id, msgspec.structs.replace(shard, primary=node), reason)


def _able(scene: Scene, record: DatabaseRecord, shard: ShardRecord) -> list[str]:
    """Nodes whose replica may be primary: those that answer and stay; else those that answer at all."""
    answering = [r for r in shard.replicas if scene.answers(r)]
    staying = [r.node for r in answering if not scene.draining(r)]
    retiring = [r.node for r in shard.replicas if r.state is _S.RETIRING and scene.observed.is_up(r.node)]
    return staying or [r.node for r in answering] or retiring


_RULES: Final[tuple[Callable[[Scene], Iterable[Change]], ...]] = (
    _follow_placed,
    _follow_reports,
    _let_go,
    _place_new,
    _fill,
    _retire,
    _even_out,
    _choose_primaries,
)


def _with_replica(shard: ShardRecord, replica: ReplicaRecord) -> ShardRecord:
    assert shard.on(replica.node) is None, "a node holds at most one replica of a shard"
    return msgspec.structs.replace(shard, replicas=(*shard.replicas, replica))


def _without(shard: ShardRecord, node: str) -> ShardRecord:
    primary = "" if shard.primary == node else shard.primary
    return msgspec.structs.replace(shard, replicas=tuple(r for r in shard.replicas if r.node != node), primary=primary)


def _with_no_move_from(shard: ShardRecord, node: str) -> ShardRecord:
    replicas = (msgspec.structs.replace(r, replaces="") if r.replaces == node else r for r in shard.replicas)
    return msgspec.structs.replace(shard, replicas=tuple(replicas))


def _with_state(shard: ShardRecord, node: str, state: ReplicaState) -> ShardRecord:
    replicas = tuple(msgspec.structs.replace(r, state=state) if r.node == node else r for r in shard.replicas)
    return msgspec.structs.replace(shard, replicas=replicas)
