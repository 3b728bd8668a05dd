"""What a client knows between calls, and every decision it takes: heads of requests, credentials, sessions, when to try again.

No socket, no clock and no thread: the shells (`sync`, `aio`) bring bytes, times and random numbers, and do what is decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from jadevectordb.client.address import URL_DEFAULT, Address
from jadevectordb.client.call import Answer, Call, encode, read_as, result
from jadevectordb.client.http1 import field_value, request_head
from jadevectordb.client.nodes import Nodes, is_nodes_fault
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    CLIENT_ATTEMPTS_MAX,
    CLIENT_CLUSTER_ATTEMPTS_MAX,
    CLIENT_CONNECTIONS_MAX,
    CLIENT_NODES_MAX,
)
from jadevectordb.prepared_structs import prepare_structs

T = TypeVar("T")
URL_VARIABLE = "JADEVECTORDB_URL"
KEY_VARIABLE = "JADEVECTORDB_API_KEY"
_SESSION_HEADER = "x-jade-session"
_SESSION_LENGTH_MAX = 32_000
_SEQUENCE_LENGTH_MAX = 19  # digits: beyond 64 bits there is none
_SESSIONS_MAX = 1024  # databases whose sessions are remembered
_CLUSTER_PAUSE_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. connect: until the connection stands, TLS included. read: between two pieces of an answer, or of a request being
    sent. total: of a whole call with all its tries and waits.
    """

    connect_s: float = 5.0
    read_s: float = 30.0
    total_s: float = 60.0

    def __post_init__(self) -> None:
        if not all(0 < value < 1e7 for value in (self.connect_s, self.read_s, self.total_s)):
            raise _invalid(f"timeouts are seconds above 0, got {self}.")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried, and the pauses between: they double from backoff_s to backoff_s_max, and half of each is chance,
    so that clients which failed together do not come back together. A longer Retry-After of the server counts instead.

    Where several nodes can answer, a call goes on to the next one at once, and is tried again while there is time, whatever
    attempts_max says, unless that is 1: a cluster that loses a node answers again within seconds.
    """

    attempts_max: int = 4
    backoff_s: float = 0.05
    backoff_s_max: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_max <= CLIENT_ATTEMPTS_MAX or not 0 <= self.backoff_s <= self.backoff_s_max < 1e6:
            raise _invalid(f"attempts_max is 1 to {CLIENT_ATTEMPTS_MAX} and pauses are seconds, got {self}.")

    def pause_s(
        self, call: Call[Any], error: JadeError, attempt: int, left_s: float, chance: float, nodes: int = 1
    ) -> float | None:
        """How long to wait before trying once more; None = give up.

        attempt: how many there were. chance: 0 to 1, drawn. nodes: how many can answer.
        """
        if nodes > 1 and self.attempts_max > 1 and is_nodes_fault(error):
            return self._cluster_pause_s(call, error, attempt, left_s, chance, nodes)
        if attempt >= self.attempts_max or not _may_repeat(call, error):
            return None
        pause = min(self.backoff_s_max, self.backoff_s * 2 ** (attempt - 1)) * (0.5 + 0.5 * chance)
        pause = max(pause, error.details.get("retry_after_s", 0.0))
        return pause if pause < left_s else None

    def _cluster_pause_s(
        self, call: Call[Any], error: JadeError, attempt: int, left_s: float, chance: float, nodes: int
    ) -> float | None:
        if attempt >= CLIENT_CLUSTER_ATTEMPTS_MAX or not _may_repeat_elsewhere(call, error):
            return None
        if attempt < nodes:
            return 0.0 if left_s > 0 else None
        doubled = self.backoff_s * 2 ** min(attempt - nodes, 16)
        pause = min(self.backoff_s_max, _CLUSTER_PAUSE_S_MAX, doubled) * (0.5 + 0.5 * chance)
        return pause if pause < left_s else None


def _may_repeat(call: Call[Any], error: JadeError) -> bool:
    phase = error.details.get("phase")
    if phase is None:  # the server's own word. That a wait for the index took too long is an answer, not a failure
        return (error.code is ErrorCode.RATE_LIMITED or error.code is ErrorCode.UNAVAILABLE) and (
            call.repeatable or _was_refused(error)
        )
    if phase == "tls" or error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT):
        return False
    return call.repeatable or phase == "connect"


def _may_repeat_elsewhere(call: Call[Any], error: JadeError) -> bool:
    """The node could not, or nobody knows: another may do it, if doing it twice is no harm or it surely was not done."""
    phase = error.details.get("phase")
    if phase is not None:
        return call.repeatable or phase in ("connect", "tls")
    if error.code is ErrorCode.TIMEOUT:
        return call.repeatable and not call.wait_s
    return call.repeatable or _was_refused(error)


def _was_refused(error: JadeError) -> bool:
    """Nothing was done."""
    details = error.details
    return details.get("status") in (429, 503) and not details.get("undecided") and not details.get("written")


class Credentials:
    """Who calls: a token or key that was given, or a name and password that are exchanged for a token at the first call."""

    __slots__ = ("_password", "_user", "token")

    def __init__(self, token: str | None, user: str | None, password: str | None) -> None:
        self.token = None if token is None else field_value(token, "token or API key")
        self._user = user
        self._password = password

    @property
    def can_sign_in(self) -> bool:
        return self._user is not None

    @property
    def must_sign_in(self) -> bool:
        return self._user is not None and self.token is None

    def sign_in(self) -> Call[SignedIn]:
        body = encode({"username": self._user, "password": self._password})
        return Call("POST", "/v1/auth/login", _signed_in, body=(body,), public=True)

    def take(self, answer: SignedIn) -> None:
        self.token = field_value(answer.token, "session token that the server gave")

    def __repr__(self) -> str:
        kind = "nobody" if self.token is None and self._user is None else self._user or "a token or API key"
        return f"<Credentials of {kind}>"


class SignedIn(msgspec.Struct):
    token: str
    user_id: str = ""
    must_change_password: bool = False


_signed_in = read_as(SignedIn)


class Core:
    """Shared by all threads of a client: the token changes by single assignments, sessions under a lock."""

    def __init__(
        self, nodes: Nodes, credentials: Credentials, timeouts: Timeouts, retries: Retries, connections_max: int
    ) -> None:
        prepare_structs()
        if type(connections_max) is not int or not 1 <= connections_max <= CLIENT_CONNECTIONS_MAX:
            raise _invalid(f"connections_max is 1 to {CLIENT_CONNECTIONS_MAX}, got {connections_max!r:.40}.")
        self.nodes = nodes
        self.credentials = credentials
        self.timeouts = timeouts
        self.retries = retries
        self.connections_max = connections_max
        self._sessions: dict[str, str] = {}
        self._remembering = threading.Lock()

    @property
    def url(self) -> str:
        """As it can be given again."""
        return ",".join(address.url for address in self.nodes.given)

    def head(self, call: Call[Any], address: Address) -> bytes:
        fields = f"Host: {address.authority}\r\nUser-Agent: jadevectordb-python\r\n"
        token = self.credentials.token
        if token is not None and not call.public:
            fields += f"Authorization: Bearer {token}\r\n"
        if call.accept:
            fields += f"Accept: {call.accept}\r\n"
        if call.database:
            session = self._sessions.get(call.database)
            if session is not None:
                fields += f"X-Jade-Session: {session}\r\n"
        if call.consistency:
            fields += f"X-Jade-Consistency: {call.consistency}\r\n"
        length = 0
        if call.body:
            fields += f"Content-Type: {call.content_type}\r\n"
            length = sum(map(len, call.body)) if len(call.body) > 1 else len(call.body[0])
        return request_head(call.method, address.path + call.target, fields, length)

    def take(self, call: Call[T], answer: Answer) -> T:
        """What the call returns, with the session it brought remembered. Raises the server's error, which may bring one too."""
        if call.database:
            session = answer.headers.get(_SESSION_HEADER)
            if session is not None:
                self.remember(call.database, session)
        return result(call, answer)

    def remember(self, database: str, session: str) -> None:
        """What could not stand in a header, or is too long, is no session. "" forgets."""
        sessions = self._sessions
        if not session:
            with self._remembering:
                sessions.pop(database, None)
        elif session == sessions.get(database):
            pass  # most reads, while nobody writes
        elif len(session) <= _SESSION_LENGTH_MAX and session.isascii() and session.isprintable():
            with self._remembering:  # another thread's answer must not be forgotten over this one
                if database not in sessions and len(sessions) >= _SESSIONS_MAX:
                    del sessions[next(iter(sessions))]
                sessions[database] = merged(sessions.get(database, ""), session)

    def session(self, database: str) -> str:
        return self._sessions.get(database, "")

    def signs_in_again(self, call: Call[Any], error: JadeError, token: str | None) -> bool:
        """Whether a fresh token may help: the one that was used has expired or was revoked. Forgets it if so."""
        if error.code is not ErrorCode.UNAUTHORIZED or token is None or call.public or not self.credentials.can_sign_in:
            return False  # with no token it was the sign-in itself that was refused
        if self.credentials.token == token:
            self.credentials.token = None
        return True


