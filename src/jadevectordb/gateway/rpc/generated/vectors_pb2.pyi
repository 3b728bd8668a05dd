# Made by proto/generate.sh: change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg"
from jadevectordb.gateway.rpc.generated import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpsertVectorsRequest(_message.Message):
    __slots__ = ("database", "points", "columns", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: str
    points: _containers.RepeatedCompositeFieldContainer[_types_pb2.Point]
    columns: _types_pb2.PointColumns
    request_id: str
    def __init__(self, database: _Optional[str] = ..., points: _Optional[_Iterable[_Union[_types_pb2.Point, _Mapping]]] = ..., columns: _Optional[_Union[_types_pb2.PointColumns, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpsertVectorsResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: _types_pb2.WriteReceipt
    def __init__(self, receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ...) -> None: ...

class BulkUpsertRequest(_message.Message):
    __slots__ = ("database", "points", "columns", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: str
    points: _containers.RepeatedCompositeFieldContainer[_types_pb2.Point]
    columns: _types_pb2.PointColumns
    request_id: str
    def __init__(self, database: _Optional[str] = ..., points: _Optional[_Iterable[_Union[_types_pb2.Point, _Mapping]]] = ..., columns: _Optional[_Union[_types_pb2.PointColumns, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class BulkUpsertResponse(_message.Message):
    __slots__ = ("message", "receipt", "count_total")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    COUNT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    message: int
    receipt: _types_pb2.WriteReceipt
    count_total: int
    def __init__(self, message: _Optional[int] = ..., receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ..., count_total: _Optional[int] = ...) -> None: ...

class UpdateMetadataRequest(_message.Message):
    __slots__ = ("database", "ids", "metadata_json", "replace", "if_version", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    metadata_json: _containers.RepeatedScalarFieldContainer[bytes]
    replace: bool
    if_version: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    def __init__(self, database: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., metadata_json: _Optional[_Iterable[bytes]] = ..., replace: _Optional[bool] = ..., if_version: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateMetadataResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: _types_pb2.WriteReceipt
    def __init__(self, receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ...) -> None: ...

class DeleteVectorsRequest(_message.Message):
    __slots__ = ("database", "ids", "filter_json", "if_version", "request_id")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    database: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    filter_json: bytes
    if_version: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    def __init__(self, database: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., filter_json: _Optional[bytes] = ..., if_version: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteVectorsResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: _types_pb2.WriteReceipt
    def __init__(self, receipt: _Optional[_Union[_types_pb2.WriteReceipt, _Mapping]] = ...) -> None: ...

class GetVectorsRequest(_message.Message):
    __slots__ = ("database", "ids", "include", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    include: _types_pb2.Selection
    session: str
    def __init__(self, database: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., include: _Optional[_Union[_types_pb2.Selection, _Mapping]] = ..., session: _Optional[str] = ...) -> None: ...

class GetVectorsResponse(_message.Message):
    __slots__ = ("vectors", "missing", "session")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[_types_pb2.StoredVector]
    missing: _containers.RepeatedScalarFieldContainer[str]
    session: str
    def __init__(self, vectors: _Optional[_Iterable[_Union[_types_pb2.StoredVector, _Mapping]]] = ..., missing: _Optional[_Iterable[str]] = ..., session: _Optional[str] = ...) -> None: ...

class VectorsExistRequest(_message.Message):
    __slots__ = ("database", "ids", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    session: str
    def __init__(self, database: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., session: _Optional[str] = ...) -> None: ...

class VectorsExistResponse(_message.Message):
    __slots__ = ("exists", "session")
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    exists: _containers.RepeatedScalarFieldContainer[bool]
    session: str
    def __init__(self, exists: _Optional[_Iterable[bool]] = ..., session: _Optional[str] = ...) -> None: ...

class CountVectorsRequest(_message.Message):
    __slots__ = ("database", "filter_json", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    filter_json: bytes
    session: str
    def __init__(self, database: _Optional[str] = ..., filter_json: _Optional[bytes] = ..., session: _Optional[str] = ...) -> None: ...

class CountVectorsResponse(_message.Message):
    __slots__ = ("count", "session")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    count: int
    session: str
    def __init__(self, count: _Optional[int] = ..., session: _Optional[str] = ...) -> None: ...

class ScrollVectorsRequest(_message.Message):
    __slots__ = ("database", "filter_json", "include", "page_size", "limit", "cursor", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    filter_json: bytes
    include: _types_pb2.Selection
    page_size: int
    limit: int
    cursor: str
    session: str
    def __init__(self, database: _Optional[str] = ..., filter_json: _Optional[bytes] = ..., include: _Optional[_Union[_types_pb2.Selection, _Mapping]] = ..., page_size: _Optional[int] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class ScrollVectorsResponse(_message.Message):
    __slots__ = ("vectors", "cursor", "session")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[_types_pb2.StoredVector]
    cursor: str
    session: str
    def __init__(self, vectors: _Optional[_Iterable[_Union[_types_pb2.StoredVector, _Mapping]]] = ..., cursor: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...
