# Made by proto/generate.sh: change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg"
import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from jadevectordb.gateway.rpc.generated import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_STARTING: _ClassVar[NodeState]
    NODE_STATE_HEALTHY: _ClassVar[NodeState]
    NODE_STATE_DEGRADED: _ClassVar[NodeState]
    NODE_STATE_STOPPING: _ClassVar[NodeState]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_STARTING: NodeState
NODE_STATE_HEALTHY: NodeState
NODE_STATE_DEGRADED: NodeState
NODE_STATE_STOPPING: NodeState

class ShardRef(_message.Message):
    __slots__ = ("database", "shard")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    database: str
    shard: int
    def __init__(self, database: _Optional[str] = ..., shard: _Optional[int] = ...) -> None: ...

class SearchShardRequest(_message.Message):
    __slots__ = ("shard", "vector", "k", "filter_json", "recall", "exact", "threshold", "include", "watermark_min")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_MIN_FIELD_NUMBER: _ClassVar[int]
    shard: ShardRef
    vector: _types_pb2.Vector
    k: int
    filter_json: bytes
    recall: float
    exact: bool
    threshold: float
    include: _types_pb2.Selection
    watermark_min: int
    def __init__(self, shard: _Optional[_Union[ShardRef, _Mapping]] = ..., vector: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., k: _Optional[int] = ..., filter_json: _Optional[bytes] = ..., recall: _Optional[float] = ..., exact: _Optional[bool] = ..., threshold: _Optional[float] = ..., include: _Optional[_Union[_types_pb2.Selection, _Mapping]] = ..., watermark_min: _Optional[int] = ...) -> None: ...

class SearchShardResponse(_message.Message):
    __slots__ = ("hits", "watermark")
    HITS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_types_pb2.Hit]
    watermark: int
    def __init__(self, hits: _Optional[_Iterable[_Union[_types_pb2.Hit, _Mapping]]] = ..., watermark: _Optional[int] = ...) -> None: ...

class WriteBatchRequest(_message.Message):
    __slots__ = ("shard", "columns", "request_id")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    shard: ShardRef
    columns: _types_pb2.PointColumns
    request_id: str
    def __init__(self, shard: _Optional[_Union[ShardRef, _Mapping]] = ..., columns: _Optional[_Union[_types_pb2.PointColumns, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class WriteBatchResponse(_message.Message):
    __slots__ = ("receipt", "sequence")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    receipt: _types_pb2.WriteReceipt
    sequence: int
    def __init__(self, receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("shard", "ids", "if_version", "request_id")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    shard: ShardRef
    ids: _containers.RepeatedScalarFieldContainer[str]
    if_version: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    def __init__(self, shard: _Optional[_Union[ShardRef, _Mapping]] = ..., ids: _Optional[_Iterable[str]] = ..., if_version: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("receipt", "sequence")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    receipt: _types_pb2.WriteReceipt
    sequence: int
    def __init__(self, receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("state", "troubles", "version", "started_at", "calls_in_flight")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    state: NodeState
    troubles: _containers.RepeatedScalarFieldContainer[str]
    version: str
    started_at: _timestamp_pb2.Timestamp
    calls_in_flight: int
    def __init__(self, state: _Optional[_Union[NodeState, str]] = ..., troubles: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., calls_in_flight: _Optional[int] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("databases", "shards", "rows", "indexed_rows", "dead_rows", "memory_bytes", "disk_bytes", "log_bytes", "calls", "calls_failed")
    DATABASES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FAILED_FIELD_NUMBER: _ClassVar[int]
    databases: int
    shards: int
    rows: int
    indexed_rows: int
    dead_rows: int
    memory_bytes: int
    disk_bytes: int
    log_bytes: int
    calls: int
    calls_failed: int
    def __init__(self, databases: _Optional[int] = ..., shards: _Optional[int] = ..., rows: _Optional[int] = ..., indexed_rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., log_bytes: _Optional[int] = ..., calls: _Optional[int] = ..., calls_failed: _Optional[int] = ...) -> None: ...

class ShardInfoRequest(_message.Message):
    __slots__ = ("database",)
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    database: str
    def __init__(self, database: _Optional[str] = ...) -> None: ...

class ShardInfoResponse(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardState]
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardState, _Mapping]]] = ...) -> None: ...

class ShardState(_message.Message):
    __slots__ = ("shard", "rows", "dead_rows", "segments", "watermark", "log_end", "memory_bytes", "disk_bytes")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LOG_END_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    shard: int
    rows: int
    dead_rows: int
    segments: int
    watermark: int
    log_end: int
    memory_bytes: int
    disk_bytes: int
    def __init__(self, shard: _Optional[int] = ..., rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., segments: _Optional[int] = ..., watermark: _Optional[int] = ..., log_end: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class AssignShardRequest(_message.Message):
    __slots__ = ("shard", "map_version", "term", "primary", "sources")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    shard: ShardRef
    map_version: int
    term: int
    primary: bool
    sources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shard: _Optional[_Union[ShardRef, _Mapping]] = ..., map_version: _Optional[int] = ..., term: _Optional[int] = ..., primary: _Optional[bool] = ..., sources: _Optional[_Iterable[str]] = ...) -> None: ...

class AssignShardResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveShardRequest(_message.Message):
    __slots__ = ("shard", "map_version", "term")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    shard: ShardRef
    map_version: int
    term: int
    def __init__(self, shard: _Optional[_Union[ShardRef, _Mapping]] = ..., map_version: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class RemoveShardResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
