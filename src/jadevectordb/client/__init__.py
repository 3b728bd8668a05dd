"""The Python client of a server: numpy in, numpy out, over HTTP.

In reading order: `values` is what callers see; `database_calls` and `server_calls` make calls and read their answers; `core` decides;
`http1` reads answers; `connections` and `aio_connections` move bytes; `sync` and `aio` put it together; `bulk` is for many vectors.
`langchain` and `llama_index` are vector stores for those libraries. Nothing here loads the engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jadevectordb.client.aio import AsyncClient, AsyncDatabase
    from jadevectordb.client.bulk import BulkReport
    from jadevectordb.client.core import Retries, Timeouts
    from jadevectordb.client.sync import Client, Database
    from jadevectordb.client.values import DatabaseInfo, Hit, Hits, Item, Page, ServerInfo, Stats, WriteResult

_HOME = {
    **dict.fromkeys(("AsyncClient", "AsyncDatabase"), "aio"),
    "BulkReport": "bulk",
    **dict.fromkeys(("Retries", "Timeouts"), "core"),
    **dict.fromkeys(("Client", "Database"), "sync"),
    **dict.fromkeys(("DatabaseInfo", "Hit", "Hits", "Item", "Page", "ServerInfo", "Stats", "WriteResult"), "values"),
}

__all__ = [
    "AsyncClient",
    "AsyncDatabase",
    "BulkReport",
    "Client",
    "Database",
    "DatabaseInfo",
    "Hit",
    "Hits",
    "Item",
    "Page",
    "Retries",
    "ServerInfo",
    "Stats",
    "Timeouts",
    "WriteResult",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jadevectordb.client' has no attribute {name!r}")
    value = getattr(import_module(f"jadevectordb.client.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
