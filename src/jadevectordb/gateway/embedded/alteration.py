"""What altering a database means before anything is touched: the configuration that is wanted, and whether it can be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jadevectordb.gateway.embedded.opening import Opening
from jadevectordb.index.text import TextConfig
from jadevectordb.model.database import DatabaseConfig, check_config, index_kind_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_parameters import parse_index_parameters
from jadevectordb.model.limits import ALTER_WAIT_S_MAX
from jadevectordb.model.schema import Schema, parse_schema
from jadevectordb.query.schema_check import check_stored, narrowed
from jadevectordb.query.write_checks import invalid
from jadevectordb.shard.view import DatabaseView


def altered(
    config: DatabaseConfig,
    *,
    index: str | None,
    index_parameters: Mapping[str, Any] | None,
    schema: Schema | Mapping[str, Any] | None,
    strict: bool | None,
    dimension: int | None,
) -> DatabaseConfig:
    """The configuration with what is not None in place of what was. Raises INVALID_ARGUMENT."""
    kind = config.index if index is None else index_kind_of(index)
    parameters = config.index_parameters if kind is config.index else {}
    if index_parameters is not None:
        parameters = parse_index_parameters(kind, index_parameters)
    fields = config.schema
    if schema is not None:
        fields = parse_schema(schema, strict=config.schema.strict)
    if strict is not None:
        fields = Schema(fields.fields, bool(strict))
    if dimension is not None and type(dimension) is not int:
        raise invalid(f"dimension must be an integer, got {dimension!r:.80}.")
    wanted = msgspec.structs.replace(
        config,
        index=kind,
        index_parameters=parameters,
        schema=fields,
        dimension=config.dimension if dimension is None else dimension,
    )
    check_config(wanted)
    TextConfig(fields.texts or ("any",), config.text_language)  # raises for fields that cannot be searched
    return wanted


def check_before(opening: Opening, wanted: DatabaseConfig) -> DatabaseView | None:
    """Look for what stands against the change while others write; the view that was looked at, None where none had to be.

    Raises SCHEMA_VIOLATION, CONFLICT.
    """
    view = opening.view
    _check_empty(view, opening.config, wanted)
    demanded = narrowed(opening.config.schema, wanted.schema)
    if demanded is None:
        return None
    check_stored(view, demanded, None)
    return view


def prepare(opening: Opening, wanted: DatabaseConfig, checked: DatabaseView | None) -> None:
    """Look again and bring the files into a state that either configuration can open. Nobody else writes.

    Raises as `check_before` does, and TIMEOUT or what keeps rows from being written.
    """
    config, database = opening.config, opening.database
    _check_empty(database.view, config, wanted)
    demanded = narrowed(config.schema, wanted.schema)
    if demanded is not None:
        check_stored(database.view, demanded, checked)
    if wanted.dimension != config.dimension:
        # Dead rows lie in folders still: all must go before rows of another width are read.
        opening.writer.seal(compact=True)
        database.maintenance.wait_settled(ALTER_WAIT_S_MAX)
        left = sum(len(replica.checkpoint_parts) for replica in database.replicas)
        if left:
            raise JadeError(
                ErrorCode.CONFLICT, f"{left} segments of deleted vectors of {config.name!r} are still there: try again."
            )
    elif wanted.schema != config.schema:
        # What a filter in the log meant follows from the schema: none may be replayed under another one.
        opening.writer.seal(compact=False)
        database.maintenance.wait_written(ALTER_WAIT_S_MAX)


def _check_empty(view: DatabaseView, config: DatabaseConfig, wanted: DatabaseConfig) -> None:
    if wanted.dimension != config.dimension and view.live:
        raise JadeError(
            ErrorCode.CONFLICT,
            f"Database {config.name!r} holds {view.live} vectors of dimension {config.dimension}: its dimension can only be "
            "changed while it is empty. Delete them first, or create another database.",
            details={"vectors": view.live, "dimension": config.dimension},
        )
