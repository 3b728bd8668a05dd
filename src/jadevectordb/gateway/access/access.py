"""Everything about access, built from its ports, and the steps that involve several parts: signing in and out, registering,
the first admin, and the upkeep every minute.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from typing import TYPE_CHECKING

import msgspec

from jadevectordb.gateway.access import operations, tokens
from jadevectordb.gateway.access.accounts import Account, Accounts, fold
from jadevectordb.gateway.access.audit import Audit
from jadevectordb.gateway.access.gatekeeper import Gatekeeper
from jadevectordb.gateway.access.keys import Keys
from jadevectordb.gateway.access.limits import Limits, LimitValues
from jadevectordb.gateway.access.passwords import HashCost, Passwords
from jadevectordb.gateway.access.principals import ADMIN, ANONYMOUS, REGISTERED_ROLES, ROLES, Principal
from jadevectordb.gateway.access.resets import Deliver, Resets
from jadevectordb.gateway.access.sessions import Session, Sessions
from jadevectordb.gateway.access.usage import Usage
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.event_log import EventLog
from jadevectordb.ports.metadata_store import MetadataStore

if TYPE_CHECKING:
    from jadevectordb.settings.schema import Settings

logger = logging.getLogger("jadevectordb.access")
_UPKEEP_S = 60.0
_HEAL_ROUNDS = 10  # of upkeep, between looks at all names of accounts
_CLOSE_S_MAX = 2.0  # for writing how often credentials were used, when the server stops
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_FIRST_ADMIN_S_MAX, _FIRST_ADMIN_LOOK_S = 10.0, 0.05
_FIRST_ADMIN = "admin"  # nobody can register under this name


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """is_open: open mode. registration: people may make accounts themselves. admin_password: of the first admin, "" = none."""

    is_open: bool = False
    registration: bool = True
    session_ms: int = 24 * _HOUR_MS
    admin_password: str = ""
    limits: LimitValues = LimitValues()
    audit_keep_ms: int = 365 * _DAY_MS
    audit_searches: bool = False
    hash_cost: HashCost = HashCost()

    @staticmethod
    def of(settings: Settings) -> AccessSettings:
        auth, limits = settings.auth, settings.limits
        return AccessSettings(
            is_open=auth.is_open,
            registration=settings.on_loopback if auth.registration == "auto" else auth.registration == "on",
            session_ms=int(auth.session_hours * _HOUR_MS),
            admin_password=auth.admin_password,
            limits=LimitValues(
                requests_per_s=limits.requests_per_s,
                burst=limits.burst,
                login_failures_max=limits.login_failures_max,
                login_window_s=limits.login_window_s,
                registrations_per_hour=limits.registrations_per_hour,
            ),
            audit_keep_ms=settings.retention.audit_days * _DAY_MS,
        )


class Access:
    """random: as `secrets.token_bytes`. deliver_reset: hands a password reset token to its owner; None = nobody can.

    Raises what the store raises, and CONFLICT when the first admin can't be made.
    """

    check = staticmethod(operations.check)

    def __init__(
        self,
        store: MetadataStore,
        log: EventLog,
        clock: Clock,
        settings: AccessSettings,
        *,
        random: tokens.RandomBytes = secrets.token_bytes,
        deliver_reset: Deliver | None = None,
    ) -> None:
        self.settings = settings
        self._log = log
        self._random = random
        is_open = settings.is_open
        self.passwords = Passwords(settings.hash_cost, random)
        self.sessions = Sessions(store, clock, random, settings.session_ms)
        self.keys = Keys(store, clock, random)
        self.accounts = Accounts(store, clock, random, self.passwords, self.sessions, self.keys, is_open=is_open)
        self.usage = Usage(store, clock)
        self.limits = Limits(settings.limits, clock, is_open=is_open)
        self.gatekeeper = Gatekeeper(
            self.accounts, self.sessions, self.keys, self.usage, self.limits, clock, random, is_open=is_open
        )
        self.audit = Audit(
            log, clock, lambda: tokens.new_id(random, "evt_"),
            keep_ms=settings.audit_keep_ms, keep_searches=settings.audit_searches,
        )  # fmt: skip
        for part in (self.accounts, self.sessions, self.keys):
            part.on_change = self.gatekeeper.forget
        self._stopping = threading.Event()
        self._setup_lock = threading.Lock()
        self.accounts.heal()
        self._setup_token = self._first_admin()
        self.resets = Resets(store, clock, random, self.accounts, deliver_reset)
        self.accounts.on_delete.append(lambda old, _: self.resets.forget(old))
        self._upkeep: threading.Thread | None = None

    # The first admin

    def _first_admin(self) -> str | None:
        """Make the first admin from its configured password; without one, a token for setting it up."""
        if self.settings.is_open or self.accounts.has_admin():
            return None
        if not self.settings.admin_password:
            return tokens.SETUP_PREFIX + tokens.new_secret(self._random)
        try:
            account = self.accounts.create(_FIRST_ADMIN, self.settings.admin_password, roles=(ADMIN,))
        except JadeError as error:
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
            if self._made_elsewhere():
                return None
            raise JadeError(
                ErrorCode.CONFLICT,
                "There is no active admin, and the account `admin` exists without being one, so auth.admin_password can't be "
                "used: start without it and set up an admin of another name with the token that is printed then.",
            ) from None
        self.audit.record(
            "user_create", ANONYMOUS, "",
            details="the first admin, from its configured password", resource=account.user_id,
        )  # fmt: skip
        return None

    def _made_elsewhere(self) -> bool:
        """Whether another node of a cluster that starts at the same moment has made it: it takes the name first, then the account."""
        attempts = int(_FIRST_ADMIN_S_MAX / _FIRST_ADMIN_LOOK_S)
        return any(self.accounts.has_admin() or self._stopping.wait(_FIRST_ADMIN_LOOK_S) for _ in range(attempts))

    @property
    def setup_token(self) -> str | None:
        """To be shown on the console at the start: whoever has it may make the first admin, once. None: there is an admin."""
        return self._setup_token

    def set_up(self, token: str, username: str, password: str, client: str) -> Account:
        """Make the first admin with the setup token. Raises UNAUTHORIZED, CONFLICT (there is an admin), and as creating does."""
        attempt = self.limits.password_attempt("\0setup", client)
        with self._setup_lock:
            expected = self._setup_token
            if expected is None or self.accounts.has_admin():
                attempt.cancelled()
                raise JadeError(ErrorCode.CONFLICT, "This server is set up already: sign in as its admin.")
            if not tokens.same(token, expected):
                raise JadeError(
                    ErrorCode.UNAUTHORIZED,
                    "Unauthorized: the setup token is wrong; the server printed it when it started.",
                )
            attempt.cancelled()
            account = self.accounts.create(username, password, roles=(ADMIN,))
            self._setup_token = None
        self.audit.record(
            "user_create", ANONYMOUS, client, user_id=account.user_id, user=account.username, resource=account.user_id,
            details="the first admin, with the setup token",
        )  # fmt: skip
        return account

    # Signing in and out

    def register(
        self, username: str, password: str, *, email: str, wanted: tuple[str, ...], client: str
    ) -> tuple[Account, tuple[str, ...]]:
        """An account somebody makes for themselves, and which of the wanted roles they did not get.

        Raises FORBIDDEN (registration is off), RATE_LIMITED, ALREADY_EXISTS, INVALID_ARGUMENT.
        """
        if not self.settings.registration:
            raise JadeError(ErrorCode.FORBIDDEN, "Registration is off on this server: ask an admin for an account.")
        self.limits.registration(client)
        if fold(username) == _FIRST_ADMIN:
            raise JadeError(ErrorCode.ALREADY_EXISTS, "This username is taken: choose another one.")
        grantable = frozenset(ROLES) if self.settings.is_open else frozenset(ROLES) - {ADMIN}
        granted = tuple(role for role in wanted if role in grantable) or REGISTERED_ROLES
        account = self.accounts.create(username, password, roles=granted, email=email)
        self.audit.record(
            "register", ANONYMOUS, client, user_id=account.user_id, user=account.username,
            details=f"roles {', '.join(account.roles)}",
        )  # fmt: skip
        return account, tuple(role for role in wanted if role not in granted)

    def sign_in(self, name: str, password: str, client: str) -> tuple[str, Session, Account]:
        """A new session's token, told this once. name: a username or e-mail address.

        Raises UNAUTHORIZED, one text for every cause; RATE_LIMITED after too many wrong passwords; UNAVAILABLE.
        """
        attempt = self.limits.password_attempt(name, client)
        with attempt:
            signed_in = self.accounts.sign_in(name, password, client)
        if signed_in is None:
            account = self.accounts.find_by_name(name)
            known = account is not None
            self.audit.record(
                "login_failed", ANONYMOUS, client, success=False,
                user_id=account.user_id if account is not None else "", user=account.username if account is not None else "",
                details="wrong password or inactive account" if known else "no such account",
            )  # fmt: skip
            raise JadeError(
                ErrorCode.UNAUTHORIZED, "Unauthorized: username or password is wrong, or the account is inactive."
            )
        attempt.succeeded()
        _, session, account = signed_in
        principal = Principal(
            account.user_id,
            account.username,
            account.roles,
            None,
            "session",
            session.session_id,
            account.must_change_password,
        )
        self.audit.record("login", principal, client)
        return signed_in

    def sign_out(self, principal: Principal, client: str) -> bool:
        """End the session of this principal. False: its credential is no session."""
        if principal.kind != "session":
            return False
        ended = self.sessions.end(principal.user_id, principal.credential_id)
        self.audit.record("logout", principal, client)
        return ended

    # Upkeep

    def start(self) -> None:
        """Begin the upkeep: every minute."""
        if self._upkeep is None:
            self._upkeep = threading.Thread(target=self._keep_up, name="jade-access", daemon=True)
            self._upkeep.start()

    def maintain(self) -> None:
        """Write how often credentials were used; remove sessions and audit events that are too old."""
        self.usage.flush(self._credentials_of)
        self.sessions.sweep()
        self.audit.prune()

    def _credentials_of(self, user_id: str) -> set[str]:
        return {s.session_id for s in self.sessions.of_user(user_id)} | {k.key_id for k in self.keys.of_user(user_id)}

    def _keep_up(self) -> None:
        for round_ in itertools.count(1):
            if self._stopping.wait(_UPKEEP_S):
                return
            try:
                self.maintain()
                if round_ % _HEAL_ROUNDS == 0:
                    self.accounts.heal()
            except JadeError as error:
                logger.warning("upkeep of accounts and audit log: %s; it is tried again in a minute", error)
            except Exception:
                logger.exception("upkeep of accounts and audit log failed; it is tried again in a minute")

    def close(self) -> None:
        """Stop, and write what is not written. Store and log stay open: who made them closes them."""
        self._stopping.set()
        if self._upkeep is not None:
            self._upkeep.join()
        self.resets.close()
        try:
            self.usage.flush(self._credentials_of, budget_s=_CLOSE_S_MAX)
            self._log.flush()
        except JadeError as error:
            logger.warning("not all could be written before closing: %s", error)
