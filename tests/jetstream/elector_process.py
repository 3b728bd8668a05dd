"""One candidate as a process: prints `gained TERM` and `lost TERM`, and after each renewal's time whether it has the right.

    python -m tests.jetstream.elector_process NODE BUCKET SECRET URL...

On standard input: `resign`, or nothing any more: then it stops.
"""

from __future__ import annotations

import os
import sys

from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_config import Credentials
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.control.elector import Elector


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # from two threads: whole lines


def main() -> None:
    node, bucket, secret, *urls = sys.argv[1:]
    clock = SystemClock()
    connection = NatsConnection(urls, clock, credentials=Credentials(secret))
    store = KvStore(connection, bucket, replicas=len(urls))
    elector = Elector(
        store,
        clock,
        node,
        f"{node}-{os.getpid()}",
        on_gain=lambda term: say(f"gained {term}"),
        on_loss=lambda term: say(f"lost {term}"),
    )
    say("ready")
    elector.start()
    for line in sys.stdin:
        if line.strip() == "resign":
            say(f"resigned {elector.resign()}")
        if line.strip() == "term":
            say(f"term {elector.term()}")
    elector.stop()
    store.close()
    connection.close()


if __name__ == "__main__":
    main()
