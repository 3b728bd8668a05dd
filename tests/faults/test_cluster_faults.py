"""What goes wrong with whole nodes while a cluster serves: clocks, versions, nats-servers, disks, files, majorities.

One cluster of real processes for all of it: three nodes that keep the log, and a fourth that only holds shards. Every database has a
replica on each node, so what one node lacks another has.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.cli import node_process
from jadevectordb.cli.cluster_digests import DigestReader, equal
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode
from jadevectordb.client import Client, Database, Retries, Timeouts
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.faults.disks import mounted, needs_root
from tests.faulty_nodes import Ports, in_shim
from tests.nemesis.caller import Caller

DIMENSION, SHARDS, ROWS = 16, 2, 3000
OFF_S = 3600
WAIT_S = 180.0  # a node that was killed starts, catches up and is healthy again
_LOOK_S = 0.1


class Rest:
    """The database through one node, with the level of each call said; an answer that is none raises JadeError with its status."""

    def __init__(self, node: LocalNode) -> None:
        self._url = node.url

    def _call(self, what: str, level: str, body: Any) -> Any:
        with contextlib.closing(Caller(self._url, "", 90.0)) as caller:
            return caller.call("POST", f"/v2/databases/words/{what}", body, {"X-Jade-Consistency": level})

    def _read(self, what: str, level: str, body: Any) -> Any:
        """Asked again when the node can't answer now: on a busy machine a server of the log may have to be elected anew."""
        until_s = time.monotonic() + WAIT_S
        while True:
            try:
                return self._call(what, level, body)
            except JadeError as error:
                if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT) or time.monotonic() > until_s:
                    raise
                time.sleep(_LOOK_S)

    def upsert(self, name: str, number: int, level: str = "quorum", **conditions: int) -> None:
        row = {"id": name, "values": [1.0 + number] * DIMENSION, "metadata": {"n": number}, **conditions}
        self._call("vectors", level, {"vectors": [row]})

    def delete(self, name: str) -> None:
        self._call("vectors/delete", "quorum", {"ids": [name]})

    def get(self, name: str) -> Any:
        """None, or the item, as of now."""
        return self._read("vectors/get", "strong", {"ids": [name], "include": ["metadata", "version"]})["vectors"][0]

    def count(self, level: str = "strong") -> int:
        return int(self._read("count", level, {})["count"])

    def count_now(self) -> int:
        """Asked once."""
        return int(self._call("count", "strong", {})["count"])

    def search(self, level: str) -> list[str]:
        hits = self._read("search", level, {"vector": [1.0] * DIMENSION, "k": 5})["hits"]
        return [hit["id"] for hit in hits]


