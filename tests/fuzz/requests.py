"""From a seed and a number to one hostile request: always the same bytes, so that a failure can be sent again by its number."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from jadevectordb.gateway.rest.http import Route
from jadevectordb.gateway.rest.routes import all_routes
from tests.fuzz.bodies import BODIES, DIMENSION, QUERIES, metadata
from tests.fuzz.values import (
    DATABASES,
    IDS,
    NUMBERS,
    SHORT_LIVED,
    STRINGS,
    broken_text,
    condition,
    flipped,
    harmed,
    scalar,
    text_of,
    value,
)

# Stopping the server is not for a fuzzer
ROUTES = tuple(route for route in all_routes() if route.operation != "server.shutdown")
RAW_ROUTES = tuple(
    route
    for route in ROUTES
    if route.method == "POST"
    and route.template.startswith("/v2/databases/{db}")
    and route.template.endswith(("/search", "/batch", "/vectors"))
)
_WITH_BODY = tuple(route for route in ROUTES if route.method in ("POST", "PUT", "PATCH"))
_WAITS = ("/wait-indexed", "/compact")
_HEADERS = (
    "Authorization",
    "X-API-Key",
    "X-Jade-Session",
    "Accept",
    "Content-Type",
    "Content-Encoding",
    "X-Request-Id",
    "Origin",
    "Host",
    "traceparent",
    "X-Forwarded-For",
    "If-None-Match",
    "If-Modified-Since",
    "Range",
    "Expect",
    "Upgrade",
    "Connection",
    "Cookie",
    "Access-Control-Request-Method",
    "Content-Length",
    "Transfer-Encoding",
    "X" * 300,
)
_CREDENTIALS = (
    "Bearer ",
    "Bearer jade_x",
    "ApiKey x",
    "Basic !!!",
    "Basic dXNlcjE6eA==",
    "Basic Og==",
    "Bearer " + "a" * 5000,
    "Digest x",
)


@dataclass
class FuzzRequest:
    """whole: the client keeps to HTTP, so there must be an answer. wait: it may answer 503 because time ran out."""

    number: int
    kind: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    wire: bytes = b""  # when given: exactly these bytes, which may be no HTTP at all
    wait: bool = False
    tags: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.wire

    def bytes(self) -> bytes:
        if self.wire:
            return self.wire
        given = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [] if "host" in given else ["Host: localhost"]
        lines += [f"{name}: {text}" for name, text in self.headers]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body

    def __str__(self) -> str:
        shown = self.bytes()
        return f"request {self.number} ({self.kind}), {len(shown)} bytes: {shown[:3000]!r}{' ...' if len(shown) > 3000 else ''}"


def request_of(seed: int, number: int) -> FuzzRequest:
    chance = Random(f"{seed}/{number}")
    maker, kind = chance.choices(_MAKERS, _WEIGHTS)[0]
    made = maker(chance)
    made.number, made.kind = number, kind
    return made


def _path(chance: Random, method: str, template: str, wildness: float = 0.08) -> str:
    parts = []
    changes_it = method != "GET" and template.endswith(("{databaseId}", "{db}")) and chance.random() < 0.98
    for segment in template.split("/"):
        if not segment.startswith("{"):
            parts.append(segment)
        elif chance.random() < wildness:
            parts.append(quote(chance.choice(STRINGS)[:2000], safe="", errors="replace") or "x")
        elif segment in ("{databaseId}", "{db}"):
            parts.append(chance.choice(SHORT_LIVED if changes_it else DATABASES))
        elif segment == "{userId}":
            parts.append(f"user{chance.randrange(6)}")
        elif segment == "{nodeId}":
            parts.append("local")
        elif segment in ("{indexId}", "{alertId}"):
            parts.append(chance.choice(("default", "primary", "idx_1", "1")))
        elif segment == "{file}":
            parts.append(chance.choice(("app.js", "base.css", "users.js", "icon.svg")))
        else:
            parts.append(quote(chance.choice(IDS), safe=""))
    return "/".join(parts)


def _for(chance: Random, route: Route, body: bytes, content_type: str = "application/json") -> FuzzRequest:
    headers = [("Content-Type", content_type)] if body else []
    if chance.random() < 0.05:
        headers.append(("Accept", "application/octet-stream"))
    return FuzzRequest(
        0,
        "",
        route.method,
        _path(chance, route.method, route.template),
        headers,
        body,
        wait=route.template.endswith(_WAITS),
    )


def _valid(chance: Random, route: Route) -> Any:
    make = BODIES.get(route.template)
    return {} if make is None else make(chance)


def _as_asked(chance: Random) -> FuzzRequest:
    """Nothing wrong with it: so that there is something for the others to break."""
    route = chance.choice(ROUTES)
    body = json.dumps(_valid(chance, route)).encode() if route.method in ("POST", "PUT", "PATCH") else b""
    return _for(chance, route, body)


def _harmed_body(chance: Random) -> FuzzRequest:
    route = chance.choice(_WITH_BODY)
    body = _valid(chance, route)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        body = harmed(chance, body)
    return _for(chance, route, text_of(chance, body))


def _made_up_body(chance: Random) -> FuzzRequest:
    return _for(chance, chance.choice(_WITH_BODY), text_of(chance, value(chance, 4)))


def _broken_body(chance: Random) -> FuzzRequest:
    route = chance.choice(_WITH_BODY)
    content_type = chance.choice(
        ("application/json", "application/json; charset=utf-16", "text/plain", "", "application/octet-stream")
    )
    return _for(chance, route, broken_text(chance, _valid(chance, route)), content_type)


def _floats(chance: Random) -> bytes:
    rows = chance.choice((1, 1, 1, 2, 50, 1001))
    data = struct.pack(f"<{rows * DIMENSION}f", *(chance.gauss(0, 1) for _ in range(rows * DIMENSION)))
    draw = chance.random()
    if draw < 0.3:
        return flipped(chance, data)
    if draw < 0.5:  # NaN, infinities, denormal numbers, the largest
        odd = chance.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x01\x00\x00\x00", b"\xff\xff\x7f\x7f", bytes(4))
        )
        return data[:-4] + odd
    return bytes(len(data)) if draw < 0.55 else data


def _raw_body(chance: Random) -> FuzzRequest:
    route = chance.choice(RAW_ROUTES)
    body = _floats(chance)
    if route.template.endswith("/vectors"):
        names = (
            [chance.choice(IDS) for _ in range(len(body) // (4 * DIMENSION))]
            if chance.random() < 0.2
            else [f"r{n}" for n in range(len(body) // (4 * DIMENSION))]
        )
        header: Any = {"ids": names, "metadata": [metadata(chance) for _ in names]}
        if chance.random() < 0.4:
            header = harmed(chance, header)
        text = text_of(chance, header) if chance.random() < 0.85 else broken_text(chance, header)
        length = len(text) if chance.random() < 0.85 else chance.choice((0, 1, len(text) + 1, 2**31, 2**32 - 1))
        body = struct.pack("<I", length) + text + body
        if chance.random() < 0.1:
            body = body[: chance.randrange(len(body))]
    made = _for(chance, route, body, "application/octet-stream")
    if chance.random() < 0.6:
        made.target += "?" + _query_string(chance, QUERIES.get(route.template, ("k",)))
    return made


def _query_string(chance: Random, names: tuple[str, ...]) -> str:
    parts = []
    for name in chance.sample(names, chance.randrange(1, len(names) + 1)):
        draw = chance.random()
        if name == "filter" and draw < 0.7:
            text = json.dumps(condition(chance))
        elif draw < 0.3:
            text = chance.choice(("1", "10", "0.9", "true", "metadata,vector", "2026-01-01T00:00:00Z", "day", "csv"))
        elif draw < 0.6:
            text = str(chance.choice(NUMBERS[:-9])) if chance.random() < 0.5 else "9" * chance.choice((20, 4400))
        else:
            text = str(scalar(chance))[:3000] if chance.random() < 0.9 else chance.choice(STRINGS)[:3000]
        parts.append(f"{name}={quote(text, safe='', errors='replace')}")
    text = chance.choice(("&", "&", "&&", ";")).join(parts)
    if chance.random() < 0.15:
        text = flipped(chance, text.encode()).decode("ascii", "replace").replace("\ufffd", "%").translate(_SPACES)
    return text


_SPACES = dict.fromkeys((*range(33), 127), "%")


def _odd_query(chance: Random) -> FuzzRequest:
    template = chance.choice(list(QUERIES))
    route = chance.choice([r for r in ROUTES if r.template == template])
    body = json.dumps(_valid(chance, route)).encode() if route.method in ("POST", "PUT") else b""
    made = _for(chance, route, body)
    made.target += "?" + _query_string(chance, QUERIES[template])
    return made


def _odd_path(chance: Random) -> FuzzRequest:
    route = chance.choice(ROUTES)
    path = _path(chance, route.method, route.template, 0.7)
    match chance.randrange(7):
        case 0:
            path = path.replace("/", "//", chance.randrange(1, 3))
        case 1:
            path = chance.choice(("/api", "/api/v1", "/v1/v1", "/..", "/%2e%2e", "/./", "/api/api")) + path
        case 2:
            path += chance.choice(("/", "/..", "/%00", "/.", "%2f", ";a=b", "#x", "?", "/%c0%af", "%ff%fe", "%"))
        case 3:
            path = "".join(f"%{ord(c):02X}" if c.isascii() and c != "/" and chance.random() < 0.3 else c for c in path)
        case 4:
            path = flipped(chance, path.encode()).decode("ascii", "replace").replace("\ufffd", "%").translate(_SPACES)
            path = path if path.startswith("/") else "/" + path
        case 5:
            path = "/" + "/".join("a" * chance.randrange(4) for _ in range(chance.choice((3, 300, 3000))))
        case _:
            pass
    method = (
        route.method
        if chance.random() < 0.6
        else chance.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"))
    )
    if "shutdown" in path.lower():
        path = "/"
    wait = any(word in path for word in ("compact", "wait-indexed"))
    return FuzzRequest(0, "", method, path, [], b"{}" if method in ("POST", "PUT", "PATCH") else b"", wait=wait)


def _odd_headers(chance: Random) -> FuzzRequest:
    made = _as_asked(chance)
    for _ in range(chance.choice((1, 2, 2, 5, 30))):
        name = chance.choice(_HEADERS[:19])
        if name in ("Expect", "Upgrade", "Connection"):
            text = chance.choice(
                ("100-continue", "websocket", "h2c", "keep-alive", "keep-alive, Upgrade", "close", "x")
            )
        elif name == "Authorization" and chance.random() < 0.7:
            text = chance.choice(_CREDENTIALS)
        elif name == "X-Jade-Session" and chance.random() < 0.6:
            text = chance.choice(("target0~0.1", "a~0.1|b~", "~", "|||", "db_0~x.y", "db_0~0." + "9" * 5000))
        else:
            text = chance.choice(STRINGS)[:3000]
        made.headers.append((name, "".join(c for c in text if c >= " " and c != "\x7f")))
    # A connection that is upgraded or that waits to continue is no ordinary exchange: those are for `_harmed_wire`
    made.headers = [(name, text) for name, text in made.headers if name != "Upgrade"]
    if any(name == "Expect" for name, _ in made.headers):
        made.tags.append("expect")
    if any(name == "Connection" for name, _ in made.headers):
        made.tags.append("close")
    return made


def _harmed_wire(chance: Random) -> FuzzRequest:
    """Bytes that are not quite HTTP."""
    made = _as_asked(chance) if chance.random() < 0.7 else _raw_body(chance)
    made.headers += [
        (
            chance.choice(_HEADERS),
            chance.choice(("", "1", "chunked", "-1", "h2c", "identity, chunked", "99999999999999999999")),
        )
        for _ in range(chance.randrange(3))
    ]
    data = made.bytes()
    match chance.randrange(6):
        case 0:
            data = data[: chance.randrange(len(data) + 1)]
        case 1:
            data = data.replace(b"\r\n", chance.choice((b"\n", b"\r", b"\r\n\r\n", b" \r\n ")), chance.randrange(1, 5))
        case 2:
            data = data + data[: chance.randrange(len(data))]
        case 3:
            head, _, body = data.partition(b"\r\n\r\n")
            sizes = chance.choice(
                (b"%x" % len(body), b"-1", b"FFFFFFFFFFFFFFFFF", b"0x5", b"", b"5;ext=1", b"%x" % (len(body) + 9))
            )
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length"))
            data = head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + sizes + b"\r\n" + body + b"\r\n0\r\n\r\n"
        case _:
            data = flipped(chance, data)
    made.wire = data or b"\x00"
    if b"shutdown" in data.lower():
        made.wire = b"GET"
    return made


_MAKERS = (
    (_harmed_body, "harmed body"),
    (_as_asked, "as asked"),
    (_made_up_body, "made-up body"),
    (_broken_body, "broken body"),
    (_raw_body, "raw body"),
    (_odd_query, "odd query"),
    (_odd_path, "odd path"),
    (_odd_headers, "odd headers"),
    (_harmed_wire, "harmed wire"),
)
_WEIGHTS = (40, 12, 8, 9, 9, 7, 6, 5, 4)
