"""How often somebody may ask: rates of requests, and of wrong passwords.

Everything is a token bucket: it holds some tokens, each use takes one, and they come back at a steady rate. For requests the
bucket belongs to a principal, or to an address where nobody is signed in. For passwords a *wrong* one takes a token from three
buckets: of the account as seen from one address (small), of the address (larger: a whole office), and of the account from
everywhere (largest: an attack from many places). The token is taken before the password is checked and given back when it was
right, so guessing in parallel gains nothing. An address from which an account has signed in before is spared the third bucket:
somebody else's guessing must not lock its owner out.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict

import msgspec

from jadevectordb.gateway.access.accounts import fold
from jadevectordb.gateway.access.principals import Principal
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EMAIL_LENGTH_MAX, RATE_NAMES_MAX
from jadevectordb.ports.clock import Clock

_ADDRESS_FACTOR = 5  # an address may fail so many times as often as one account from it
_ACCOUNT_FACTOR = 10  # and an account, from all addresses together
_RETRY_AFTER_S_MAX = 300.0
_HOUR_S = 3600.0


class LimitValues(msgspec.Struct, frozen=True):
    """requests_per_s 0: as many as one likes. login_failures_max: wrong passwords for one account from one address in login_window_s."""

    requests_per_s: float = 0.0
    burst: int = 1000
    login_failures_max: int = 10
    login_window_s: float = 300.0
    registrations_per_hour: int = 100
    resets_per_hour: int = 20


class Buckets:
    """Token buckets by name, all of one size. Bounded: the one unused for longest is forgotten, which makes it full again."""

    def __init__(self, clock: Clock, capacity: float, per_s: float, names_max: int = RATE_NAMES_MAX) -> None:
        assert capacity >= 1 and per_s > 0
        self._clock = clock
        self._capacity = capacity
        self._per_s = per_s
        self._names_max = names_max
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, as of when (monotonic s)

    def take(self, name: str) -> float:
        """Take a token. 0, or the seconds until there is one: then nothing was taken."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            tokens, at_s = self._buckets.pop(name, (self._capacity, now_s))
            tokens = min(self._capacity, tokens + (now_s - at_s) * self._per_s)
            wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
            self._buckets[name] = (tokens if wait_s else tokens - 1, now_s)
            if len(self._buckets) > self._names_max:
                self._buckets.popitem(last=False)
            return wait_s

    def give_back(self, name: str) -> None:
        with self._lock:
            found = self._buckets.get(name)
            if found is not None:
                self._buckets[name] = (min(self._capacity, found[0] + 1), found[1])


class Attempt:
    """One try at a password, paid for in advance. As a `with` block around the check: when that can't be done, it costs nothing."""

    def __init__(self, paid: list[tuple[Buckets, str]], limits: Limits | None, pair: str) -> None:
        self._paid = paid
        self._limits = limits
        self._pair = pair

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cancelled()

    def succeeded(self) -> None:
        """It was right: it costs nothing, and the address is known for this account from now on."""
        self.cancelled()
        if self._limits is not None:
            self._limits._trust(self._pair)

    def cancelled(self) -> None:
        """Nothing was checked."""
        for buckets, name in self._paid:
            buckets.give_back(name)
        self._paid = []


class Limits:
    """is_open: open mode, where an address of this machine has no limits. on_limited: called at each refusal, for the figures."""

    def __init__(self, values: LimitValues, clock: Clock, *, is_open: bool) -> None:
        failures, window_s = values.login_failures_max, values.login_window_s
        self._is_open = is_open
        self._requests = Buckets(clock, max(1, values.burst), values.requests_per_s) if values.requests_per_s else None
        self._pairs = Buckets(clock, failures, failures / window_s)
        self._addresses = Buckets(clock, failures * _ADDRESS_FACTOR, failures * _ADDRESS_FACTOR / window_s)
        self._accounts = Buckets(clock, failures * _ACCOUNT_FACTOR, failures * _ACCOUNT_FACTOR / window_s)
        self._registrations = Buckets(clock, values.registrations_per_hour, values.registrations_per_hour / _HOUR_S)
        self._resets = Buckets(clock, values.resets_per_hour, values.resets_per_hour / _HOUR_S)
        self._lock = threading.Lock()
        self._trusted: OrderedDict[str, None] = OrderedDict()
        self.refused = 0

    def admit(self, principal: Principal, client: str, operation: str) -> None:
        """Count a request against the rate of its principal, or of its address. Raises RATE_LIMITED."""
        if self._requests is None or operation == "health" or self._is_spared(client):
            return
        name = f"a:{client}" if principal.is_anonymous else f"u:{principal.user_id}"
        self._refuse_after(self._requests.take(name), "Too many requests: slow down and retry.")

    def password_attempt(self, account: str, client: str) -> Attempt:
        """Before a password is checked: say afterwards that it was right. account: as typed. Raises RATE_LIMITED."""
        if self._is_spared(client):
            return Attempt([], None, "")
        name = _short(account)
        pair = f"{client}\0{name}"
        wanted = [(self._pairs, pair), (self._addresses, client)]
        with self._lock:
            if pair not in self._trusted:
                wanted.append((self._accounts, name))
        attempt = Attempt([], self, pair)
        for buckets, key in wanted:
            wait_s = buckets.take(key)
            if wait_s:
                attempt.cancelled()
                self._refuse_after(wait_s, "Too many failed sign-ins: wait before the next try.")
            attempt._paid.append((buckets, key))
        return attempt

    def registration(self, client: str) -> None:
        """Raises RATE_LIMITED."""
        if not self._is_spared(client):
            self._refuse_after(
                self._registrations.take(client), "Too many registrations from this address: wait and retry."
            )

    def password_reset(self, account: str, client: str) -> None:
        """Raises RATE_LIMITED."""
        if not self._is_spared(client):
            for name in (f"a:{client}", f"u:{_short(account)}"):
                self._refuse_after(self._resets.take(name), "Too many password resets: wait and retry.")

    def _trust(self, pair: str) -> None:
        with self._lock:
            self._trusted[pair] = None
            self._trusted.move_to_end(pair)
            if len(self._trusted) > RATE_NAMES_MAX:
                self._trusted.popitem(last=False)

    def _is_spared(self, client: str) -> bool:
        return self._is_open and is_loopback(client)

    def _refuse_after(self, wait_s: float, message: str) -> None:
        if wait_s:
            self.refused += 1
            retry_after_s = math.ceil(min(wait_s, _RETRY_AFTER_S_MAX))
            raise JadeError(ErrorCode.RATE_LIMITED, message, details={"retry_after_s": retry_after_s})


def _short(account: str) -> str:
    """A name as it is looked up; of a very long one only the beginning is worth remembering."""
    return fold(account[:EMAIL_LENGTH_MAX])


def is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address in ("localhost", "")
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed.is_loopback or (mapped is not None and mapped.is_loopback)
