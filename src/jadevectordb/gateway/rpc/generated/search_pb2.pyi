# Made by proto/generate.sh: change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: disable-error-code="type-arg"
from jadevectordb.gateway.rpc.generated import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fusion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUSION_UNSPECIFIED: _ClassVar[Fusion]
    FUSION_RRF: _ClassVar[Fusion]
    FUSION_WEIGHTED: _ClassVar[Fusion]
FUSION_UNSPECIFIED: Fusion
FUSION_RRF: Fusion
FUSION_WEIGHTED: Fusion

class SearchRequest(_message.Message):
    __slots__ = ("database", "vector", "id", "text", "k", "filter_json", "recall", "threshold", "max_distance", "fusion", "alpha", "exact", "nprobe", "candidates", "ef_search", "group_by", "group_size", "include", "explain", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    vector: _types_pb2.Vector
    id: str
    text: str
    k: int
    filter_json: bytes
    recall: float
    threshold: float
    max_distance: float
    fusion: Fusion
    alpha: float
    exact: bool
    nprobe: int
    candidates: int
    ef_search: int
    group_by: str
    group_size: int
    include: _types_pb2.Selection
    explain: bool
    session: str
    def __init__(self, database: _Optional[str] = ..., vector: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., id: _Optional[str] = ..., text: _Optional[str] = ..., k: _Optional[int] = ..., filter_json: _Optional[bytes] = ..., recall: _Optional[float] = ..., threshold: _Optional[float] = ..., max_distance: _Optional[float] = ..., fusion: _Optional[_Union[Fusion, str]] = ..., alpha: _Optional[float] = ..., exact: _Optional[bool] = ..., nprobe: _Optional[int] = ..., candidates: _Optional[int] = ..., ef_search: _Optional[int] = ..., group_by: _Optional[str] = ..., group_size: _Optional[int] = ..., include: _Optional[_Union[_types_pb2.Selection, _Mapping]] = ..., explain: _Optional[bool] = ..., session: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "explanation_json", "session")
    HITS_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_JSON_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_types_pb2.Hit]
    explanation_json: bytes
    session: str
    def __init__(self, hits: _Optional[_Iterable[_Union[_types_pb2.Hit, _Mapping]]] = ..., explanation_json: _Optional[bytes] = ..., session: _Optional[str] = ...) -> None: ...

class SearchBatchRequest(_message.Message):
    __slots__ = ("database", "vectors", "k", "filter_json", "recall", "include", "session")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    database: str
    vectors: _types_pb2.Vector
    k: int
    filter_json: bytes
    recall: float
    include: _types_pb2.Selection
    session: str
    def __init__(self, database: _Optional[str] = ..., vectors: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., k: _Optional[int] = ..., filter_json: _Optional[bytes] = ..., recall: _Optional[float] = ..., include: _Optional[_Union[_types_pb2.Selection, _Mapping]] = ..., session: _Optional[str] = ...) -> None: ...

class SearchBatchResponse(_message.Message):
    __slots__ = ("results", "session")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SearchBatchResult]
    session: str
    def __init__(self, results: _Optional[_Iterable[_Union[SearchBatchResult, _Mapping]]] = ..., session: _Optional[str] = ...) -> None: ...

class SearchBatchResult(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_types_pb2.Hit]
    def __init__(self, hits: _Optional[_Iterable[_Union[_types_pb2.Hit, _Mapping]]] = ...) -> None: ...
