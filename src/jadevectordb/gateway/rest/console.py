"""The web console's files over HTTP: at /console, from the package, under the strictest policy a browser knows.

The files are read once and served from memory. A request names one of them or gets a 404: no path of a request ever
reaches the file system. Files are small and revalidated by ETag at each visit, so a newer server is seen at once.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from jadevectordb.gateway.rest.http import Request, Response, Route
from jadevectordb.gateway.service.services import Services
from jadevectordb.model.errors import ErrorCode, JadeError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Scripts, styles and calls only from and to this server, nothing inline; strings never become markup (trusted types);
# nobody may frame the page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-cache"),
)


class _File:
    __slots__ = ("body", "content_type", "etag")

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type
        self.etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'


@cache
def _files() -> dict[str, _File]:
    """Every file of the console by its path below /console."""
    found: dict[str, _File] = {}
    _collect(resources.files("jadevectordb.gateway.console"), "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, _File]) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            _collect(child, f"{prefix}{child.name}/", found)
            continue
        content_type = _TYPES.get("." + child.name.rpartition(".")[2])
        if content_type is not None:
            found[prefix + child.name] = _File(child.read_bytes(), content_type)


def page(name: str, request: Request) -> Response:
    """The file of this name, or 304 when the browser has it. Raises NOT_FOUND."""
    file = _files().get(name)
    if file is None:
        raise JadeError(ErrorCode.NOT_FOUND, "Not found: the console has no such file; it begins at /console.")
    headers = (*_HEADERS, ("etag", file.etag))
    held = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in held or "*" in held:
        return Response(304, b"", file.content_type, headers)
    return Response(200, file.body, file.content_type, headers)


def _index(services: Services, request: Request) -> Response:
    return page("index.html", request)


def _file(services: Services, request: Request) -> Response:
    return page(request.params["file"], request)


def _page_file(services: Services, request: Request) -> Response:
    return page(f"pages/{request.params['file']}", request)


ROUTES = (
    Route("GET", "/console", "documentation", _index, inline=True, summary="The web console"),
    Route("GET", "/console/{file}", "documentation", _file, inline=True, summary="A file of the web console"),
    Route(
        "GET", "/console/pages/{file}", "documentation", _page_file, inline=True, summary="A page of the web console"
    ),
)
