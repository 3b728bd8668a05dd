"""Secrets that are handed out once and identities beside them: session tokens, API keys, reset tokens, ids.

A token is PREFIX + 43 characters of secret (256 random bits) + the end of its owner's user id. The owner's part lets one read of
the store find the record; the secret is what proves. Only the SHA-256 of the whole token is kept: of a random 256-bit secret it
can be neither reversed nor guessed, so no slow hash is needed. A credential's id is the beginning of that hash.
Everything is of [A-Za-z0-9._-], so that scripts can cut it out of JSON and paste it anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

RandomBytes = Callable[[int], bytes]

KEY_PREFIX = "jadevdb_"
SESSION_PREFIX = "jadesess_"
RESET_PREFIX = "jadereset_"
SETUP_PREFIX = "jadesetup_"
_SECRET_BYTES = 32
_SECRET_LENGTH = 43  # of 32 bytes as base64url without padding
_ID_BYTES = 10
_ID_LENGTH = 20
SHOWN_LENGTH = 12  # characters of an API key that listings show


def new_secret(random: RandomBytes) -> str:
    return base64.urlsafe_b64encode(random(_SECRET_BYTES)).rstrip(b"=").decode()


def new_id(random: RandomBytes, prefix: str) -> str:
    """`user_` and 16 letters and digits, 80 random bits."""
    return prefix + base64.b32encode(random(_ID_BYTES)).decode().lower()


def new_token(random: RandomBytes, prefix: str, user_id: str) -> str:
    return prefix + new_secret(random) + user_id.removeprefix("user_")


def owner_of(token: str, prefix: str) -> str | None:
    """The user id inside a token of this prefix; None when it can't be one."""
    owner = token[len(prefix) + _SECRET_LENGTH :]
    if not token.startswith(prefix) or not owner or not token.isascii() or not owner.isalnum():
        return None
    return f"user_{owner}"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def id_of(token_digest: str, prefix: str) -> str:
    """The id of the credential with this digest: `key_` or `sess_` and 20 hexadecimal digits."""
    return prefix + token_digest[:_ID_LENGTH]


def same(left: str, right: str) -> bool:
    """Compared in a time that does not tell where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())
