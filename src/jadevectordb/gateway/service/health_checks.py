"""What the system looks at by itself, to raise alerts and to say how it is: the disk, databases' background work and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jadevectordb.gateway.service.alerts import AlertType, Check, Condition
from jadevectordb.gateway.service.catalog import Directory
from jadevectordb.gateway.service.lifecycle import LivingDatabase
from jadevectordb.gateway.service.system_usage import SystemUsage
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.host import Host

_LOW_SHARE, _LOW_BYTES = 0.10, 10 << 30  # low: less than a tenth and less than 10 GiB
_CRITICAL_SHARE, _CRITICAL_BYTES = 0.03, 1 << 30
_DISK_PERCENT_MAX = 98.0
_TROUBLE_CHARACTERS_MAX = 500


def storage_checks(catalog: Directory, usage: SystemUsage) -> dict[str, str]:
    """`ok` or what is wrong: with the databases together, and with the disk."""
    troubles = [f"{entry.record.name}: {trouble}" for entry in catalog.every() if (trouble := entry.handle.trouble)]
    troubles += [f"{record.name}: {error.message}" for record, error in catalog.damaged()]
    used = usage.disk_percent
    return {
        "database": "; ".join(troubles)[:_TROUBLE_CHARACTERS_MAX] or "ok",
        "storage": "ok" if used is None or used < _DISK_PERCENT_MAX else f"the disk is {used:.0f} % full",
    }


def disk_check(host: Host) -> Check:
    """Whether the file system of the data is almost full."""

    def check() -> Iterator[Condition]:
        reading = host.read()
        total, free = reading.disk_total_bytes, reading.disk_available_bytes
        if not total or free is None:
            return
        says = f"{free / 2**30:.1f} GiB ({free / total:.0%}) of the data's disk are free"
        if free < _CRITICAL_BYTES and free / total < _CRITICAL_SHARE:
            yield Condition("disk-critical", AlertType.ERROR, f"{says}: writes will soon be refused. Free space now.")
        elif free < _LOW_BYTES and free / total < _LOW_SHARE:
            yield Condition("disk-low", AlertType.WARNING, f"{says}: free space, or add some.")

    return check


def database_check(databases: Callable[[], Iterable[LivingDatabase]]) -> Check:
    """Whether a database is damaged, or its background work can't go on."""

    def check() -> Iterator[Condition]:
        for database in databases():
            try:
                trouble = database.handle.background_trouble()
            except JadeError as error:
                if error.code is not ErrorCode.CLOSED:  # dropped meanwhile
                    yield Condition(
                        f"damage/{database.id}", AlertType.ERROR, f"Database {database.id}: {error.message}"
                    )
                continue
            if trouble is not None:
                says = f"Background work of database {database.id} can't go on: {trouble.message}"
                yield Condition(f"maintenance/{database.id}", AlertType.WARNING, says)

    return check
