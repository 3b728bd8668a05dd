"""Passwords, kept as Argon2id hashes (RFC 9106, its second recommended setting: 64 MiB, 3 passes, 4 lanes).

Hashing takes a core and 64 MiB for some hundredths of a second, on purpose. So it never runs on the event loop, and only a few
run at once: a flood of sign-ins waits in a short line, and beyond that is refused, instead of taking the machine's memory and
every thread from those who are signed in.

Whether an account exists must not show in the time an answer takes: for an unknown one the same work is done on a hash that
nothing matches.
"""

from __future__ import annotations

import threading
import unicodedata

import argon2
import msgspec

from jadevectordb.gateway.access.tokens import RandomBytes, new_secret
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    PASSWORD_HASHES_MAX,
    PASSWORD_HASHES_WAITING_MAX,
    PASSWORD_LENGTH_MAX,
    PASSWORD_LENGTH_MIN,
)

_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without those that look alike
_ONE_TIME_LENGTH = 20


class HashCost(msgspec.Struct, frozen=True):
    """What one hash costs. The default is for people's passwords; tests take less."""

    passes: int = argon2.DEFAULT_TIME_COST
    memory_kib: int = argon2.DEFAULT_MEMORY_COST
    lanes: int = argon2.DEFAULT_PARALLELISM


class Passwords:
    """Every method but `check_rules` and `one_time` may take a tenth of a second: never call it on an event loop."""

    def __init__(self, cost: HashCost, random: RandomBytes) -> None:
        self._hasher = argon2.PasswordHasher(cost.passes, cost.memory_kib, cost.lanes)
        self._random = random
        self._running = threading.BoundedSemaphore(PASSWORD_HASHES_MAX)
        self._line = threading.BoundedSemaphore(PASSWORD_HASHES_MAX + PASSWORD_HASHES_WAITING_MAX)
        self._matches_nothing = self._hasher.hash(new_secret(random))

    def hash(self, password: str) -> str:
        """Raises UNAVAILABLE when too many are being hashed."""
        text = _normal(password)
        with self._turn():
            return self._hasher.hash(text)

    def verify(self, password_hash: str | None, password: str) -> bool:
        """password_hash None: nobody's; the same time passes. Raises UNAVAILABLE when too many are being hashed."""
        is_possible = bool(password_hash) and len(password) <= PASSWORD_LENGTH_MAX
        expected = password_hash if password_hash and is_possible else self._matches_nothing
        text = _normal(password) if is_possible else b""
        with self._turn():
            try:
                return self._hasher.verify(expected, text) and is_possible
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False

    def is_outdated(self, password_hash: str) -> bool:
        """Made at another cost than today's: hash it again when the password is at hand."""
        return self._hasher.check_needs_rehash(password_hash)

    def one_time(self) -> str:
        """A password for somebody to sign in with once, typed from a screen."""
        # 256 is no multiple of the alphabet's length; what is beyond is drawn again, so that no letter is likelier
        letters: list[str] = []
        while len(letters) < _ONE_TIME_LENGTH:
            letters += [_LETTERS[b % len(_LETTERS)] for b in self._random(32) if b < 256 - 256 % len(_LETTERS)]
        return "".join(letters[:_ONE_TIME_LENGTH])

    def _turn(self) -> _Turn:
        return _Turn(self._line, self._running)


class _Turn:
    """A place in the line, then a turn to hash."""

    def __init__(self, line: threading.BoundedSemaphore, running: threading.BoundedSemaphore) -> None:
        self._line = line
        self._running = running

    def __enter__(self) -> None:
        if not self._line.acquire(blocking=False):
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                "Too many sign-ins at this moment: retry in a second.",
                details={"retry_after_s": 1},
            )
        self._running.acquire()

    def __exit__(self, *_: object) -> None:
        self._running.release()
        self._line.release()


def check_rules(password: object) -> str:
    """The password, when it may be one. Raises INVALID_ARGUMENT; the message never repeats it."""
    if not isinstance(password, str):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, "password must be text.")
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The password must have {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters: choose another one.",
        )
    return password


def _normal(password: str) -> bytes:
    """The same letters typed on another keyboard are the same password (RFC 8265)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
