"""A database as the services of a server hold it: on this node, or of a cluster.

Both take the same calls. What reads or writes of a cluster take beside (a consistency, what the client has seen) comes from
`sessions`; what only a database on this node can do is reached through `on_one_node`, which refuses it for the other kind.
"""

from __future__ import annotations

from typing import TypeAlias

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.store import ClusterStore
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.model.errors import ErrorCode, JadeError

AnyDatabase: TypeAlias = Database | ClusterDatabase
AnyStore: TypeAlias = Store | ClusterStore


def on_one_node(handle: AnyDatabase, doing: str) -> Database:
    """Raises NOT_IMPLEMENTED for a database of a cluster. doing: what is asked for, as in "searching by words"."""
    if isinstance(handle, ClusterDatabase):
        raise JadeError(ErrorCode.NOT_IMPLEMENTED, f"A cluster does not offer {doing} yet; a single node does.")
    return handle
