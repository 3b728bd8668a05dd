# Made by proto/generate.sh: change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_EUCLIDEAN: _ClassVar[Metric]
    METRIC_DOT: _ClassVar[Metric]
    METRIC_HAMMING: _ClassVar[Metric]

class IndexKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_KIND_UNSPECIFIED: _ClassVar[IndexKind]
    INDEX_KIND_AUTO: _ClassVar[IndexKind]
    INDEX_KIND_FLAT: _ClassVar[IndexKind]
    INDEX_KIND_IVF: _ClassVar[IndexKind]
    INDEX_KIND_HNSW: _ClassVar[IndexKind]
    INDEX_KIND_LSH: _ClassVar[IndexKind]
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_EUCLIDEAN: Metric
METRIC_DOT: Metric
METRIC_HAMMING: Metric
INDEX_KIND_UNSPECIFIED: IndexKind
INDEX_KIND_AUTO: IndexKind
INDEX_KIND_FLAT: IndexKind
INDEX_KIND_IVF: IndexKind
INDEX_KIND_HNSW: IndexKind
INDEX_KIND_LSH: IndexKind

class Vector(_message.Message):
    __slots__ = ("packed", "values")
    PACKED_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, packed: _Optional[bytes] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("metadata", "vector", "version", "vector_as_values")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_AS_VALUES_FIELD_NUMBER: _ClassVar[int]
    metadata: bool
    vector: bool
    version: bool
    vector_as_values: bool
    def __init__(self, metadata: _Optional[bool] = ..., vector: _Optional[bool] = ..., version: _Optional[bool] = ..., vector_as_values: _Optional[bool] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("id", "vector", "metadata_json", "if_version")
    ID_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    id: str
    vector: Vector
    metadata_json: bytes
    if_version: int
    def __init__(self, id: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., metadata_json: _Optional[bytes] = ..., if_version: _Optional[int] = ...) -> None: ...

class PointColumns(_message.Message):
    __slots__ = ("ids", "vectors", "metadata_json", "if_version")
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    vectors: Vector
    metadata_json: _containers.RepeatedScalarFieldContainer[bytes]
    if_version: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., vectors: _Optional[_Union[Vector, _Mapping]] = ..., metadata_json: _Optional[_Iterable[bytes]] = ..., if_version: _Optional[_Iterable[int]] = ...) -> None: ...

class StoredVector(_message.Message):
    __slots__ = ("id", "version", "metadata_json", "vector")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: int
    metadata_json: bytes
    vector: Vector
    def __init__(self, id: _Optional[str] = ..., version: _Optional[int] = ..., metadata_json: _Optional[bytes] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "metadata_json", "vector", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    metadata_json: bytes
    vector: Vector
    version: int
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., metadata_json: _Optional[bytes] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class WriteReceipt(_message.Message):
    __slots__ = ("count", "session", "version", "duplicate")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    count: int
    session: str
    version: int
    duplicate: bool
    def __init__(self, count: _Optional[int] = ..., session: _Optional[str] = ..., version: _Optional[int] = ..., duplicate: _Optional[bool] = ...) -> None: ...
