"""A process that takes writes into an outbox whose publishing never succeeds, and says after each that it is durable. To be killed.

python outbox_process.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Entry, Write
from jadevectordb.query.outbox import Outbox


def refuse(entries: object) -> None:
    raise JadeError(ErrorCode.UNAVAILABLE, "no majority of the log's servers")


def main(folder: Path) -> None:
    outbox = Outbox(LocalLog(folder, rotate_bytes_min=1), 2, refuse, SystemClock())
    number = 0
    while True:
        write = Write([f"w{number}"], np.full((1, 4), number, np.float32), [b"{}"])
        outbox.append([(number % 2, Entry(write, 1 << 16, request_id=f"r{number}"))])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
