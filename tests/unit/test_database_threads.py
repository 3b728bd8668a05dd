"""Writers and readers at once: a batch is seen whole or not at all, whatever is frozen, built and swapped meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld

GROUPS, WIDTH, ROUNDS = 4, 24, 60


def test_no_batch_is_ever_seen_half(tmp_path: Path) -> None:
    """Each writer overwrites its own ids, spread over all shards, with one tag a batch; readers must see one tag a writer."""
    generator = np.random.default_rng(1)
    ids = [[f"{writer}-{i}" for i in range(WIDTH)] for writer in range(GROUPS)]
    rows = generator.standard_normal((GROUPS, WIDTH, 6)).astype(np.float32)
    errors: list[str] = []
    done = threading.Event()
    with jade.Store(tmp_path, RealWorld(InlineCompute)) as store:
        # Freezes come thick and fast, so that background work publishes views all the time
        db = store.create_database("d", 6, shards=3, seal_rows=40)
        for writer in range(GROUPS):
            db.upsert(ids[writer], rows[writer], [{"writer": writer, "tag": 0}] * WIDTH)

        def write(writer: int) -> None:
            for tag in range(1, ROUNDS):
                metadata = [{"writer": writer, "tag": tag}] * WIDTH
                if tag % 5 == 4:
                    db.update_metadata(ids[writer], metadata)
                else:
                    db.upsert(ids[writer], rows[writer], metadata)

        def check(seen: list[tuple[int, int]], what: str) -> None:
            counts = Counter(seen)
            if len(counts) != GROUPS or set(counts.values()) != {WIDTH}:
                errors.append(f"{what}: {sorted(counts.items())}")

        def read() -> None:
            while not done.is_set():
                hits = db.search(rows[0, 0], k=GROUPS * WIDTH, recall=1.0)
                check([(hit.metadata["writer"], hit.metadata["tag"]) for hit in hits], "search")
                if db.count() != GROUPS * WIDTH or db.count({"writer": 2}) != WIDTH:
                    errors.append("count")
                items = [item for item in db.get([name for group in ids for name in group]) if item is not None]
                check([(item.metadata["writer"], item.metadata["tag"]) for item in items], "get")
                page = db.scroll(GROUPS * WIDTH)
                check([(item.metadata["writer"], item.metadata["tag"]) for item in page.items], "scroll")

        def guarded(run: Callable[[], None]) -> Callable[[], None]:
            def body() -> None:
                try:
                    run()
                except BaseException as error:
                    errors.append(repr(error))

            return body

        writers = [threading.Thread(target=guarded(lambda w=w: write(w))) for w in range(GROUPS)]  # type: ignore[misc]
        readers = [threading.Thread(target=guarded(read)) for _ in range(2)]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join(300)
            assert not thread.is_alive(), "a writer hangs"
        done.set()
        for thread in readers:
            thread.join(300)
            assert not thread.is_alive(), "a reader hangs"
        assert errors[:3] == []
        db.wait_indexed(300)
        last = db.search(rows[0, 0], k=GROUPS * WIDTH, recall=1.0)
        assert {hit.metadata["tag"] for hit in last} == {ROUNDS - 1}
        db.verify()


def test_conditional_writers_lose_no_update(tmp_path: Path) -> None:
    """Counters over two shards, raised by compare-and-set from several threads: every success counts exactly once."""
    with jade.Store(tmp_path, RealWorld(InlineCompute)) as store:
        db = store.create_database("d", 2, metric="dot", shards=2, seal_rows=16)
        names = ["left", "right", "up", "down"]
        db.upsert(names, np.ones((4, 2)), [{"n": 0}] * 4)
        raised = [0] * 4

        def raise_counters(me: int) -> None:
            while raised[me] < 12:
                items = db.get(names)
                try:
                    db.upsert(
                        names,
                        np.ones((4, 2)),
                        [{"n": item.metadata["n"] + 1} for item in items if item],
                        if_version=[item.version for item in items if item],
                    )
                except jade.JadeError as error:
                    assert error.code is jade.ErrorCode.VERSION_CONFLICT
                    continue
                raised[me] += 1

        threads = [threading.Thread(target=raise_counters, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
            assert not thread.is_alive()
        assert [item.metadata["n"] for item in db.get(names) if item] == [48] * 4
