"""Forgotten passwords: a token that reaches its owner by another way than the answer, and works once.

Asking never tells whether an account exists, by content or by time: the request only puts a note into a short line, and a thread
looks the account up, makes the token and hands it to the delivery the operator configured (a program that sends mail, say).
Without a delivery nothing is made, and an admin sets the password instead.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from jadevectordb.gateway.access import tokens
from jadevectordb.gateway.access.accounts import Account, Accounts, fold
from jadevectordb.gateway.access.passwords import check_rules
from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import RESET_VALID_S, RESETS_WAITING_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.access")
_CLOSE_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class ResetDelivery:
    """What the delivery is told. token: whoever has it may set the password until expires_ms."""

    user_id: str
    username: str
    email: str
    token: str
    expires_ms: int

    def __repr__(self) -> str:  # a token must not get into a log by accident
        return f"ResetDelivery(user_id={self.user_id!r})"


Deliver = Callable[[ResetDelivery], None]


class _Reset(msgspec.Struct, frozen=True):
    digest: str
    expires_ms: int


class Resets:
    """deliver: called in a thread of its own; what it raises is logged. None: there is no way to deliver."""

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        random: tokens.RandomBytes,
        accounts: Accounts,
        deliver: Deliver | None,
    ) -> None:
        self._records = Records(store, "reset", _Reset)  # by user id: the newest token is the only one
        self._clock = clock
        self._random = random
        self._accounts = accounts
        self._deliver = deliver
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(RESETS_WAITING_MAX)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if deliver is not None:
            self._thread = threading.Thread(target=self._work, name="jade-resets", daemon=True)
            self._thread.start()

    def ask(self, username: str, email: str) -> None:
        """Have a token delivered to this account, if there is one. Returns at once."""
        if self._thread is None:
            logger.info(
                "a password reset was asked for, but auth.reset_command is not set: an admin must set the password"
            )
            return
        try:
            self._waiting.put_nowait((username, email))
        except queue.Full:
            logger.warning("too many password resets wait to be delivered; one was left out")

    def finish(self, token: str, new_password: str, user_id: str | None = None) -> Account:
        """Set the password. Raises INVALID_ARGUMENT: wrong, used or expired token, not that user's, or a password too short."""
        check_rules(new_password)
        owner, digest = tokens.owner_of(token, tokens.RESET_PREFIX), tokens.digest(token)
        if owner is None or (user_id is not None and user_id != owner):
            raise _refused()
        found = self._records.get(owner)
        if found is None or not tokens.same(found.digest, digest):
            raise _refused()
        taken = self._records.remove(owner)  # whoever removes it uses it: twice at once works once
        if taken != found or found.expires_ms <= self._clock.now_ms():
            raise _refused()
        account = self._accounts.get(owner)
        if account is None or not account.is_active:
            raise _refused()
        return self._accounts.reset_password(owner, new_password, must_change=False)

    def forget(self, user_id: str) -> None:
        self._records.remove(user_id)

    def close(self) -> None:
        """The one being delivered is finished if it does not take long; what waits is not delivered."""
        if self._thread is None:
            return
        self._stopping.set()
        with contextlib.suppress(queue.Full):  # a full line wakes the thread without this
            self._waiting.put_nowait(None)
        self._thread.join(_CLOSE_S_MAX)
        self._thread = None

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None and not self._stopping.is_set():
            try:
                self._issue(*asked)
            except JadeError as error:
                logger.error("a password reset could not be delivered: %s", error)
            except Exception:
                logger.exception("a password reset could not be delivered")

    def _issue(self, username: str, email: str) -> None:
        account = self._accounts.find_by_name(username or email)
        if account is None or not account.is_active or (username and email and fold(account.email) != fold(email)):
            return
        if not account.password_hash:  # the built-in admin of open mode
            return
        token = tokens.new_token(self._random, tokens.RESET_PREFIX, account.user_id)
        expires_ms = self._clock.now_ms() + int(RESET_VALID_S * 1000)
        reset = _Reset(tokens.digest(token), expires_ms)
        if self._records.change(account.user_id, lambda _: reset) is None:
            self._records.add(account.user_id, reset)
        assert self._deliver is not None
        self._deliver(ResetDelivery(account.user_id, account.username, account.email, token, expires_ms))


def _refused() -> JadeError:
    """One text for every cause."""
    return JadeError(ErrorCode.INVALID_ARGUMENT, "The reset token is wrong, used or expired: ask for a new one.")
