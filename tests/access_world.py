"""What tests of accounts and access stand on: a clock they move, real stores in a folder, hashes that cost little."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from jadevectordb.adapters.sqlite_events import SqliteEvents
from jadevectordb.adapters.sqlite_store import SqliteStore
from jadevectordb.gateway.access.access import Access, AccessSettings
from jadevectordb.gateway.access.passwords import HashCost
from jadevectordb.gateway.access.principals import ADMIN, Principal
from jadevectordb.gateway.access.sessions import Sessions
from jadevectordb.model.errors import ErrorCode, JadeError

CHEAP = HashCost(passes=1, memory_kib=8, lanes=1)
HOME = "203.0.113.7"
PASSWORD = "correct horse"


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    def move(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class World:
    """An `Access` over files in a folder; `restart` closes and opens everything again."""

    def __init__(self, folder: Path, deliver: Any = None, **settings: Any) -> None:
        self.folder = folder
        self.clock = MovedClock()
        self.settings = AccessSettings(**{"hash_cost": CHEAP, **settings})
        self.deliver = deliver
        self._open()

    def _open(self) -> None:
        self.store = SqliteStore(self.folder / "accounts.sqlite")
        self.events = SqliteEvents(self.folder / "audit.sqlite")
        self.access = Access(self.store, self.events, self.clock, self.settings, deliver_reset=self.deliver)

    def restart(self, **settings: Any) -> None:
        self.close()
        self.settings = AccessSettings(
            **{**{f: getattr(self.settings, f) for f in self.settings.__struct_fields__}, **settings}
        )
        self._open()

    def close(self) -> None:
        self.access.close()
        self.events.close()
        self.store.close()

    def user(self, name: str, *roles: str, password: str = PASSWORD, **more: Any) -> str:
        return self.access.accounts.create(name, password, roles=roles or ("user",), **more).user_id

    def admin(self, name: str = "root") -> Principal:
        return self.principal(self.user(name, ADMIN))

    def principal(self, user_id: str) -> Principal:
        account = self.access.accounts.get(user_id)
        assert account is not None
        return Principal(account.user_id, account.username, account.roles, None, "session", "sess_none")

    def principal_of(self, token: str, sessions: Sessions) -> Principal:
        session = sessions.of_token(token)
        assert session is not None
        account = self.access.accounts.require(session.user_id)
        return Principal(account.user_id, account.username, account.roles, None, "session", session.session_id)

    def sign_in(self, name: str, password: str = PASSWORD, client: str = HOME) -> str:
        return self.access.sign_in(name, password, client)[0]

    def who(self, secret: str, client: str = HOME) -> Principal:
        return self.access.gatekeeper.authenticate(f"Bearer {secret}", None, client)

    def works(self, secret: str) -> bool:
        try:
            self.who(secret)
        except JadeError as error:
            assert error.code is ErrorCode.UNAUTHORIZED
            return False
        return True


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def refused(code: ErrorCode) -> Any:
    """A `with` block that must raise this."""
    return pytest.raises(JadeError, check=lambda error: error.code is code)
