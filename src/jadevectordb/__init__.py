"""JadeVectorDB: a vector database that keeps its word.

import jadevectordb as jade

store = jade.open("data")
db = store.create_database("words", dimension=384, metric="cosine")
db.upsert(ids, vectors, metadata)
db.search(query, k=10, filter={"pos": "noun"}, recall=0.95)
"""

from importlib.metadata import version as _version

from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Group, Hit, Hits, Item, Page
from jadevectordb.gateway.embedded.stats import SegmentStats, Stats
from jadevectordb.gateway.embedded.store import Store
from jadevectordb.main import open
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Field
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import FieldType, Schema
from jadevectordb.query.writer import WriteResult

F = Field
__version__ = _version("jadevectordb")

__all__ = [
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
    "Schema",
    "SegmentStats",
    "Stats",
    "Store",
    "WriteResult",
    "__version__",
    "open",
]
