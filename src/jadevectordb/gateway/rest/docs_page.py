"""The API reference for people at /docs: a page of the console's own files that draws /openapi.json. Works offline."""

from __future__ import annotations

from jadevectordb.gateway.rest.console import page
from jadevectordb.gateway.rest.http import Request, Response, Route
from jadevectordb.gateway.service.services import Services


def _docs(services: Services, request: Request) -> Response:
    return page("docs.html", request)


ROUTES = (Route("GET", "/docs", "documentation", _docs, inline=True, summary="This API, for people"),)