class World:
    def __init__(self, local: LocalCluster, disk: Path | None) -> None:
        """disk: a small file system of n2's own; None where none can be mounted."""
        self.local = local
        self.disk = disk
        self.written = 0
        self._random = np.random.default_rng(5)

    def node(self, name: str) -> LocalNode:
        return self.local.node(name)

    def start(self, *names: str, environment: dict[str, str] | None = None) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            self.local.start([self.node(name) for name in names], lambda _: None)

    @contextlib.contextmanager
    def words(self, *names: str, timeout: float | Timeouts = 90.0) -> Iterator[Database]:
        """The database, through these nodes."""
        nodes = [self.node(name) for name in names]
        with self.local.client(*nodes, timeouts=timeout, retries=Retries()) as client:
            yield client.database("words")

    def rest(self, name: str) -> Rest:
        return Rest(self.node(name))

    def write(self, database: Database, count: int = 20) -> None:
        ids = [f"v{self.written + number}" for number in range(count)]
        database.upsert(ids, self._random.standard_normal((count, DIMENSION)).astype(np.float32))
        self.written += count

    def ask(self, node: str, what: str = "diagnostics") -> Any:
        with self.local.client(self.node(node), timeouts=Timeouts(5.0, 30.0, 60.0)) as client:
            return client.call("GET", f"/v1/cluster/{what}")

    def wait(self, node: str, is_so: Callable[[Any], bool]) -> Any:
        """Until what this node's diagnostics tell is so; and them."""
        until_s = time.monotonic() + WAIT_S
        while True:
            told = self.ask(node)
            if is_so(told):
                return told
            assert time.monotonic() < until_s, (told["status"], told["errors"], told["notes"])
            time.sleep(_LOOK_S)

    def failover(self) -> tuple[Any, Any]:
        """The cluster's status before it, and its answer. Again when nobody took over in time."""
        until_s = time.monotonic() + WAIT_S
        while True:
            before = self.ask("n1", "status")
            try:
                with self.local.client(self.node("n1"), timeouts=Timeouts(5.0, 30.0, 60.0)) as client:
                    return before, client.call("POST", "/v1/cluster/failover")
            except JadeError as error:
                assert error.retryable and time.monotonic() < until_s, error

    def wait_healthy(self, node: str = "n1") -> Any:
        return self.wait(node, lambda told: told["status"] == "HEALTHY" and len(told["nodes"]) == 4)

    def digests_are_equal(self) -> bool:
        with self.words("n1") as words:
            database = words.id
        identity = self.ask("n1", "status")["cluster_id"]
        peers = {node.id: f"127.0.0.1:{node.ports[2]}" for node in self.local.nodes}
        with DigestReader(identity, self.local.folder / "secret", peers) as reader:
            found = reader.settled(database, SHARDS, 4, WAIT_S)
        return len(found) == 4 * SHARDS and equal(found) and sum(one.rows for one in found) == 4 * self.written


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The fourth node's clock is an hour ahead, and it calls its version another one, until it is started again."""
    local = LocalCluster.make(tmp_path_factory.mktemp("faults") / "cluster", 4, None, "open-loopback")
    with contextlib.ExitStack() as stack:
        disk = None
        if os.geteuid() == 0:
            with contextlib.suppress(pytest.skip.Exception):
                disk = stack.enter_context(mounted(local.data_of(local.node("n2")), "tmpfs", "size=64m,mode=700"))
        for node in local.nodes:
            stack.callback(local.kill, node)
        world = World(local, disk)
        shim = in_shim(SHIM_CLOCK_S=OFF_S, SHIM_VERSION="0.0.9")
        world.start("n1", "n2", "n3")
        world.start("n4", environment={name: shim[name] for name in ("PYTHONPATH", "SHIM_CLOCK_S", "SHIM_VERSION")})
        with local.client() as client:
            words = client.create_database("words", DIMENSION, shards=SHARDS, replication=4)
            for _ in range(ROWS // 500):
                world.write(words, 500)
            words.compact()
        yield world


def test_a_clock_that_is_an_hour_off_is_told_and_harms_nothing(world: World) -> None:
    for asked in ("n1", "n4"):
        told = world.wait(
            asked, lambda told: told["status"] == "DEGRADED" and any("clock" in error for error in told["errors"])
        )
        (error,) = (error for error in told["errors"] if "clock" in error)
        assert re.match(r"node n4: its clock differs from the others' by \+(36|35)\d\d s", error)
    ahead, behind = world.rest("n4"), world.rest("n1")
    for level in ("quorum", "strong", "eventual"):  # who writes last wins, whatever his clock says
        versions = []
        for number, gateway in enumerate((ahead, behind, ahead, behind)):
            gateway.upsert("same", number, level)
            wait(lambda: number == (ahead.get("same") or {"metadata": {}})["metadata"].get("n"))  # noqa: B023
            assert behind.get("same") == ahead.get("same")
            versions.append(behind.get("same")["version"])
        assert versions == sorted(set(versions))
    behind.upsert("same", 9, if_version=versions[-1])
    with pytest.raises(JadeError) as conflict:
        ahead.upsert("same", 10, if_version=versions[-1])
    assert conflict.value.code is ErrorCode.VERSION_CONFLICT
    ahead.delete("same")
    assert behind.get("same") is None
    with world.words("n4") as words:
        world.write(words)
    assert behind.count() == ahead.count() == world.written
    before, done = world.failover()
    assert done["term"] > before["term"]
    # More than one term later the master was held up for longer than its lease, and it may be the same again
    assert done["new_master"] != before["master_node"] or done["term"] > before["term"] + 1
    assert world.digests_are_equal()


def wait(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(_LOOK_S)


def test_unequal_versions_are_served_and_told(world: World) -> None:
    told = world.wait("n1", lambda told: any("0.0.9" in note for note in told["notes"]))
    (note,) = (note for note in told["notes"] if "0.0.9" in note)
    assert "n4 0.0.9" in note and f"n1 {jade.__version__}" in note
    active = dict.fromkeys(("n1", "n2", "n3", "n4"), "active")
    world.wait("n4", lambda told: {node["node_id"]: node["status"] for node in told["nodes"]} == active)
    assert all(row["replicas"] == 4 for row in world.ask("n1", "shards")["shards"])


def test_a_flipped_bit_is_healed_from_a_peer_and_told(world: World) -> None:
    assert world.local.kill(world.node("n4"))
    sealed = [path for path in (world.local.data_of(world.node("n4")) / "shards").rglob("*") if path.is_file()]
    flipped = max(sealed, key=lambda path: path.stat().st_size)
    with flipped.open("r+b") as file:
        file.seek(flipped.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    world.start("n4")  # now with the right time and version
    told = world.wait("n1", lambda told: told["status"] == "HEALTHY" and any("damaged" in n for n in told["notes"]))
    (note,) = (note for note in told["notes"] if "damaged" in note)
    assert note.startswith("node n4: ") and flipped.name in note and "Look at its disk" in note
    assert told["errors"] == []  # nor is there anything of clocks any more
    assert world.digests_are_equal()
    log = world.local.log_of(world.node("n4")).read_text()
    assert "was damaged and was loaded anew" in log and "Traceback" not in log


def test_a_nats_server_killed_again_and_again_is_told_and_comes_back(world: World) -> None:
    with world.words("n1", "n2", "n3", "n4") as words:
        deaths, error, until_s = 0, "", time.monotonic() + 2 * WAIT_S
        while not error:  # it is said until the next start, which is later after each death
            assert time.monotonic() < until_s
            pid, started = node_process.nats_server_of(world.local.data_of(world.node("n3")))
            if node_process.signal_it(pid, started, signal.SIGKILL):
                deaths += 1
                assert node_process.gone(pid, started, WAIT_S)
                world.write(words)
            elif deaths < 5:
                time.sleep(_LOOK_S)
            else:
                errors = world.ask("n1")["errors"]
                if world.ask("n1", "nodes/n3/health")["status"] == "DEGRADED":
                    error = next((one for one in errors if "nats-server: " in one and "times in a row" in one), "")
        assert error.startswith("node n3: nats-server: failing: ")  # killed while it served, or while it started
        assert "with signal 9" in error and "nats.log" in error
        assert world.rest("n3").count() == world.written
        world.wait_healthy()
        world.write(words)
    assert world.digests_are_equal()


@pytest.mark.root
@needs_root
def test_a_full_disk_of_one_node_stops_nobody_and_is_told(world: World) -> None:
    if world.disk is None:
        pytest.skip("NOT TESTED: mounting is not allowed here")
    ballast = world.disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    fill()
    try:
        with world.words("n1", "n3") as words:
            until_s = time.monotonic() + WAIT_S
            while True:
                world.write(words, 200)
                fill()
                assert words.count() == world.written
                told = world.ask("n1")
                errors = [error for error in told["errors"] if error.startswith("node n2: ")]
                is_full = any("its disk is full: " in error and "free some" in error for error in errors)
                if is_full and any("nats-server" in error for error in errors):
                    break
                assert time.monotonic() < until_s, told
        beside = world.rest("n2")  # who asks this node itself
        assert beside.count() == world.written
        assert len(beside.search("strong")) == len(beside.search("eventual")) == 5
        with world.words("n2") as words:
            world.write(words)
        assert beside.count() == world.written
    finally:
        ballast.unlink()
    world.wait_healthy()
    assert world.digests_are_equal()


def test_without_a_quorum_writes_are_refused_with_the_reason_and_it_heals(world: World) -> None:
    """Two of the three that keep the log are killed. And a client that knew only the dead, and one that lives, finds that one."""
    for name in ("n1", "n2"):
        assert world.local.kill(world.node(name))
    stale = [world.node("n1").url, f"http://127.0.0.1:{Ports().rest}", world.node("n2").url, world.node("n3").url]
    left = world.rest("n3")
    with Client(stale, timeout=90.0) as client:
        assert client.call("GET", "/v2/cluster/map")["is_cluster"]
    assert left.count("eventual") == world.written
    assert len(left.search("eventual")) == 5
    with ThreadPoolExecutor() as both:
        for asked in (both.submit(left.upsert, "refused", 1), both.submit(left.count_now)):
            with pytest.raises(JadeError) as error:  # long before the caller gives up by itself
                asked.result()
            assert error.value.details["status"] == 503 and error.value.code is ErrorCode.UNAVAILABLE, error.value
            assert "the log's servers" in error.value.message, error.value.message
    why = ("metadata store can't be asked", "no master")
    world.wait(
        "n3",
        lambda told: told["status"] == "UNHEALTHY" and any(part in error for error in told["errors"] for part in why),
    )
    world.start("n1", "n2")
    world.wait_healthy("n3")
    with Client(stale, timeout=90.0) as client:
        words = client.database("words")
        words.delete(["refused"])  # if its outcome was not known, it may be there
        world.write(words)
    assert left.count() == world.written
    assert world.digests_are_equal()
