"""Changing how a database of a cluster is configured while it is in use: its index, the index's parameters, its declared fields.

    look      whether all that is stored fits, by a strong read: what stands against it is found before anything is changed
    seal      where much is in memory only, so that a replica that is opened anew has little of its log to apply again
    write     the record of the database, by compare-and-set: the only step that counts. Gateways check what is written by
              it from then on, and each node opens its replicas anew (`node/agent.py`), some hundred milliseconds in which
              reads and writes wait for one of them
    look      once more, at what was written meanwhile by gateways that had not heard of it; what does not fit takes it back
    wait      until a replica of each shard answers by the new fields

A gateway that does not hear of the change for longer can still write what does not fit: then a value of another type lies in a
field that was declared. It is stored as it was sent; text is found in strings only, and filters compare what is there.

What log entries mean depends on which fields are dates (a filter that deletes), and replicas apply the same entry at different times:
so this can't change. A dimension would change under entries that are still to be applied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.cluster.mirror import ClusterMirror
from jadevectordb.model.database import DatabaseConfig, same_config
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ALTER_WAIT_S_MAX, PLACE_S_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.query.levels import ReadLevel
from jadevectordb.query.schema_check import narrowed
from jadevectordb.topology.placed import PlacedDatabase, decode_placed, encode_placed, placed_key
from jadevectordb.topology.sharding import shares_one_log

_APPLIED_AGAIN_ROWS_MAX = 5_000  # of each replica when it is opened anew: some ten milliseconds
_SEALED_S_MAX = 10.0  # longer is not waited for what only shortens the opening
_LOOK_S = 0.1
_ANY_WORD = ("a",)


def alter(
    database: ClusterDatabase,
    metadata: MetadataStore,
    mirror: ClusterMirror,
    clock: Clock,
    change: Callable[[DatabaseConfig], DatabaseConfig],
) -> None:
    """change: the configuration wanted, from the present one; it raises what is wrong with it.

    Raises SCHEMA_VIOLATION naming a vector that does not fit, CONFLICT, NOT_IMPLEMENTED, UNAVAILABLE: nothing was changed; TIMEOUT when
    it was changed, and the nodes are not through with it.
    """
    key = placed_key(database.placed.id)
    record = metadata.get(key)
    if record is None:
        raise JadeError(ErrorCode.UNKNOWN_DATABASE, f"Database {database.name!r} was dropped at this moment.")
    placed = decode_placed(record.value)
    old, wanted = placed.config, change(placed.config)
    if same_config(old, wanted):
        return
    _check_possible(old, wanted)
    if wanted.schema.texts and shares_one_log(placed.sharding):
        raise _not_yet("fields searched as text where vectors decide their shard")
    demanded = narrowed(old.schema, wanted.schema)
    if demanded is not None:
        database.check_schema(demanded, ALTER_WAIT_S_MAX)
    _seal(database, clock)
    altered = msgspec.structs.replace(placed, config=wanted)
    revision = metadata.compare_and_set(key, encode_placed(altered), record.revision)
    if revision is None:
        raise JadeError(
            ErrorCode.CONFLICT, f"Database {old.name!r} was changed by someone else at this moment: try again."
        )
    _await_known(mirror, altered)
    database.reconfigure(altered)
    if demanded is not None:
        try:
            database.check_schema(demanded, ALTER_WAIT_S_MAX)
        except JadeError as error:
            if error.code is ErrorCode.SCHEMA_VIOLATION:
                metadata.compare_and_set(key, record.value, revision)
                _await_known(mirror, placed)
                database.reconfigure(placed)
                raise
            raise _changed_all_the_same(database, error) from error
    if wanted.schema.texts != old.schema.texts and wanted.schema.texts:
        _await_counted(database, clock)


def _check_possible(old: DatabaseConfig, wanted: DatabaseConfig) -> None:
    if old.dimension != wanted.dimension:
        raise _not_yet("another dimension")
    if old.schema.dates != wanted.schema.dates:
        raise _not_yet("other fields that are dates")


def _seal(database: ClusterDatabase, clock: Clock) -> None:
    nothing = dict.fromkeys(range(database.config.shards), 0)
    if database.are_written(nothing, _APPLIED_AGAIN_ROWS_MAX):
        return
    sequences, pause = database.seal(compact=False), threading.Event()
    until_s = clock.monotonic_s() + _SEALED_S_MAX
    while not database.are_written(sequences, _APPLIED_AGAIN_ROWS_MAX) and clock.monotonic_s() < until_s:
        pause.wait(_LOOK_S)


def _await_known(mirror: ClusterMirror, altered: PlacedDatabase) -> None:
    """This node's handle has it, as the handles of the others are about to."""

    def is_known() -> bool:
        known = mirror.placed().get(altered.id)
        return known is None or same_config(known.config, altered.config)

    mirror.wait(is_known, PLACE_S_MAX)


def _await_counted(database: ClusterDatabase, clock: Clock) -> None:
    until_s = clock.monotonic_s() + PLACE_S_MAX
    while True:
        try:
            database.words.count(_ANY_WORD, database.wanted(str(ReadLevel.EVENTUAL), timeout=1.0))
        except JadeError as error:
            if not error.retryable or clock.monotonic_s() > until_s:
                raise _changed_all_the_same(database, error) from error
        else:
            return


def _changed_all_the_same(database: ClusterDatabase, error: JadeError) -> JadeError:
    return JadeError(
        ErrorCode.TIMEOUT,
        f"Database {database.name!r} is configured as wanted, but not all of its shards could be asked whether they are through with "
        f"it: {error.message}",
        details={**error.details, "changed": True},
    )


def _not_yet(what: str) -> JadeError:
    return JadeError(
        ErrorCode.NOT_IMPLEMENTED,
        f"A cluster does not give a database {what} yet: create another database, and copy with scroll and upsert.",
    )
