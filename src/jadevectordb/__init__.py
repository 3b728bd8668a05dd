"""JadeVectorDB: a vector database that keeps its word.

    import jadevectordb as jade

    store = jade.open("data")
    db = store.create_database("words", dimension=384, metric="cosine")
    db.upsert(ids, vectors, metadata)
    db.search(query, k=10, filter={"pos": "noun"}, recall=0.95)

    client = jade.Client("http://127.0.0.1:8080")  # the same, of a server
    client.database("words").search(query, k=10)

Names are loaded when first used: asking for the version, or the command's help, does not load the engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jadevectordb.client.aio import AsyncClient
    from jadevectordb.client.core import Retries, Timeouts
    from jadevectordb.client.sync import Client
    from jadevectordb.gateway.embedded.database import Database
    from jadevectordb.gateway.embedded.hits import Group, Hit, Hits, Item, Page
    from jadevectordb.gateway.embedded.stats import SegmentStats, Stats
    from jadevectordb.gateway.embedded.store import Store
    from jadevectordb.main import open
    from jadevectordb.model.errors import ErrorCode, JadeError
    from jadevectordb.model.filters import Field
    from jadevectordb.model.filters import Field as F  # noqa: N817
    from jadevectordb.model.index_kind import IndexKind
    from jadevectordb.model.metric import Metric
    from jadevectordb.model.schema import FieldType, Schema
    from jadevectordb.query.writer import WriteResult

    __version__: str

__all__ = [
    "AsyncClient",
    "Client",
    "Database",
    "ErrorCode",
    "F",
    "Field",
    "FieldType",
    "Group",
    "Hit",
    "Hits",
    "IndexKind",
    "Item",
    "JadeError",
    "Metric",
    "Page",
    "Retries",
    "Schema",
    "SegmentStats",
    "Stats",
    "Store",
    "Timeouts",
    "WriteResult",
    "__version__",
    "open",
]

_HOME = {
    "AsyncClient": "client.aio",
    "Client": "client.sync",
    **dict.fromkeys(("Retries", "Timeouts"), "client.core"),
    "Database": "gateway.embedded.database",
    **dict.fromkeys(("Group", "Hit", "Hits", "Item", "Page"), "gateway.embedded.hits"),
    **dict.fromkeys(("SegmentStats", "Stats"), "gateway.embedded.stats"),
    "Store": "gateway.embedded.store",
    "open": "main",
    **dict.fromkeys(("ErrorCode", "JadeError"), "model.errors"),
    "Field": "model.filters",
    "IndexKind": "model.index_kind",
    "Metric": "model.metric",
    **dict.fromkeys(("FieldType", "Schema"), "model.schema"),
    "WriteResult": "query.writer",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("jadevectordb")
    elif name == "F":
        value = __getattr__("Field")
    elif name in _HOME:
        value = getattr(import_module(f"jadevectordb.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'jadevectordb' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
