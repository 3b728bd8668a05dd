"""Secrets never reach a log: whatever a message, a trace or a field holds, what looks like a credential is replaced.

This is the second line. The first is that no code logs credentials; but libraries log what they please, exceptions quote what
they were given, and one forgotten line must not open every database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
_DEPTH_MAX = 8
_NAME = r"(?:pass(?:word|wd|phrase)|secret|token|api[-_]?key|authorization|credentials?|private[-_]?key|cookie|session[-_]?id)"
_QUOTE = r"""\\*["']"""
# In order: a header with its scheme first, or `Authorization: Bearer x` would keep its x
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Keys of ours, wherever they stand
    (re.compile(r"jadevdb_[A-Za-z0-9._~+/=-]+"), f"jadevdb_{HIDDEN}"),
    # Scheme and credential
    (re.compile(r"\b(Bearer|ApiKey|Basic|Digest|Negotiate)(\s+|%20)[A-Za-z0-9._~+/=:-]+", re.I), rf"\1 {HIDDEN}"),
    # user:password@ in an address
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.I), rf"\1:{HIDDEN}@"),
    # "new_password": "..." as JSON or a Python dict, escaped or not; b'authorization', b'...' as ASGI has headers
    (
        re.compile(rf"({_QUOTE}[\w-]*{_NAME}[\w-]*{_QUOTE}\s*[:,]\s*b?)({_QUOTE})((?:(?!\2).)*)(\2)", re.I | re.S),
        rf"\1\2{HIDDEN}\4",
    ),
    # password=..., X-API-Key: ..., JADEVECTORDB_ADMIN_PASSWORD=...
    (
        re.compile(rf"(\b[\w-]*{_NAME}[\w-]*\s*(?:=|:)\s*)(?![\"'\[\\]|(?:Bearer|ApiKey|Basic|Digest|Negotiate)\b)[^\s,;&\"'}}\])]+", re.I),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(rf"(\b[\w-]*{_NAME}[\w-]*\s*=\s*)({_QUOTE})((?:(?!\2).)*)(\2)", re.I | re.S),
        rf"\1\2{HIDDEN}\4",
    ),
    # A private key in PEM
    (
        re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.S),
        rf"-----BEGIN \1----- {HIDDEN}",
    ),
)  # fmt: skip
_SECRET_FIELD = re.compile(_NAME, re.I)
_HINT = re.compile(rf"jadevdb_|bearer|basic|digest|negotiate|://|private key|{_NAME}", re.I)


def redacted(text: str) -> str:
    """The text without credentials. Quick for texts that hold none."""
    if not _HINT.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted_value(value: Any, depth: int = 0) -> Any:
    """A value as a log may hold it: secrets out, and nothing that JSON can't hold."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redacted(value)
        case _ if depth >= _DEPTH_MAX:
            return "…"
        case Mapping():
            return {
                str(key): HIDDEN if is_secret_name(str(key)) and item else redacted_value(item, depth + 1)
                for key, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redacted_value(item, depth + 1) for item in value]
        case _:
            return redacted(str(value))


def is_secret_name(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None
