"""Secrets never reach a log: whatever a message, a trace or a field holds, what looks like a credential is replaced.

This is the second line. The first is that no code logs credentials; but libraries log what they please, exceptions quote what
they were given, and one forgotten line must not open every database.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from jadevectordb.model.limits import LOG_MESSAGE_LENGTH_MAX

HIDDEN = "[hidden]"
_DEPTH_MAX = 8
_ITEMS_MAX = 200  # of one list or object in a field
_INTEGER_MAX = (1 << 63) - 1  # what readers of JSON take for an integer
# Every repetition is bounded: a text made for it must not make a pattern slow
_NAME = (
    r"(?:pass(?:word|wd|phrase)|secret|token(?!s)|api[-_]?key|authorization|credentials?(?!_id)|private[-_]?key|cookie)"
)
_FIELD = rf"[\w-]{{0,64}}{_NAME}[\w-]{{0,64}}"
_OPEN = r"""(\\{0,8}["'])"""  # more backslashes: JSON inside JSON
# To the quote that closes: as many backslashes, no more. Without one: to the end, rather too much than too little
_QUOTED = rf"{_OPEN}(?:(?!(?<!\\)\2).)*(\2|\Z)"
_SCHEMES = r"(?:Bearer|ApiKey|Basic|Digest|Negotiate)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Keys and tokens of ours, wherever they stand
    (re.compile(r"\b(jade(?:vdb|sess|reset|setup)_)[A-Za-z0-9._~+/=-]+"), rf"\1{HIDDEN}"),
    # Scheme and credential; before names, or `Authorization: Bearer x` would keep its x
    (re.compile(rf"\b({_SCHEMES})(?:\s{{1,8}}|%20)[A-Za-z0-9._~+/=:-]+", re.I), rf"\1 {HIDDEN}"),
    # user:password@ in an address
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,256}):[^\s/@]{1,1024}@", re.I), rf"\1:{HIDDEN}@"),
    # "new_password": "..." as JSON or a Python dict, escaped or not; b'authorization', b'...' as ASGI has headers
    (
        re.compile(rf"""(\\{{0,8}}["']{_FIELD}\\{{0,8}}["']\s{{0,8}}[:,]\s{{0,8}}b?){_QUOTED}""", re.I | re.S),
        rf"\1\2{HIDDEN}\3",
    ),
    # password='...'
    (re.compile(rf"(\b{_FIELD}\s{{0,8}}[=:]\s{{0,8}}){_QUOTED}", re.I | re.S), rf"\1\2{HIDDEN}\3"),
    # password=..., X-API-Key: ..., JADEVECTORDB_ADMIN_PASSWORD=...
    (
        re.compile(rf"""(\b{_FIELD}\s{{0,8}}[=:]\s{{0,8}})(?!["'\[{{(\\]|{_SCHEMES}\b)[^\s,;&"'}}\])]+""", re.I),
        rf"\1{HIDDEN}",
    ),
    # A private key in PEM
    (
        re.compile(r"-----BEGIN ([A-Z ]{0,40}PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.S),
        rf"-----BEGIN \1----- {HIDDEN}",
    ),
)
_SECRET_FIELD = re.compile(_NAME, re.I)
_HINT = re.compile(rf"jade[a-z]+_|bearer|basic|digest|negotiate|://|private key|{_NAME}", re.I)


def redacted(text: str) -> str:
    """The text without credentials. Quick for texts that hold none."""
    if not _HINT.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted_value(value: Any, depth: int = 0) -> Any:
    """A value as a log may hold it: secrets out, bounded, and nothing that JSON can't hold."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -_INTEGER_MAX <= value <= _INTEGER_MAX else _text(str(value))
        case str():
            return _text(value)
        case _ if depth >= _DEPTH_MAX:
            return "…"
        case Mapping():
            return {
                _text(str(key)): HIDDEN if is_secret_name(str(key)) and item else redacted_value(item, depth + 1)
                for key, item in itertools.islice(value.items(), _ITEMS_MAX)
            }
        case list() | tuple() | set() | frozenset():
            return [redacted_value(item, depth + 1) for item in itertools.islice(value, _ITEMS_MAX)]
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    """Bounded, and of characters that UTF-8 has: half a surrogate pair would make the whole line unwritable."""
    cut = text if len(text) <= LOG_MESSAGE_LENGTH_MAX else text[:LOG_MESSAGE_LENGTH_MAX] + "…"
    return redacted(cut.encode("utf-8", "backslashreplace").decode())


def is_secret_name(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None
