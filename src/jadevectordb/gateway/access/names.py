"""Names that only one owner bears, whichever process of whichever node asks: a claim for each name, decided by compare-and-set.

Two records take part: the owner's own, which says which names it bears and which it is about to bear (`claiming`), and the claim,
`PREFIX/NAME`, which says whose the name is. An owner comes to bear a name in this order:

    1  its record says that it is claiming the name; a new owner's record is written with it, and counts as nobody yet
    2  the claim is written, always anew, also when it names the owner already
    3  its record bears the name and claims no more: this one write decides, and fails when somebody has undone step 1
    4  claims of names that it bears no longer are released; when it is deleted, after its record is gone

A claim alone decides nothing. Who finds one reads the claim first and the owner's record then: while the owner bears the name it is
taken; an owner that neither bears nor claims it has left it behind, and the claim is replaced at the revision that was
read; an owner that is still claiming has died on the way or is slow, and who does not want to wait undoes its step 1
first. A claim that was read before the owner's step 2 can't be replaced after it, because that step changes its revision.
So no two owners ever bear one name, and a death after any step leaves a name that is either borne or free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum

import msgspec

from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_ATTEMPTS_MAX, STORE_KEY_BYTES_MAX
from jadevectordb.ports.metadata_store import MetadataStore, Record

_PAUSE_S = 0.01  # longer after every attempt


class Standing(Enum):
    """What an owner's record says of a name."""

    BEARS = "bears"
    CLAIMING = "claiming"
    NEITHER = "neither"


class Claim(msgspec.Struct, frozen=True):
    """owner: `user_id` in the record, from when only accounts had names."""

    owner: str = msgspec.field(name="user_id")


class HeldError(Exception):
    """The name is claimed by another owner, which bears it or is about to."""

    def __init__(self, name: str, owner: str, standing: Standing) -> None:
        super().__init__(f"{name!r} is claimed by {owner}")
        self.name = name
        self.owner = owner
        self.standing = standing


class Names:
    """Thread-safe, and safe among processes that share the store. Every method raises what the store raises.

    standing: what the record of this owner, read at this moment, says of this name; NEITHER when there is no such record.
    """

    def __init__(self, store: MetadataStore, prefix: str, standing: Callable[[str, str], Standing]) -> None:
        self._store = store
        self._prefix = f"{prefix}/"
        self._claims = Records(store, prefix, Claim)
        self._standing = standing

    def owner(self, name: str) -> str | None:
        """Who the claim names, whether it bears the name or not. A name that can be no key has no owner."""
        claim = self._claims.get(name)
        return None if claim is None else claim.owner

    def every(self) -> dict[str, str]:
        """Owners by name."""
        return {name: claim.owner for name, claim in self._claims.list().items()}

    def claim(self, name: str, owner: str) -> None:
        """Step 2: the claim names this owner. Raises HeldError, and INVALID_ARGUMENT for a name longer than a key may be."""
        key = self._prefix + name
        if len(key.encode(errors="surrogatepass")) > STORE_KEY_BYTES_MAX:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"The name {name[:40]!r}... is too long.")
        value = msgspec.json.encode(Claim(owner))
        pause = threading.Event()
        for attempt in range(STORE_ATTEMPTS_MAX):
            pause.wait(attempt * _PAUSE_S)  # others are at it, or what was read is older than what is there
            found = self._store.get(key)
            holder = owner if found is None else _owner_in(key, found)
            if holder != owner:
                standing = self._standing(holder, name)  # read after the claim: see the top of this file
                if standing is not Standing.NEITHER:
                    raise HeldError(name, holder, standing)
            if self._store.compare_and_set(key, value, 0 if found is None else found.revision) is not None:
                return
        raise JadeError(ErrorCode.CONFLICT, "The name is being claimed by others at this moment: try again.")

    def release(self, name: str, owner: str) -> None:
        """Step 4: the claim goes if it names this owner and the owner neither bears nor claims the name."""
        key = self._prefix + name
        for _ in range(STORE_ATTEMPTS_MAX):
            found = self._store.get(key)
            if found is None or _owner_in(key, found) != owner or self._standing(owner, name) is not Standing.NEITHER:
                return
            if self._store.compare_and_set(key, None, found.revision) is not None:
                return


def _owner_in(key: str, record: Record) -> str:
    try:
        return msgspec.json.decode(record.value, type=Claim).owner
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"The record {key} can't be read ({error}): restore the metadata store from a snapshot.",
            details={"record": key},
        ) from None
