"""Nobody takes away the last active admin, also when two nodes each take away another one at the same moment.

    admins/leaving    ids of admins that are about to be none

Whoever is about to make an admin none reads this record first and the accounts then, looks for an active admin that is neither
leaving nor the one at hand, and enters the one at hand by compare-and-set: whoever entered one meanwhile is seen, or makes that fail.
The entry is taken out when the account has been changed. It stays when a process died in between, or could not learn what
became of the change: such an admin is not counted until somebody changes that account again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_ATTEMPTS_MAX
from jadevectordb.ports.metadata_store import MetadataStore

_KEY = "admins/leaving"


class _Leaving(msgspec.Struct, frozen=True):
    user_ids: tuple[str, ...] = ()


class LastAdmin:
    """active: ids of the active admins, read when it is called. Thread-safe, and safe among processes that share the store."""

    def __init__(self, store: MetadataStore, active: Callable[[], frozenset[str]]) -> None:
        self._store = store
        self._active = active

    @contextlib.contextmanager
    def leaving(self, user_id: str) -> Iterator[None]:
        """The account, an active admin, is made none inside the block. Raises CONFLICT when it is the last one."""
        self._change(lambda known: self._with(known, user_id))
        try:
            yield
        except JadeError as error:
            if not error.details.get("undecided"):
                self.stays(user_id)
            raise
        self.stays(user_id)

    def stays(self, user_id: str) -> None:
        """It is not about to leave, or has left."""
        with contextlib.suppress(JadeError):  # then it is not counted until it is changed again
            self._change(lambda known: tuple(one for one in known if one != user_id))

    def _with(self, known: tuple[str, ...], user_id: str) -> tuple[str, ...]:
        """Raises CONFLICT."""
        active = self._active()  # read after the record: see above
        leaving = active.intersection(known)
        if not active - {user_id}:
            raise JadeError(
                ErrorCode.CONFLICT,
                "This is the last active admin: make another account an admin first, then try again.",
            )
        if not active - leaving - {user_id}:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"The other admins ({', '.join(sorted(leaving - {user_id}))}) are being changed at this moment, or changing them was "
                "cut off: change one of them again, or make another account an admin first.",
            )
        return tuple(sorted({*leaving, user_id}))

    def _change(self, step: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        """Written also when it stays the same, unless there is nobody in it: of two who have read one record, one goes on."""
        for _ in range(STORE_ATTEMPTS_MAX):
            found = self._store.get(_KEY)
            known = () if found is None else msgspec.json.decode(found.value, type=_Leaving).user_ids
            wanted = step(known)
            if not known and not wanted:
                return
            value = msgspec.json.encode(_Leaving(wanted))
            if self._store.compare_and_set(_KEY, value, 0 if found is None else found.revision) is not None:
                return
        raise JadeError(ErrorCode.CONFLICT, "Admins are being changed by others at this moment: try again.")