def merged(old: str, new: str) -> str:
    """A session that stands for what both have seen: answers to calls that ran at once come in any order.

    A session is `DATABASE~SHARD.SEQUENCE,...`; in any other form, and of another database (one dropped and made again under its
    name), the new one counts.
    """
    if not old or old == new:
        return new
    name, _, pairs = new.partition("~")
    name_before, _, pairs_before = old.partition("~")
    if name != name_before:
        return new
    marks: dict[str, int] = {}
    for pair in (*pairs_before.split(","), *pairs.split(",")):
        shard, _, sequence = pair.partition(".")
        if not sequence.isdigit() or len(sequence) > _SEQUENCE_LENGTH_MAX:
            return new
        number = int(sequence)
        if number > marks.get(shard, -1):
            marks[shard] = number
    both = f"{name}~{','.join([f'{shard}.{sequence}' for shard, sequence in marks.items()])}"
    return both if len(both) <= _SESSION_LENGTH_MAX else new


def settings_of(
    url: str | Iterable[str] | None,
    token: str | None,
    api_key: str | None,
    user: str | None,
    password: str | None,
    environment: Mapping[str, str],
) -> tuple[tuple[Address, ...], Credentials]:
    """What was given, else what the environment says. Raises INVALID_ARGUMENT."""
    ways = [name for name, value in (("token", token), ("api_key", api_key), ("user", user)) if value is not None]
    if len(ways) > 1:
        raise _invalid(f"{' and '.join(ways)} are given: one of them says who calls.")
    if (user is None) != (password is None):
        raise _invalid("user and password go together.")
    if not ways:
        api_key = environment.get(KEY_VARIABLE) or None
    addresses = addresses_of(url or environment.get(URL_VARIABLE) or URL_DEFAULT)
    return addresses, Credentials(token if token is not None else api_key, user, password)


