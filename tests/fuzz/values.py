"""Values that programs choke on, and ways to harm a value that is fine. All chance comes from the `Random` passed in."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

DATABASES = ("target0", "target1", "target2", "target3")
SHORT_LIVED = ("made0", "made1", "made2", "made3")  # made, renamed and dropped by requests; the targets mostly are not
IDS = ("a", "b", "c", "d0", "d1", "d2", "ünï", "with space", "1", "x" * 512)

STRINGS = (
    "",
    " ",
    "a",
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "NaN",
    "None",
    "undefined",
    "\x00",
    "a\x00b",
    "\r\n",
    "\t",
    "\x7f",
    "\x85",
    "\u200b",
    "\ufeff",
    "\u202e",
    "\ud800",
    "\udfff\ud800",
    "😀" * 50,
    "e\u0301" * 20,
    "%00",
    "%ff",
    "%25",
    "../..",
    "..",
    ".",
    "/",
    "\\",
    "'",
    '"',
    "' OR 1=1 --",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "<script>",
    "$where",
    "$",
    "$lt",
    "a.b.c",
    "a..b",
    ".a",
    "a.",
    "x" * 513,
    "x" * 70_000,
    "(a+)+$",
    "[",
    "(?",
    "\\",
    "2026-13-45",
    "9999-12-31T23:59:59Z",
    "-0001-01-01",
    "1969-12-31T23:59:59.999Z",
    "Infinity",
    "٣",
    "1_0",
    "0x10",
    "+5",
    "COSINE",
    "hnsw",
    "_",
    "__proto__",
    "admin",
    "local",
    "password",
    "target0",
    "made0",
)
NUMBERS: tuple[int | float, ...] = (
    0,
    -0.0,
    1,
    -1,
    2,
    3,
    0.1,
    -0.5,
    1e-320,
    1e308,
    -1e308,
    1e39,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    10**300,
    10**4000,
    math.nan,
    math.inf,
    -math.inf,
    4096,
    4097,
    10_000,
    10_001,
    65_536,
    1_000_001,
)
OPERATORS = (
    "$eq",
    "$ne",
    "$lt",
    "$lte",
    "$gt",
    "$gte",
    "$in",
    "$nin",
    "$exists",
    "$and",
    "$or",
    "$not",
    "$regex",
    "$prefix",
    "$text",
    "$contains",
    "$all",
    "$range",
    "$size",
    "$unknown",
)


def scalar(chance: Random) -> Any:
    draw = chance.random()
    if draw < 0.45:
        return chance.choice(STRINGS)
    if draw < 0.85:
        return chance.choice(NUMBERS)
    return chance.choice((None, True, False))


def value(chance: Random, depth: int = 3) -> Any:
    """Any JSON value, and some that JSON has no word for (NaN, lone surrogates)."""
    draw = chance.random()
    if depth == 0 or draw < 0.6:
        return scalar(chance)
    if draw < 0.8:
        return [value(chance, depth - 1) for _ in range(chance.randrange(5))]
    return {name(chance): value(chance, depth - 1) for _ in range(chance.randrange(5))}


def name(chance: Random) -> str:
    return chance.choice(STRINGS) if chance.random() < 0.5 else chance.choice(("n", "tag", "body", "id", "values", "k"))


def large(chance: Random) -> Any:
    """Long, wide or deep."""
    match chance.randrange(7):
        case 0:
            return [0.5] * chance.choice((5, 4096, 20_000))
        case 1:
            return nested(chance.choice((20, 33, 200)), as_list=True)
        case 2:
            return nested(chance.choice((20, 33, 200)), as_list=False)
        case 3:
            return "ab " * chance.choice((1000, 30_000))
        case 4:
            return {f"k{n}": n for n in range(chance.choice((600, 3000)))}
        case 5:
            return [[0.5, 1, 2, 3]] * chance.choice((10, 1001, 3000))
        case _:
            return [f"i{n}" for n in range(chance.choice((10, 3000)))]


def nested(depth: int, *, as_list: bool) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner] if as_list else {"$not": inner}
    return inner


def condition(chance: Random, depth: int = 3) -> Any:
    """Something like a filter."""
    draw = chance.random()
    if depth and draw < 0.35:
        return {chance.choice(("$and", "$or")): [condition(chance, depth - 1) for _ in range(chance.randrange(4))]}
    if depth and draw < 0.45:
        return {"$not": condition(chance, depth - 1)}
    field = chance.choice(("n", "tag", "body", "flag", "when", "list", "no.such", name(chance)))
    if draw < 0.6:
        return {field: scalar(chance)}
    operand = value(chance, 1) if chance.random() < 0.7 else [scalar(chance) for _ in range(3)]
    return {field: {chance.choice(OPERATORS): operand}}


# Harm


def harmed(chance: Random, given: Any) -> Any:
    """A copy with something in it replaced, removed, added or repeated."""
    places = list(_places(given, ()))
    path = chance.choice(places)
    return _changed(chance, given, path)


def _places(given: Any, path: tuple[Any, ...]) -> Any:
    yield path
    if isinstance(given, dict):
        for key, inner in given.items():
            yield from _places(inner, (*path, key))
    elif isinstance(given, list):
        for at, inner in enumerate(given[:8]):
            yield from _places(inner, (*path, at))


def _changed(chance: Random, given: Any, path: tuple[Any, ...]) -> Any:
    if path:
        copy = dict(given) if isinstance(given, dict) else list(given)
        copy[path[0]] = _changed(chance, given[path[0]], path[1:])
        return copy
    draw = chance.random()
    if isinstance(given, dict) and given and draw < 0.45:
        copy = dict(given)
        if draw < 0.2:
            del copy[chance.choice(list(copy))]
        elif draw < 0.35:
            copy[name(chance)] = value(chance)
        else:
            copy[name(chance)] = copy.pop(chance.choice(list(copy)))
        return copy
    if isinstance(given, list) and given and draw < 0.45:
        copy = list(given)
        if draw < 0.15:
            copy.pop(chance.randrange(len(copy)))
        elif draw < 0.3:
            copy.insert(chance.randrange(len(copy) + 1), value(chance))
        else:
            copy *= chance.choice((2, 3, 100))
        return copy
    if draw < 0.55:
        return condition(chance)
    return large(chance) if draw < 0.62 else value(chance)


# Text


def text_of(chance: Random, given: Any) -> bytes:
    """JSON, mostly; sometimes with raw UTF-8 instead of escapes, or surrogates as bytes."""
    text = json.dumps(given, ensure_ascii=chance.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def broken_text(chance: Random, given: Any) -> bytes:
    """Bytes that are nearly JSON."""
    text = text_of(chance, given)
    match chance.randrange(11):
        case 0:
            return text[: chance.randrange(len(text) + 1)]
        case 1:
            return flipped(chance, text)
        case 2:
            return text + chance.choice((b"}", b"\x00", b",", text, b"\xff"))
        case 3:
            return b"\xef\xbb\xbf" + text
        case 4:
            return text.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return text.replace(b":", b":" + b"[" * chance.choice((100, 5000, 100_000)), 1)
        case 6:
            return text.replace(b'"', b"'")
        case 7:  # every name twice
            return text[:-1] + b", " + text[1:] if text[:1] == b"{" and len(text) > 2 else text * 2
        case 8:
            return text.replace(
                b"1", chance.choice((b"1e999", b"-", b"01", b"1.", b"0x1", b"9" * 5000, b"1E+", b"--1")), 2
            )
        case 9:
            return text.replace(b'"', b'"\\ud8' + chance.choice((b"00", b"00\\udc0", b"0")), 1)
        case _:
            return chance.randbytes(chance.choice((1, 7, 300)))


def flipped(chance: Random, data: bytes) -> bytes:
    """Some bytes changed, removed or put in."""
    copy = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(copy) + 1)
        match chance.randrange(3):
            case 0:
                copy[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del copy[at : at + chance.randrange(1, 4)]
            case _:
                copy[at:at] = chance.choice((b"\x00", b"\r\n", b"\xff", b"%", b'"', b"\\", b"{", b"[[", b","))
    return bytes(copy)
