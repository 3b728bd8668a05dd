"""What this server is and how it was set."""

from __future__ import annotations

from typing import Any

import msgspec

from jadevectordb.gateway.rest.http import Request, Response, Route, reply
from jadevectordb.gateway.service.services import Services


class InfoAnswer(msgspec.Struct):
    version: str
    api: list[str]
    grpc_port: int | None
    auth_mode: str
    features: dict[str, bool]


class SettingAnswer(msgspec.Struct):
    name: str
    value: Any
    origin: str


class ConfigAnswer(msgspec.Struct):
    settings: list[SettingAnswer]


def _info(services: Services, request: Request) -> Response:
    features = {"embeddings": services.embeddings.is_available, "reranker": len(services.rerank.models) > 1}
    return reply(InfoAnswer(services.version, ["v1", "v2"], services.grpc_port, services.settings.auth.mode, features))


def _config(services: Services, request: Request) -> Response:
    return reply(ConfigAnswer([SettingAnswer(*row) for row in services.known.shown()]))


ROUTES = (
    Route("GET", "/v2/info", "info", _info, inline=True, summary="Version, protocols, features", answer=InfoAnswer),
    Route(
        "GET", "/v2/config", "config.read", _config, summary="Every setting and where it came from", answer=ConfigAnswer
    ),
)
