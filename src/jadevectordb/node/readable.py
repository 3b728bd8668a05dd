"""What reading a database takes: how it is configured and a view of its shards. Everything that can be searched is one of these.

`OpenDatabase` is the one that also writes; `Follower` keeps up with a folder that another process writes.
"""

from __future__ import annotations

from pathlib import Path

from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import Analyzer, TextConfig
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import JadeError
from jadevectordb.model.ids import ShardId
from jadevectordb.model.limits import SEAL_BYTES
from jadevectordb.shard.apply import ShardConfig
from jadevectordb.shard.view import DatabaseView


class ReadableDatabase:
    """view: replaced when the data changes, never edited. damage: found in the files; every later call reports it."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.config = config
        self.space = VectorSpace(config.metric, config.dimension)
        text_fields = config.schema.texts
        self.text = TextConfig(text_fields, config.text_language) if text_fields else None
        self.analyzer = None if self.text is None else Analyzer(self.text)
        seal_rows = max(1, min(config.seal_rows, SEAL_BYTES // self.space.row_bytes))
        self.shard_config = ShardConfig(self.space, config.schema, self.text, seal_rows)
        self.view = DatabaseView((), ())
        self.damage: JadeError | None = None


def shard_folder(directory: Path, shard: ShardId) -> Path:
    return directory / f"shard-{shard:04}"
