"""A planned failover: any node may ask the master to resign, through the metadata store that both have in any case.

The request names the term it is about, so a master that came later does not take it for its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import MetadataStore, Record

logger = logging.getLogger("jadevectordb.cluster")
RESIGN_KEY = "cluster/resign"
_TRIES_MAX = 5


class Resignation(msgspec.Struct, frozen=True):
    term: int  # of the master that shall resign
    asked_by: str


def ask_to_resign(store: MetadataStore, term: int, asked_by: str) -> None:
    """Durable on return. Raises UNAVAILABLE without a quorum."""
    value = msgspec.json.encode(Resignation(term, asked_by))
    for _ in range(_TRIES_MAX):
        found = store.get(RESIGN_KEY)
        if found is not None and msgspec.json.decode(found.value, type=Resignation).term >= term:
            return  # somebody asked the same
        if store.compare_and_set(RESIGN_KEY, value, 0 if found is None else found.revision) is not None:
            return
    raise JadeError(ErrorCode.UNAVAILABLE, "Many ask for a failover at once: look who is the master now.")


class Resignations:
    """Carries requests out on the node that is the master of their term.

    term_if_leader: this node's term while it is the master. resign: gives the lease back; called in the watch's thread.
    """

    def __init__(
        self, store: MetadataStore, term_if_leader: Callable[[], int | None], resign: Callable[[], object]
    ) -> None:
        self._term_if_leader = term_if_leader
        self._resign = resign
        self._watch = store.watch(RESIGN_KEY, self._on_change)

    def _on_change(self, key: str, record: Record | None) -> None:
        if key != RESIGN_KEY or record is None:
            return
        asked = msgspec.json.decode(record.value, type=Resignation)
        if asked.term == self._term_if_leader():
            logger.info("%s asked for a failover: resigning as the master of term %d", asked.asked_by, asked.term)
            self._resign()

    def close(self) -> None:
        self._watch.close()
