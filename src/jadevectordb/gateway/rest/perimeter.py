"""What is decided about a request before anything is looked up: where it really comes from, and whether a browser may send it.

In open mode there is no sign-in, so a web page on the same machine is the danger: only loopback names are answered and requests
from other web origins are refused. `X-Forwarded-For` is believed only from proxies that were configured.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from jadevectordb.gateway.rest.errors import problem
from jadevectordb.gateway.rest.http import JSON, RAW, Request, Response
from jadevectordb.settings.schema import Settings

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_RAW_PATHS = ("/v2/", "/api/v2/")  # where vectors may come as bare floats
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})
_EXPOSED = "x-request-id,x-query-id,x-jade-session,x-ignored-fields,retry-after"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Perimeter:
    def __init__(self, settings: Settings) -> None:
        self._is_open = settings.auth.is_open
        self._origins = frozenset(settings.cors.origins)
        self._proxies = _networks(settings.auth.trusted_proxies)
        self._scrapers = _networks(settings.auth.metrics_allow)

    def client_of(self, request: Request) -> str:
        """The address the request came from: the nearest one that is no trusted proxy."""
        if not self._proxies or not _within(request.client, self._proxies):
            return request.client
        named = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
        for address in reversed(named):
            if not _within(address, self._proxies):
                return address if _is_address(address) else request.client
        return request.client

    def may_scrape(self, client: str) -> bool:
        """Whether this address reads /metrics without a credential."""
        return bool(self._scrapers) and _within(client, self._scrapers)

    def refuse(self, request: Request) -> Response | None:
        """What is wrong with the request from outside, if anything."""
        if request.body and request.method in _WITH_BODY:
            media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            allowed = (JSON, RAW) if request.path.startswith(_RAW_PATHS) else (JSON,)
            if media and media not in allowed and not media.endswith("+json"):
                return problem(
                    415,
                    f"Send the header Content-Type: {JSON} (or {RAW} where vectors go raw), not {media!r:.80}; "
                    f"with curl: -H 'Content-Type: {JSON}'.",
                )
        if self._is_open and request.path != "/health":
            if _name_of(request.headers.get("host", "")) not in _LOOPBACK_NAMES:
                return problem(403, "In open mode the server answers only under a loopback name.")
            origin = request.headers.get("origin")
            if origin and origin not in self._origins and origin.partition("://")[2] != request.headers.get("host"):
                return problem(403, "In open mode, requests from other web origins are refused.")
        return None

    # Browsers of other origins

    def preflight(self, request: Request) -> Response:
        if request.headers.get("origin", "") not in self._origins:
            return problem(403, "This origin is not configured (cors.origins).")
        headers = (
            ("access-control-allow-methods", "GET,POST,PUT,PATCH,DELETE"),
            ("access-control-allow-headers", "authorization,content-type,x-api-key,x-jade-session,x-request-id"),
            ("access-control-max-age", "600"),
        )
        return Response(200, b"{}", headers=headers)

    def cors_headers(self, request: Request) -> tuple[tuple[str, str], ...]:
        origin = request.headers.get("origin")
        if origin is None or origin not in self._origins:
            return ()
        return (
            ("access-control-allow-origin", origin),
            ("vary", "origin"),
            ("access-control-expose-headers", _EXPOSED),
        )


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _networks(texts: Iterable[str]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _within(address: str, networks: tuple[_Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
