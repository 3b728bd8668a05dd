"""Keys of the metadata store: which are allowed, and how any of them becomes a NATS subject and back.

A subject is words with dots between, without spaces, wildcards or control characters. A key is cut at its slashes into words;
letters, digits, '-' and '_' stay, every other byte of its UTF-8 form becomes '=' and two hexadecimal digits, and an
empty word becomes '=' alone. So `username/Jürgen` is `username.J=C3=BCrgen`, every key has one subject, and keys that differ
have subjects that differ.
"""

from __future__ import annotations

import re

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import STORE_KEY_BYTES_MAX

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_WORDS = [chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256)]
_ESCAPE = re.compile(r"=([0-9A-F]{2})")
_EMPTY = "="


def check_key(key: str) -> bytes:
    """The key's UTF-8 form. Raises INVALID_ARGUMENT when it has none or is too long."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"the key {key!r} holds a lone surrogate, which is not Unicode text"
        ) from error
    if len(encoded) > STORE_KEY_BYTES_MAX:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"the key {key[:80]!r}... has {len(encoded)} bytes, but at most {STORE_KEY_BYTES_MAX} are allowed",
        )
    return encoded


def subject_of(key: str) -> str:
    """Raises INVALID_ARGUMENT."""
    words = check_key(key).split(b"/")
    return ".".join("".join(_WORDS[byte] for byte in word) or _EMPTY for word in words)


def key_of(subject: str) -> str:
    """The key that has this subject. Raises ValueError when no key has it."""
    words = [
        "" if word == _EMPTY else _ESCAPE.sub(lambda found: chr(int(found[1], 16)), word) for word in subject.split(".")
    ]
    key = "/".join(words).encode("latin-1").decode()
    if subject_of(key) != subject:
        raise ValueError(f"no key has the subject {subject!r}")
    return key
