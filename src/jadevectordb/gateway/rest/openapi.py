"""The API description (OpenAPI 3.1), made from the routes and their types: it can't say anything else than the server does."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

import msgspec

from jadevectordb.gateway.access.operations import OPERATIONS, Right
from jadevectordb.gateway.rest.http import JSON, RAW, Request, Response, Route, encode
from jadevectordb.gateway.service.services import Services

_RAW_BODIES = frozenset({"/v2/databases/{db}/search", "/v2/databases/{db}/search/batch", "/v2/databases/{db}/vectors"})
_RAW_ANSWERS = _RAW_BODIES | {"/v2/databases/{db}/vectors/get", "/v2/databases/{db}/vectors/scroll"}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_ERROR = {
    "type": "object",
    "required": ["error", "message", "status", "retryable", "details"],
    "properties": {
        "error": {"type": "string", "description": "Kind of error, follows from the status"},
        "code": {"type": "string", "description": "Precisely what went wrong"},
        "message": {"type": "string", "description": "What was wrong and what to do"},
        "status": {"type": "integer"},
        "retryable": {"type": "boolean"},
        "retry_after": {"type": "integer", "description": "Seconds"},
        "details": {"type": "object"},
    },
}


def describe(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The whole document."""
    types = [one for route in routes for one in (route.request, route.answer) if one is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    found = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if _is_page(route):
            continue
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "JadeVectorDB",
            "version": version("jadevectordb"),
            "description": "v2 is the native API. v1 and the routes without a version are for existing clients.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Session token or API key"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}, {"basic": []}],
    }


def _is_page(route: Route) -> bool:
    return route.template.startswith(("/console", "/docs", "/openapi"))


def _operation(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    names = [part[1:-1] for part in route.template.split("/") if part.startswith("{")]
    operation = OPERATIONS[route.operation]
    described: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{''.join(c if c.isalnum() else '_' for c in route.template)}",
        "summary": route.summary or route.operation,
        "description": f"Needs: {operation.right}.",
        "tags": [_tag(route.template)],
        "responses": {
            str(route.success): {"description": "Done", "content": _answer_content(route, schemas)},
            "default": {
                "description": "Refused or failed",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if operation.right is Right.NONE:
        described["security"] = []
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    if route.method in ("POST", "PUT", "PATCH"):
        described["requestBody"] = {"required": False, "content": _body_content(route, schemas)}
    return described


def _body_content(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    schema = schemas[id(route.request)] if route.request is not None else {"type": "object"}
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if route.template in _RAW_BODIES:
        content[RAW] = _BYTES
    return content


def _answer_content(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    if route.template == "/metrics":
        return {"text/plain": {"schema": {"type": "string"}}}
    schema = schemas[id(route.answer)] if route.answer is not None else {"type": "object"}
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if route.template in _RAW_ANSWERS:
        content[RAW] = _BYTES
    if route.template.endswith("/analytics/export"):
        content["text/csv"] = {"schema": {"type": "string"}}
    return content


def _tag(template: str) -> str:
    parts = template.split("/")
    api = parts[1] if parts[1] in ("v1", "v2") else "server"
    words = [part for part in parts[2:] if not part.startswith("{")]
    return f"{api} {words[1] if len(words) > 1 and words[0] == 'databases' else (words[0] if words else parts[1])}"


@lru_cache(maxsize=1)
def _document() -> bytes:
    from jadevectordb.gateway.rest.routes import all_routes

    return encode(describe(all_routes()))


def _get(services: Services, request: Request) -> Response:
    return Response(200, _document())


ROUTES = (Route("GET", "/openapi.json", "documentation", _get, summary="This description"),)
