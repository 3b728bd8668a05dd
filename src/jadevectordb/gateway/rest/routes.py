"""Every route of the server, in one tuple."""

from __future__ import annotations

from importlib import import_module

from jadevectordb.gateway.rest.http import Route

_FILES = (
    "v1.system", "v1.auth", "v1.users", "v1.keys", "v1.security", "v1.databases", "v1.vectors", "v1.search", "v1.hybrid", "v1.rerank",
    "v1.bm25", "v1.indexes", "v1.embeddings", "v1.analytics", "v1.lifecycle", "v1.alerts", "v1.performance", "v1.cluster",
    "v2.info", "v2.databases", "v2.vectors", "v2.search", "v2.conflicts", "v2.observe", "console", "docs_page", "openapi",
)  # fmt: skip


def all_routes() -> tuple[Route, ...]:
    routes: list[Route] = []
    for name in _FILES:
        routes += import_module(f"jadevectordb.gateway.rest.{name}").ROUTES
    return tuple(routes)
