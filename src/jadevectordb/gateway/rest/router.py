"""Finding the route of a request: one walk down a tree of path segments, after the rewriting that old clients need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from jadevectordb.gateway.rest.http import Route, invalid
from jadevectordb.model.limits import PATHS_REMEMBERED_MAX, TARGET_REMEMBERED_MAX

_API = "/api"
_ROOT_PATHS = frozenset({"/health", "/health/db", "/status", "/metrics"})
_VERSIONED = ("/v1/", "/v2/")


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)  # by method, with parameter names


@dataclass(frozen=True, slots=True)
class Found:
    route: Route
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class OtherMethods:
    """The path exists, but not for this method. allowed: those there are, in order."""

    allowed: tuple[str, ...]


class Router:
    """`find(method, path)` is for any thread; what it returns is shared and not to be changed."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)
        # Clients ask for the same few paths over and over
        self._remembered = lru_cache(maxsize=PATHS_REMEMBERED_MAX)(self._find)

    def find(self, method: str, path: str) -> Found | OtherMethods | None:
        """path: as it came over the wire, still percent-encoded. None: there is no such path."""
        return self._remembered(method, path) if len(path) <= TARGET_REMEMBERED_MAX else self._find(method, path)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        for segment in route.template.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        assert route.method not in node.routes, f"{route.method} {route.template} is there twice"
        node.routes[route.method] = (route, tuple(names))

    def _find(self, method: str, path: str) -> Found | OtherMethods | None:
        segments = rewritten(path).split("/")[1:]
        found = _walk(self._root, segments, 0, [])
        if found is None:
            return None
        node, values = found
        hit = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if hit is None:
            return OtherMethods(tuple(sorted(node.routes)))
        route, names = hit
        return Found(route, dict(zip(names, map(_decoded, values), strict=True)))


def _walk(node: _Node, segments: list[str], at: int, values: list[str]) -> tuple[_Node, list[str]] | None:
    if at == len(segments):
        return (node, values) if node.routes else None
    segment = segments[at]
    child = node.children.get(segment)
    if child is not None:
        found = _walk(child, segments, at + 1, values)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        return _walk(node.parameter, segments, at + 1, [*values, segment])
    return None


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid("The path is not valid UTF-8 after percent-decoding.") from None


def rewritten(path: str) -> str:
    """The path under which the route is known, for the prefixes that clients are known to send.

    `/api` in front is dropped, a repeated `/v1` too; what then has no version belongs to /v1, except the paths at the root.
    """
    if len(path) > 1 and path.endswith("/"):
        path = path.rstrip("/") or "/"
    if path.startswith(_API) and path[len(_API) : len(_API) + 1] in ("/", ""):
        path = path[len(_API) :] or "/"
        if not path.startswith(_VERSIONED) and path not in _ROOT_PATHS:
            path = "/v1" + path
    while path.startswith("/v1/v1/"):
        path = path[3:]
    if path.startswith("/v1/") and path[3:] in _ROOT_PATHS:
        path = path[3:]
    return path
