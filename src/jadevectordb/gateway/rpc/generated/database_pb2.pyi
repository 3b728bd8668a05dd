# Made by proto/generate.sh: change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg"
import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from jadevectordb.gateway.rpc.generated import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Database(_message.Message):
    __slots__ = ("id", "name", "description", "dimension", "metric", "index", "shards", "schema_json", "strict", "text_language", "owner", "created_at", "updated_at", "vectors")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    TEXT_LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    description: str
    dimension: int
    metric: _types_pb2.Metric
    index: _types_pb2.IndexKind
    shards: int
    schema_json: bytes
    strict: bool
    text_language: str
    owner: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    vectors: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., dimension: _Optional[int] = ..., metric: _Optional[_Union[_types_pb2.Metric, str]] = ..., index: _Optional[_Union[_types_pb2.IndexKind, str]] = ..., shards: _Optional[int] = ..., schema_json: _Optional[bytes] = ..., strict: _Optional[bool] = ..., text_language: _Optional[str] = ..., owner: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vectors: _Optional[int] = ...) -> None: ...

class CreateDatabaseRequest(_message.Message):
    __slots__ = ("name", "dimension", "metric", "index", "shards", "schema_json", "strict", "text_language", "description", "exist_ok")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    TEXT_LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    metric: _types_pb2.Metric
    index: _types_pb2.IndexKind
    shards: int
    schema_json: bytes
    strict: bool
    text_language: str
    description: str
    exist_ok: bool
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., metric: _Optional[_Union[_types_pb2.Metric, str]] = ..., index: _Optional[_Union[_types_pb2.IndexKind, str]] = ..., shards: _Optional[int] = ..., schema_json: _Optional[bytes] = ..., strict: _Optional[bool] = ..., text_language: _Optional[str] = ..., description: _Optional[str] = ..., exist_ok: _Optional[bool] = ...) -> None: ...

class CreateDatabaseResponse(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: Database
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ...) -> None: ...

class ListDatabasesRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListDatabasesResponse(_message.Message):
    __slots__ = ("databases",)
    DATABASES_FIELD_NUMBER: _ClassVar[int]
    databases: _containers.RepeatedCompositeFieldContainer[Database]
    def __init__(self, databases: _Optional[_Iterable[_Union[Database, _Mapping]]] = ...) -> None: ...

class GetDatabaseRequest(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class GetDatabaseResponse(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: Database
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ...) -> None: ...

class AlterDatabaseRequest(_message.Message):
    __slots__ = ("database", "name", "description", "index", "schema_json")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    database: str
    name: str
    description: str
    index: _types_pb2.IndexKind
    schema_json: bytes
    def __init__(self, database: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., index: _Optional[_Union[_types_pb2.IndexKind, str]] = ..., schema_json: _Optional[bytes] = ...) -> None: ...

class AlterDatabaseResponse(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: Database
    def __init__(self, database: _Optional[_Union[Database, _Mapping]] = ...) -> None: ...

class DeleteDatabaseRequest(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class DeleteDatabaseResponse(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetDatabaseStatsRequest(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class GetDatabaseStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: DatabaseStats
    def __init__(self, stats: _Optional[_Union[DatabaseStats, _Mapping]] = ...) -> None: ...

class DatabaseStats(_message.Message):
    __slots__ = ("rows", "indexed_rows", "dead_rows", "memory_bytes", "disk_bytes", "log_bytes", "watermarks", "segments", "trouble")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    WATERMARKS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    indexed_rows: int
    dead_rows: int
    memory_bytes: int
    disk_bytes: int
    log_bytes: int
    watermarks: _containers.RepeatedScalarFieldContainer[int]
    segments: _containers.RepeatedCompositeFieldContainer[SegmentStats]
    trouble: str
    def __init__(self, rows: _Optional[int] = ..., indexed_rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., log_bytes: _Optional[int] = ..., watermarks: _Optional[_Iterable[int]] = ..., segments: _Optional[_Iterable[_Union[SegmentStats, _Mapping]]] = ..., trouble: _Optional[str] = ...) -> None: ...

class SegmentStats(_message.Message):
    __slots__ = ("shard", "name", "index", "rows", "live", "memory_bytes", "disk_bytes")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    shard: int
    name: str
    index: str
    rows: int
    live: int
    memory_bytes: int
    disk_bytes: int
    def __init__(self, shard: _Optional[int] = ..., name: _Optional[str] = ..., index: _Optional[str] = ..., rows: _Optional[int] = ..., live: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class WaitIndexedRequest(_message.Message):
    __slots__ = ("database", "timeout_s")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    database: str
    timeout_s: float
    def __init__(self, database: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class WaitIndexedResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompactDatabaseRequest(_message.Message):
    __slots__ = ("database", "timeout_s")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    database: str
    timeout_s: float
    def __init__(self, database: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class CompactDatabaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
