"""Sessions: what a sign-in with a password gives. A token for a day, kept as its hash, gone at once when it is revoked.

A session ends by signing out, by a change of the password, by deactivation or deletion of the account, by its age, or because
its user began many others. Ended sessions are removed, not marked: the audit log remembers.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.records import Records
from jadevectordb.model.limits import SESSIONS_PER_USER_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore


class Session(msgspec.Struct, frozen=True, kw_only=True):
    session_id: str
    user_id: str
    digest: str  # SHA-256 of the token
    address: str = ""
    created_ms: int
    expires_ms: int


class Sessions:
    """valid_ms: how long a session lives. on_change: called after a session was ended; the gatekeeper forgets what it knew."""

    def __init__(self, store: MetadataStore, clock: Clock, random: tokens.RandomBytes, valid_ms: int) -> None:
        self._records = Records(store, "session", Session)
        self._clock = clock
        self._random = random
        self._valid_ms = valid_ms
        self.on_change: Callable[[], None] = _nothing

    def begin(self, user_id: str, address: str) -> tuple[str, Session]:
        """The token, told this once, and the session."""
        self._make_room(user_id)
        now = self._clock.now_ms()
        token = tokens.new_token(self._random, tokens.SESSION_PREFIX, user_id)
        digest = tokens.digest(token)
        session = Session(
            session_id=tokens.id_of(digest, "sess_"), user_id=user_id, digest=digest, address=address, created_ms=now,
            expires_ms=now + self._valid_ms,
        )  # fmt: skip
        added = self._records.add(_name(user_id, session.session_id), session)
        assert added, "two tokens with the same hash"
        return token, session

    def of_token(self, token: str) -> Session | None:
        """The session of this token, unless it ended."""
        user_id = tokens.owner_of(token, tokens.SESSION_PREFIX)
        if user_id is None:
            return None
        digest = tokens.digest(token)
        session = self._records.get(_name(user_id, tokens.id_of(digest, "sess_")))
        if session is None or not tokens.same(session.digest, digest) or session.expires_ms <= self._clock.now_ms():
            return None
        return session

    def of_user(self, user_id: str) -> list[Session]:
        """Those that live, newest first."""
        now = self._clock.now_ms()
        alive = [s for s in self._records.list(f"{user_id}/").values() if s.expires_ms > now]
        return sorted(alive, key=lambda s: (-s.created_ms, s.session_id))

    def end(self, user_id: str, session_id: str) -> bool:
        """Whether there was such a session."""
        removed = self._records.remove(_name(user_id, session_id))
        self.on_change()
        return removed is not None

    def end_all(self, user_id: str, but: str = "") -> int:
        """End all sessions of a user, `but` this one. How many."""
        ended = 0
        for session in self._records.list(f"{user_id}/").values():
            ended += session.session_id != but and self.end(user_id, session.session_id)
        return ended

    def _make_room(self, user_id: str) -> None:
        now = self._clock.now_ms()
        mine = sorted(self._records.list(f"{user_id}/").values(), key=lambda s: (s.expires_ms > now, s.created_ms))
        surplus = len(mine) - (SESSIONS_PER_USER_MAX - 1)
        for at, session in enumerate(mine):
            if session.expires_ms <= now or at < surplus:
                self.end(user_id, session.session_id)

    def sweep(self) -> int:
        """Remove sessions that died of age. How many."""
        now = self._clock.now_ms()
        dead = [s for s in self._records.list().values() if s.expires_ms <= now]
        return sum(self.end(s.user_id, s.session_id) for s in dead)


def _name(user_id: str, session_id: str) -> str:
    return f"{user_id}/{session_id}"


def _nothing() -> None:
    pass
