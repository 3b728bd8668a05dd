"""No credential gets through, in whatever clothes it comes; and nothing that is none is lost."""

from __future__ import annotations

import base64
import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.gateway.service.redaction import HIDDEN, redacted, redacted_value

SECRET = "hunter2-Zq9.tail"
KEY = "jadevdb_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}",
        f"AUTHORIZATION:ApiKey {KEY}",
        f"Authorization: Basic {BASIC}",
        f"headers: {{'authorization': 'Bearer {SECRET}', 'accept': '*/*'}}",
        f"headers: [(b'authorization', b'Bearer {SECRET}'), (b'accept', b'*/*')]",
        f"[(b'x-api-key', b'{SECRET}')]",
        f"X-API-Key: {SECRET}",
        f"x-api-key={SECRET}",
        f"bad key {KEY}.",
        f"key '{KEY}' was refused",
        f'{{"username":"ann","password":"{SECRET}"}}',
        f'{{"username": "ann", "new_password": "{SECRET}"}}',
        json.dumps({"body": json.dumps({"password": SECRET})}),
        json.dumps({"password": f'quote"{SECRET}'}),
        json.dumps({"a": json.dumps({"b": json.dumps({"password": f'x"{SECRET}'})})}),
        f'{{"password":"{SECRET}\\\\"}}',
        f'{{"password":"{SECRET} and the rest is miss',
        f"{{'newPassword': '{SECRET}'}}",
        "jadesess_" + KEY[8:],
        f"jadereset_{KEY[8:]}, jadesetup_{KEY[8:]}",
        f"LoginRequest(username='ann', password='{SECRET}')",
        f"password={SECRET}&user=ann",
        f"/v1/reset?token={SECRET}&x=1",
        f"/v1/login?api_key={SECRET}",
        f"JADEVECTORDB_ADMIN_PASSWORD={SECRET}",
        f"admin_password: {SECRET}",
        f"session_token = {SECRET}",
        f"http://ann:{SECRET}@example.org:8080/v1",
        f"proxy said Bearer%20{SECRET}",
        f"Cookie: session={SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}",
        f"client_secret={SECRET}",
        f"password = '{SECRET} with a space {SECRET}'",
    ],
)
def test_hidden(text: str) -> None:
    hidden = redacted(text)
    assert HIDDEN in hidden
    for secret in (SECRET, KEY, KEY[8:], BASIC, "hunter2", "tail"):
        assert secret not in hidden, hidden


@pytest.mark.parametrize(
    "text",
    [
        "slow search in products: 120.0 ms, k 10, recall 0.95",
        "There is no vector 'a:b@c' in 'x'",
        "listening on http://127.0.0.1:8080 and grpc://[::1]:9080",
        "Passwords must have at least 8 characters.",
        "The password is wrong.",
        "no credential was given",
        "A bearer of bad news",
        "authorization failed for user ann",
        "max_tokens: 512, credential_id=key_0123456789",
    ],
)
def test_kept(text: str) -> None:
    kept = redacted(text)
    assert kept == text or kept.startswith("A bearer"), kept


TOKENS = st.text(string.ascii_letters + string.digits + "._-", min_size=12, max_size=60).filter(
    lambda text: text.strip("._-") == text
)


@given(
    TOKENS,
    st.sampled_from(["password", "newPassword", "api_key", "X-Api-Key", "token", "client_secret", "authorization"]),
)
def test_hidden_in_every_form(token: str, name: str) -> None:
    forms = [
        json.dumps({name: token}),
        json.dumps({name: token}, separators=(",", ":")),
        repr({name: token}),
        str([(name.encode(), token.encode())]),
        f"{name}={token}",
        f"{name}: {token}",
        f"/path?{name}={quote(token)}&a=b",
        f"Authorization: Bearer {token}",
        json.dumps({"text": json.dumps({name: token})}),
        f"key jadevdb_{token} is unknown",
    ]
    for form in forms:
        assert token not in redacted(form), (form, redacted(form))


def test_values() -> None:
    fields = {
        "user": "ann",
        "password": SECRET,
        "nested": {"apiKey": SECRET, "list": [f"Bearer {SECRET}", 1, None, True]},
        "token": None,
        "object": Exception(f"password={SECRET}"),
        "count": 3,
    }
    shown = redacted_value(fields)
    assert SECRET not in json.dumps(shown)
    assert (shown["user"], shown["count"], shown["token"]) == ("ann", 3, None)
    loop: dict[str, object] = {}
    loop["again"] = loop
    json.dumps(redacted_value(loop))


def test_long_texts_take_no_long_time() -> None:
    """Texts made to be slow for a pattern that backtracks; a quadratic one would not end within the suite."""
    for piece in (
        "password",
        "'password': '",
        "a:",
        "http://",
        "Bearer ",
        '\\\\"token\\\\"',
        "-----BEGIN PRIVATE KEY-----",
    ):
        redacted(piece * (8192 // len(piece)))
