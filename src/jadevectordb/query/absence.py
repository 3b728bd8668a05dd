"""When an id that no shard showed is certainly not stored, though shards were seen at different sequences of the log they share. Pure.

`shard.departures` says why that is a question. Let b be the moment: a sequence that every shard was seen at or beyond, and that lies
within the read. If the id was alive at b, then in one shard, which does not show it any more: it was deleted after b, and then it was
not stored for a moment of the read; or it left for another shard after b, and then that departure is told, unless it was forgotten.
The latest departure told of is to a shard p at x. If p was seen at x or later and does not show the id either, it was deleted in p
after x, since a departure from p would be later than x, and told. So an absence is certain when no departure after b may be forgotten,
and every shard that an id left for last was seen at that sequence or beyond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

Departed = tuple[str, int, int]  # id, at which sequence, for which shard


def to_be_seen(
    names: Collection[str], departed: Iterable[Departed], forgotten: int, seen: Mapping[int, int], moment: int
) -> dict[int, int]:
    """By shard, the sequence it has to be seen at before it is certain that these ids are not stored; {}: it is certain.

    names: shown by none of the shards. seen: every shard with the sequence at which it did not show them. forgotten: departures up
    to here may be missing in departed. moment: 0 = none is given, then what is told is all that counts.
    """
    wanted = set(names)
    latest: dict[str, tuple[int, int]] = {}
    for name, sequence, shard in departed:
        if name in wanted and sequence > latest.get(name, (0, 0))[0]:
            latest[name] = sequence, shard
    on_the_way: dict[int, int] = {}
    for sequence, shard in latest.values():
        if seen[shard] < sequence:
            on_the_way[shard] = max(sequence, on_the_way.get(shard, 0))
    if on_the_way:
        return on_the_way
    if not moment or forgotten <= moment:
        return {}
    return dict.fromkeys(seen, max(seen.values()))
