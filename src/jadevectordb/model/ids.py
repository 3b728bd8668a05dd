"""Identities: no bare ints or strings travel between layers."""

from __future__ import annotations

from typing import NewType

VectorId = NewType("VectorId", str)  # the caller's name for a vector, 1..512 characters, no control characters
DatabaseName = NewType("DatabaseName", str)
ShardId = NewType("ShardId", int)  # 0-based within its database
NodeId = NewType("NodeId", str)
RequestId = NewType("RequestId", str)  # "" = the caller gave none, nothing to de-duplicate
Sequence = NewType("Sequence", int)  # position in one shard's log, from 1 without gaps; 0 = before the first entry
Version = NewType("Version", int)  # of a vector: the sequence of the entry that wrote it
HybridTime = NewType("HybridTime", int)  # hybrid logical clock: milliseconds since 1970 << 16 | counter
