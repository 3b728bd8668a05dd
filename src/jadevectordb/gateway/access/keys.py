"""API keys: credentials for programs. They act as their owner, limited to the permissions they were made with.

A key's secret is told once and kept as its hash. A revoked key is refused at once and stays listed, so that its owner sees what
it was; a deleted account takes its keys along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.principals import parse_permissions
from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import KEY_DAYS_MAX, KEY_PERMISSIONS_MAX, KEY_TEXT_LENGTH_MAX, KEYS_PER_USER_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

_DAY_MS = 86_400_000
Status = Literal["active", "revoked", "expired"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """permissions: as they were given; none = all that the owner may. shown: the first characters of the secret."""

    key_id: str
    user_id: str
    digest: str  # SHA-256 of the secret
    shown: str
    description: str = ""
    permissions: tuple[str, ...] = ()
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def status(self, now_ms: int) -> Status:
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and self.expires_ms <= now_ms else "active"


class Keys:
    """on_change: called after a key was revoked or removed; the gatekeeper forgets what it knew."""

    def __init__(self, store: MetadataStore, clock: Clock, random: tokens.RandomBytes) -> None:
        self._records = Records(store, "key", Key)
        self._clock = clock
        self._random = random
        self.on_change: Callable[[], None] = _nothing

    def create(
        self, user_id: str, *, description: str = "", permissions: tuple[str, ...] = (), valid_days: int = 0
    ) -> tuple[str, Key]:
        """The secret, told this once, and the key. valid_days 0: for ever. Raises INVALID_ARGUMENT; CONFLICT when there are too many."""
        if len(description) > KEY_TEXT_LENGTH_MAX:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"description must be at most {KEY_TEXT_LENGTH_MAX} characters."
            )
        if not 0 <= valid_days <= KEY_DAYS_MAX:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"validity_days must be 0 (for ever) to {KEY_DAYS_MAX}.")
        if len(permissions) > KEY_PERMISSIONS_MAX:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, f"permissions must be at most {KEY_PERMISSIONS_MAX} words.")
        parse_permissions(permissions)
        self._make_room(user_id)
        now = self._clock.now_ms()
        secret = tokens.new_token(self._random, tokens.KEY_PREFIX, user_id)
        digest = tokens.digest(secret)
        key = Key(
            key_id=tokens.id_of(digest, "key_"), user_id=user_id, digest=digest, shown=secret[: tokens.SHOWN_LENGTH],
            description=description, permissions=permissions, created_ms=now,
            expires_ms=now + valid_days * _DAY_MS if valid_days else None,
        )  # fmt: skip
        added = self._records.add(_name(user_id, key.key_id), key)
        assert added, "two keys with the same hash"
        return secret, key

    def of_secret(self, secret: str) -> Key | None:
        """The key with this secret, unless it was revoked or expired."""
        user_id = tokens.owner_of(secret, tokens.KEY_PREFIX)
        if user_id is None:
            return None
        digest = tokens.digest(secret)
        key = self._records.get(_name(user_id, tokens.id_of(digest, "key_")))
        if key is None or not tokens.same(key.digest, digest) or key.status(self._clock.now_ms()) != "active":
            return None
        return key

    def of_user(self, user_id: str) -> list[Key]:
        """Revoked and expired ones too, newest first."""
        return _newest_first(self._records.list(f"{user_id}/"))

    def every(self) -> list[Key]:
        return _newest_first(self._records.list())

    def find(self, key_id: str, user_id: str | None = None) -> Key | None:
        """Among the keys of this user, or of everybody."""
        if user_id is not None:
            return self._records.get(_name(user_id, key_id))
        return next((key for key in self._records.list().values() if key.key_id == key_id), None)

    def revoke(self, key: Key) -> Key | None:
        """The key as it is now; None when it is gone. A key that was revoked before keeps its time."""
        now = self._clock.now_ms()

        def mark(old: Key) -> Key:
            return old if old.revoked_ms is not None else msgspec.structs.replace(old, revoked_ms=now)

        revoked = self._records.change(_name(key.user_id, key.key_id), mark)
        self.on_change()
        return revoked

    def remove_all(self, user_id: str) -> int:
        names = self._records.list(f"{user_id}/")
        removed = sum(self._records.remove(name) is not None for name in names)
        self.on_change()
        return removed

    def _make_room(self, user_id: str) -> None:
        """Forget the oldest keys that no longer work when there are as many as there may be."""
        now = self._clock.now_ms()
        mine = self._records.list(f"{user_id}/")
        surplus = len(mine) - (KEYS_PER_USER_MAX - 1)
        if surplus <= 0:
            return
        idle = sorted((k for k in mine.values() if k.status(now) != "active"), key=lambda k: k.created_ms)
        if len(idle) < surplus:
            raise JadeError(
                ErrorCode.CONFLICT,
                f"This account has {KEYS_PER_USER_MAX} active API keys: revoke some that are not used.",
            )
        for key in idle[:surplus]:
            self._records.remove(_name(user_id, key.key_id))


def _name(user_id: str, key_id: str) -> str:
    return f"{user_id}/{key_id}"


def _newest_first(keys: dict[str, Key]) -> list[Key]:
    return sorted(keys.values(), key=lambda k: (-k.created_ms, k.key_id))


def _nothing() -> None:
    pass
