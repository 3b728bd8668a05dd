"""From a header to who asks.

A credential that was verified is remembered, under a keyed hash of the header, so that the next request with it costs
microseconds and no password is hashed twice. What is remembered carries the number of the last change that took something away
from anybody (`_generation`): revoking a key, signing out, changing a password, deactivating or deleting an account moves it on, and
every remembered credential is looked up again before it is believed. So a revocation counts from the next request. The number is
read before the store is: a change in between makes the answer stale at once, never fresh by mistake.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.accounts import Account, Accounts
from jadevectordb.gateway.access.keys import Keys
from jadevectordb.gateway.access.limits import Limits
from jadevectordb.gateway.access.principals import ADMIN, ANONYMOUS, OPEN, Principal, parse_permissions
from jadevectordb.gateway.access.sessions import Sessions
from jadevectordb.gateway.access.usage import Usage
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import CREDENTIAL_LENGTH_MAX, CREDENTIALS_REMEMBERED_MAX
from jadevectordb.ports.clock import Clock

_FOREVER_MS = 1 << 62


@dataclass(slots=True)
class _Known:
    """A verified credential. password_hash: the hash a password was checked against; while the account has it, it need not be again."""

    principal: Principal
    generation: int
    expires_ms: int
    password_hash: str = ""


class Gatekeeper:
    """Every method may be called from any thread. `authenticate` may hash a password: for `Basic`, not on an event loop."""

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        keys: Keys,
        usage: Usage,
        limits: Limits,
        clock: Clock,
        random: tokens.RandomBytes,
        *,
        is_open: bool,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._keys = keys
        self._usage = usage
        self._limits = limits
        self._clock = clock
        self._is_open = is_open
        self._nobody = OPEN if is_open else ANONYMOUS
        self._pepper = random(32)
        self._generation = 0
        self.on_forget: Callable[[], None] = lambda: None  # called before anyone is told that something was taken away
        self._lock = threading.Lock()  # for changes of the two below; reading needs none
        self._known: dict[bytes, _Known] = {}

    def forget(self) -> None:
        """Something was taken away from somebody: believe nothing that was verified before."""
        with self._lock:
            self._generation += 1
        self.on_forget()

    def remembered(self, authorization: str | None, api_key: str | None) -> tuple[Principal, int] | None:
        """Whom these headers were verified to be, and until when (ms since 1970) that may be believed; None: unknown.

        For a process that remembers it in turn, and forgets it as soon as something is taken away from anybody.
        """
        if authorization is None and api_key is None:
            return None
        known = self._known.get(self._digest(authorization, api_key))
        if known is None or known.generation != self._generation or known.expires_ms <= self._clock.now_ms():
            return None
        return known.principal, known.expires_ms

    def knows(self, authorization: str | None, api_key: str | None) -> bool:
        """Whether `authenticate` has nothing to look up for these headers: it waits for no store."""
        if authorization is None and api_key is None:
            return True
        return self.remembered(authorization, api_key) is not None

    def _digest(self, authorization: str | None, api_key: str | None) -> bytes:
        return digest_of(authorization, api_key, self._pepper)

    def authenticate(self, authorization: str | None, api_key: str | None, client: str) -> Principal:
        """Who sends these headers: `Authorization`, else `X-API-Key`. Without a credential ANONYMOUS, or `dev` in open mode.

        Raises UNAUTHORIZED for a credential that is wrong, expired, revoked or malformed; RATE_LIMITED after too many wrong
        passwords; UNAVAILABLE when too many passwords are being checked.
        """
        if authorization is None and api_key is None:
            return self._nobody
        digest = self._digest(authorization, api_key)
        known = self._known.get(digest)
        now_ms = self._clock.now_ms()
        if known is None or known.generation != self._generation or known.expires_ms <= now_ms:
            known = self._verify(digest, known, authorization, api_key, client)
            if known is None:
                return self._nobody
        principal = known.principal
        if principal.credential_id:
            self._usage.touch(principal.user_id, principal.credential_id, now_ms)
        return principal

    def _verify(
        self, digest: bytes, before: _Known | None, authorization: str | None, api_key: str | None, client: str
    ) -> _Known | None:
        """Look everything up. None: there is no credential in the headers after all."""
        generation = self._generation  # before the store is read
        secret, is_basic, name = _credential(authorization, api_key)
        if not secret and not is_basic:
            return None
        if secret.startswith(tokens.KEY_PREFIX):
            known = self._by_key(secret, generation)
        elif is_basic:
            known = self._by_password(name, secret, client, before, generation)
        else:
            known = self._by_session(secret, generation)
        with self._lock:
            if known is None:
                self._known.pop(digest, None)
            else:
                if len(self._known) >= CREDENTIALS_REMEMBERED_MAX and digest not in self._known:
                    del self._known[next(iter(self._known))]
                self._known[digest] = known
        if known is None:
            raise _unauthorized()
        return known

    def _by_key(self, secret: str, generation: int) -> _Known | None:
        key = self._keys.of_secret(secret)
        account = self._active(key.user_id) if key is not None else None
        if key is None or account is None:
            return None
        principal = self._principal(account, "key", key.key_id, parse_permissions(key.permissions))
        return _Known(principal, generation, key.expires_ms or _FOREVER_MS)

    def _by_session(self, token: str, generation: int) -> _Known | None:
        session = self._sessions.of_token(token)
        account = self._active(session.user_id) if session is not None else None
        if session is None or account is None:
            return None
        return _Known(self._principal(account, "session", session.session_id), generation, session.expires_ms)

    def _by_password(
        self, name: str, password: str, client: str, before: _Known | None, generation: int
    ) -> _Known | None:
        if before is not None and before.password_hash:
            current = self._active(before.principal.user_id)
            if current is not None and current.password_hash == before.password_hash:
                return _Known(self._principal(current, "password"), generation, _FOREVER_MS, before.password_hash)
        attempt = self._limits.password_attempt(name, client)
        with attempt:
            account = self._accounts.verify(name, password)
        if account is None:
            return None
        attempt.succeeded()
        return _Known(self._principal(account, "password"), generation, _FOREVER_MS, account.password_hash)

    def _active(self, user_id: str) -> Account | None:
        account = self._accounts.get(user_id)
        return account if account is not None and account.is_active else None

    def _principal(
        self,
        account: Account,
        kind: Literal["key", "session", "password"],
        credential_id: str = "",
        permissions: frozenset[str] | None = None,
    ) -> Principal:
        roles = account.roles
        if self._is_open and ADMIN not in roles:  # while the mode is on; nothing is written to the account
            roles = (*roles, ADMIN)
        return Principal(
            account.user_id, account.username, roles, permissions, kind, credential_id, account.must_change_password
        )


def digest_of(authorization: str | None, api_key: str | None, pepper: bytes) -> bytes:
    """What a credential is remembered under: it says nothing to whom does not have the pepper."""
    presented = f"A{authorization}" if authorization else f"K{api_key or ''}"
    return hashlib.blake2b(presented.encode("utf-8", "surrogatepass"), key=pepper, digest_size=16).digest()


def _credential(authorization: str | None, api_key: str | None) -> tuple[str, bool, str]:
    """(secret, whether it came as Basic, the name beside it). Raises UNAUTHORIZED for what is no credential of any known form."""
    if not (authorization and authorization.strip()):
        return (api_key or "").strip()[:CREDENTIAL_LENGTH_MAX], False, ""
    if len(authorization) > CREDENTIAL_LENGTH_MAX:
        raise _unauthorized()
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "bearer" | "apikey":
            return rest, False, ""
        case "basic":
            name, secret = _basic(rest)
            return secret, True, name
        case _:
            raise JadeError(
                ErrorCode.UNAUTHORIZED,
                "Unauthorized: use Authorization: Bearer <token or API key>, ApiKey <API key> or Basic, or X-API-Key.",
            )


def _basic(encoded: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        raise JadeError(ErrorCode.UNAUTHORIZED, "Unauthorized: the Basic credential can't be decoded.") from None
    name, colon, secret = text.partition(":")
    if not colon:
        raise JadeError(ErrorCode.UNAUTHORIZED, "Unauthorized: a Basic credential is name:password.")
    return name, secret


def _unauthorized() -> JadeError:
    """One text for every cause: it must not tell which part was right."""
    return JadeError(
        ErrorCode.UNAUTHORIZED,
        "Unauthorized: the credential is wrong, expired or revoked. Sign in again or use another API key.",
    )