def addresses_of(url: str | Iterable[str]) -> tuple[Address, ...]:
    """One URL, or several of one cluster's nodes: a list, or with commas between. Raises INVALID_ARGUMENT."""
    if not isinstance(url, Iterable):
        raise _invalid(f"url is a text, or a list of texts, got {url!r:.80}.")
    texts = url.split(",") if isinstance(url, str) else list(url)
    addresses = tuple(dict.fromkeys(Address.of(text) for text in texts))
    if not 0 < len(addresses) <= CLIENT_NODES_MAX:
        raise _invalid(f"give 1 to {CLIENT_NODES_MAX} URLs of a cluster's nodes, got {len(addresses)}.")
    if len({(address.is_tls, address.path) for address in addresses}) > 1:
        raise _invalid("the URLs are of one cluster: all http or all https, with the same path.")
    return addresses


def timeouts_of(timeout: Timeouts | float | None) -> Timeouts:
    """A number is the total; no single step may take longer."""
    if timeout is None:
        return Timeouts()
    if isinstance(timeout, Timeouts):
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise _invalid(f"timeout is seconds, or Timeouts(...), got {timeout!r:.60}.")
    usual = Timeouts()
    return Timeouts(min(usual.connect_s, timeout), min(usual.read_s, timeout), timeout)


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
