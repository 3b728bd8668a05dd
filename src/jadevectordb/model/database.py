"""What a database is told when it is created, or altered, as the catalog keeps it."""

from __future__ import annotations

import re

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.index_parameters import IndexParameters
from jadevectordb.model.limits import DIMENSION_MAX, NAME_LENGTH_MAX, SEAL_ROWS, SEAL_ROWS_MAX, SHARDS_MAX
from jadevectordb.model.metric import Metric
from jadevectordb.model.schema import Schema

FORMAT_VERSION = 1
CATALOG_NAME = "catalog.sqlite"  # in a folder of databases: which there are
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True):
    """index, its parameters, schema and (while it is empty) dimension can be altered, all else is fixed for its life.

    folder: where it lies inside the store. seal_rows: rows of a growing segment.
    """

    format: int = FORMAT_VERSION
    name: str
    folder: str
    dimension: int
    metric: Metric
    shards: int
    index: IndexKind
    index_parameters: IndexParameters = {}
    schema: Schema
    text_language: str = "english"
    seal_rows: int = SEAL_ROWS
    created_ms: int = 0


def same_config(one: DatabaseConfig, other: DatabaseConfig) -> bool:
    """Whether they are the same to the engine, the order of the declared fields included: text is counted by it."""
    return one == other and list(one.schema.fields) == list(other.schema.fields)


def check_config(config: DatabaseConfig) -> None:
    """Raises INVALID_ARGUMENT with what to do."""
    if not _NAME.fullmatch(config.name) or len(config.name) > NAME_LENGTH_MAX:
        raise _invalid(
            f"Database name {config.name!r} is not allowed: use 1 to {NAME_LENGTH_MAX} letters, digits, '_', '-' and '.', "
            "beginning with a letter, digit or '_'."
        )
    if not 1 <= config.dimension <= DIMENSION_MAX:
        raise _invalid(f"dimension must be 1 to {DIMENSION_MAX}, got {config.dimension}.")
    if not 1 <= config.shards <= SHARDS_MAX:
        raise _invalid(f"shards must be 1 to {SHARDS_MAX}, got {config.shards}.")
    if type(config.seal_rows) is not int or not 1 <= config.seal_rows <= SEAL_ROWS_MAX:
        raise _invalid(f"seal_rows must be an integer from 1 to {SEAL_ROWS_MAX}, got {config.seal_rows!r}.")


def metric_of(value: object) -> Metric:
    try:
        return Metric(str(value).lower())
    except ValueError:
        raise _invalid(f"Unknown metric {value!r}: use one of {', '.join(Metric)}.") from None


def index_kind_of(value: object) -> IndexKind:
    try:
        return IndexKind(str(value).upper())
    except ValueError:
        raise _invalid(f"Unknown index {value!r}: use one of {', '.join(IndexKind)}.") from None


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
