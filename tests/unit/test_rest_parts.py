"""Small parts of the REST door, each by itself: paths, numbers, times, session tokens, who really asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jadevectordb.gateway.rest.http import Request, Response, Route, iso, parse_time_ms, reply
from jadevectordb.gateway.rest.perimeter import Perimeter
from jadevectordb.gateway.rest.router import Found, OtherMethods, Router, rewritten
from jadevectordb.gateway.service.numbers import shortest
from jadevectordb.model.errors import JadeError
from jadevectordb.settings.sources import load


def nothing(services: Any, request: Request) -> Response:
    return reply({})


def route(method: str, template: str) -> Route:
    return Route(method, template, "health", nothing)


@pytest.mark.parametrize(
    "sent, known",
    [
        ("/api/v1/users", "/v1/users"),
        ("/api/databases", "/v1/databases"),
        ("/api/health", "/health"),
        ("/api/v2/info", "/v2/info"),
        ("/v1/v1/v1/databases/x", "/v1/databases/x"),
        ("/api/v1/v1/databases", "/v1/databases"),
        ("/v1/health", "/health"),
        ("/v1/status/", "/status"),
        ("/v1/databases/", "/v1/databases"),
        ("/apis", "/apis"),
        ("/", "/"),
    ],
)
def test_prefixes_of_old_clients(sent: str, known: str) -> None:
    assert rewritten(sent) == known


def test_exact_segments_win_over_parameters_and_are_decoded_once() -> None:
    router = Router(
        [
            route("GET", "/v1/d/{id}"),
            route("POST", "/v1/d/{id}"),
            route("GET", "/v1/d/all"),
            route("GET", "/v1/d/{id}/v/{vec}"),
        ]
    )
    found = router.find("GET", "/v1/d/all")
    assert isinstance(found, Found) and found.route.template == "/v1/d/all" and found.params == {}
    found = router.find("GET", "/v1/d/a%2Fb/v/c+d%2520@.%C3%BC")
    assert isinstance(found, Found) and found.params == {"id": "a/b", "vec": "c+d%20@.ü"}
    assert router.find("DELETE", "/v1/d/x") == OtherMethods(("GET", "POST"))
    assert router.find("GET", "/v1/d//v/x") is None and router.find("GET", "/v1/d/x/v") is None
    with pytest.raises(JadeError, match="UTF-8"):
        router.find("GET", "/v1/d/%ff")


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_a_float32_is_printed_in_the_fewest_digits_that_read_back(values: list[float]) -> None:
    rows = np.array(values, np.float32)
    for value, printed in zip(rows, shortest(rows).tolist(), strict=True):
        assert np.float32(printed) == value
        assert printed == float(str(value))


def test_times() -> None:
    assert iso(1_769_860_800_123) == "2026-01-31T12:00:00.123Z" and iso(None) is None
    for text in (
        "2026-01-31T12:00:00.123Z",
        "2026-01-31T13:00:00.123 01:00",
        "2026-01-31T12:00:00.123",
        1_769_860_800_123,
    ):
        assert parse_time_ms(text, "t") == 1_769_860_800_123
    with pytest.raises(JadeError, match="t must be a time"):
        parse_time_ms("yesterday", "t")


def test_both_spellings_of_a_field_must_agree() -> None:
    aliases = {"topK": "k", "top_k": "k"}
    request = Request("POST", "/", {}, b'{"topK": 3, "top_k": 3, "other": 1, "gone": null}')
    assert request.fields(aliases) == {"k": 3} and request.ignored_fields == ["other", "gone"]
    with pytest.raises(JadeError, match="Two spellings"):
        Request("POST", "/", {}, b'{"topK": 3, "top_k": 4}').fields(aliases)


@pytest.mark.parametrize(
    "peer, forwarded, client",
    [
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("9.9.9.9", "1.2.3.4", "9.9.9.9"),
    ],
)
def test_forwarded_addresses_are_believed_from_proxies_only(peer: str, forwarded: str, client: str) -> None:
    settings = load(None, {"JADEVECTORDB_AUTH_TRUSTED_PROXIES": "10.0.0.0/8"}, {}).settings
    request = Request("GET", "/", {"x-forwarded-for": forwarded} if forwarded else {}, client=peer)
    assert Perimeter(settings).client_of(request) == client


def test_open_mode_answers_loopback_names_only() -> None:
    perimeter = Perimeter(load(None, {}, {"auth.mode": "open-loopback"}).settings)
    for host, allowed in (
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("evil.example", False),
        ("[2001:db8::1]", False),
    ):
        refused = perimeter.refuse(Request("GET", "/v2/info", {"host": host}))
        assert (refused is None) is allowed, host
    own = {"host": "localhost:8080", "origin": "http://localhost:8080"}
    assert perimeter.refuse(Request("GET", "/v2/info", own)) is None
    assert perimeter.refuse(Request("GET", "/v2/info", {**own, "origin": "http://evil.example"})) is not None


def test_configured_origins_get_cors_headers() -> None:
    perimeter = Perimeter(load(None, {"JADEVECTORDB_CORS_ORIGINS": "https://app.example"}, {}).settings)
    asked = Request("OPTIONS", "/v2/info", {"origin": "https://app.example"})
    assert perimeter.preflight(asked).status == 200 and dict(perimeter.cors_headers(asked))["vary"] == "origin"
    other = Request("OPTIONS", "/v2/info", {"origin": "https://other.example"})
    assert perimeter.preflight(other).status == 403 and perimeter.cors_headers(other) == ()
