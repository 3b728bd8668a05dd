"""`jade cluster` on this machine: a cluster of real processes is started, asked, killed in part, healed and stopped by the commands."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.hosting_world import wait_until
from tests.nemesis.caller import Caller

import jadevectordb as jade
from jadevectordb.adapters.os_disk import FolderLock
from jadevectordb.cli import node_process
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode
from jadevectordb.cli.main import commands

Run = Callable[..., Result]
PATIENT = jade.Timeouts(5.0, 30.0, 120.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs `jade cluster ...` of one cluster as a user with a home folder of their own; ends what is left of it."""
    home = tmp_path_factory.mktemp("home")
    data = tmp_path_factory.mktemp("clusters") / "c"
    environment = {
        "XDG_CONFIG_HOME": str(home),
        "JADEVECTORDB_URL": None,
        "JADEVECTORDB_API_KEY": None,
        "JADEVECTORDB_LOG_LEVEL": "a setting of this shell is none of the nodes'",
    }

    def invoke(command: str, *arguments: object, ok: bool | None = True) -> Result:
        texts = ["cluster", command, *map(str, arguments), "--data", str(data)]
        result = CliRunner().invoke(commands, texts, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert ok is None or (result.exit_code == 0) is ok, result.output
        return result

    try:
        yield invoke
    finally:
        if (data / "cluster.json").exists():
            local = LocalCluster.open(data)
            for node in local.nodes:
                local.kill(node)


@pytest.fixture(scope="module")
def local(run: Run, tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    shown = run("up", "--auth", "required").output
    data = Path(shown.split("password in ")[1].split(": ")[0]).parent
    return LocalCluster.open(data)


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


def now(local: LocalCluster) -> LocalCluster:
    return LocalCluster.open(local.folder)


def healthy(run: Run) -> Any:
    """The status, once the cluster is well: on a busy machine a node may be silent for longer than the living are."""

    def told() -> Any:
        shown = answer(run("status", "--format", "json", ok=None))
        return shown if shown["status"] == "HEALTHY" else None

    return wait_until(told)


def test_it_serves_and_its_secrets_are_its_users_alone(run: Run, local: LocalCluster) -> None:
    assert len(local.nodes) == 3 and all(node.is_running for node in local.nodes)
    for path in (*local.folder.glob("*.json"), local.folder / "secret", *local.folder.glob("n*/node.toml")):
        assert path.stat().st_mode & 0o077 == 0, path
    secret = (local.folder / "secret").read_text().strip()
    assert not any(secret in path.read_text() for path in local.folder.glob("n*/node.*"))
    told = healthy(run)
    assert told["total_nodes"] == told["active_nodes"] == 3
    assert [node["node_id"] for node in told["nodes"]] == ["n1", "n2", "n3"]
    assert {node["port"] for node in told["nodes"]} == {node.ports[0] for node in local.nodes}


def test_every_question_has_an_answer_for_people_and_for_programs(run: Run, local: LocalCluster) -> None:
    for command in (["status"], ["nodes"], ["shards"], ["node-health", "n1"], ["diagnostics"], ["metrics"]):
        assert run(*command, ok=None).stdout.strip()
        assert answer(run(*command, "--format", "json", ok=None)) is not None
    assert "n1" in run("nodes").stdout and str(local.nodes[0].pid) in run("nodes").stdout
    assert "n3 " in run("logs").stdout and 1 <= run("logs", "1", "--lines", "3").stdout.count("\n") <= 3
    assert answer(run("node-health", "3", "--format", "json", ok=None))["node_id"] == "n3"
    assert "Node not found" in run("node-health", "n9", ok=False).output
    assert "no database 'nope'" in run("shards", "--database", "nope", ok=False).output
    run("shard-status", "nothing-0", ok=False)


def test_what_can_not_be_is_refused_in_words(run: Run, local: LocalCluster) -> None:
    assert "has 3 nodes, not 5" in run("up", "--nodes", 5, ok=False).output
    assert "there are: n1, n2, n3" in run("kill", "n7", ok=False).output
    assert "is running already" in run("start", "2", ok=False).output
    lock = FolderLock(local.folder / "LOCK")
    try:
        assert "Another command" in run("kill", "2", ok=False).output
    finally:
        lock.close()
    assert run("up").output.count("serves at") == 0  # all run already


def test_writers_notice_nothing_of_a_killed_node_which_comes_back(run: Run, local: LocalCluster) -> None:
    errors: list[BaseException] = []
    written: list[str] = []
    many, finish = threading.Event(), threading.Event()
    with jade.Client(local.nodes[0].url, user="admin", password=local.admin_password, timeout=PATIENT) as client:
        words = client.create_database("words", 8, shards=2)

        def write() -> None:
            random = np.random.default_rng(1)
            try:
                while not finish.is_set():
                    ids = [f"v{len(written) + number}" for number in range(20)]
                    words.upsert(ids, random.standard_normal((20, 8)).astype(np.float32))
                    written.extend(ids)
                    if len(written) >= 200:
                        many.set()
            except BaseException as error:
                errors.append(error)
                many.set()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert many.wait(120)
            assert "nats-server" in run("kill", "1").output  # the one that the client was given
            assert "is not running" in run("kill", "n1", ok=False).output
            count = len(written)
            while len(written) < count + 200 and not errors:
                thread.join(0.05)
            assert "killed" in run("nodes").stdout
            run("start", "1")
        finally:
            finish.set()
            thread.join()
        assert errors == []
        assert words.count() == len(written)
        assert all(words.exists(written))
    assert now(local).node("1").is_running


def test_nodes_that_are_asked_for_one_name_at_the_same_moment_give_it_once(run: Run, local: LocalCluster) -> None:
    start = threading.Barrier(3)
    made: list[tuple[str, str, int]] = []
    same: list[str] = []

    def ask(node: LocalNode) -> None:
        with jade.Client(node.url, user="admin", password=local.admin_password, timeout=PATIENT) as client:
            for turn in range(3):
                for kind, path, body in (
                    ("user", "/v1/users", {"username": f"Twin{turn}", "email": f"{turn}@example.com", "password": "a good long one"}),
                    ("database", "/v2/databases", {"name": f"twin{turn}", "dimension": 4, "shards": 1}),
                ):  # fmt: skip
                    start.wait()
                    try:
                        client.call("POST", path, body)
                        made.append((kind, node.id, turn))
                    except jade.JadeError as error:
                        # CONFLICT: it took so long on a busy machine that another was given the name meanwhile
                        assert error.code in (jade.ErrorCode.ALREADY_EXISTS, jade.ErrorCode.CONFLICT), error
            start.wait()
            same.append(client.create_database("shared", 4, shards=1, exist_ok=True).id)

    threads = [threading.Thread(target=ask, args=(node,)) for node in local.nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((kind, turn) for kind, _, turn in made) == [
        (kind, turn) for kind in ("database", "user") for turn in range(3)
    ]
    assert len(same) == 3 and len(set(same)) == 1


def test_what_the_first_version_of_rest_writes_and_reads_is_as_sure_as_its_header_says(local: LocalCluster) -> None:
    node = local.nodes[1]
    with contextlib.closing(Caller(node.url, "", 60.0)) as caller:
        login = {"username": "admin", "password": local.admin_password}
        token = caller.call("POST", "/v1/auth/login", login)["token"]

        def call(level: str, method: str, path: str, body: Any = None) -> Any:
            headers = {"X-Jade-Consistency": level, "Authorization": f"Bearer {token}"}
            return caller.call(method, f"/v1/databases/{database}{path}", body, headers)

        database = ""
        found = caller.call("GET", "/v1/databases", None, {"Authorization": f"Bearer {token}"})["databases"]
        database = next(one["databaseId"] for one in found if one["name"] == "words")
        for number, level in enumerate(("quorum", "STRONG", "eventual")):
            vector = {"id": f"sure-{number}", "values": [1.0] * 8}
            assert call(level, "POST", "/vectors", vector)["created"] is True
            assert call(level, "POST", "/vectors/batch", {"vectors": [vector]})["stored"] == 1
        call("quorum", "PUT", "/vectors/sure-1", {"metadata": {"n": 1}})
        for level in ("session", "strong", "eventual"):
            assert call(level, "GET", "/vectors/sure-0")["id"] == "sure-0"
        for level in ("quorum", "nonsense"):
            with pytest.raises(jade.JadeError, match=f"Unknown consistency '{level}' for reading: use one of session"):
                call(level, "GET", "/vectors/sure-0")
        for level in ("session", "nonsense"):
            with pytest.raises(jade.JadeError, match=f"Unknown consistency '{level}' for writing: use one of quorum"):
                call(level, "POST", "/vectors", {"id": "never", "values": [1.0] * 8})
        with pytest.raises(jade.JadeError, match="write at QUORUM"):
            call("eventual", "PUT", "/vectors/sure-1", {"metadata": {"n": 2}})
        for number in range(3):
            call("strong", "DELETE", f"/vectors/sure-{number}")


def metrics_of(local: LocalCluster) -> str:
    login = base64.b64encode(f"admin:{local.admin_password}".encode()).decode()
    request = urllib.request.Request(local.nodes[0].url + "/metrics", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=60) as shown:
        return str(shown.read(), "utf-8")


def test_conflicts_are_listed_by_every_door(run: Run, local: LocalCluster) -> None:
    """Two nodes are told to write one vector at the same moment until they did not know of each other."""
    row = np.ones((1, 4), np.float32)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(jade.Client(node.url, user="admin", password=local.admin_password, timeout=PATIENT))
            for node in local.nodes[:2]
        ]
        made = clients[0].create_database("contended", 4, shards=1)
        assert answer(run("conflicts", made.id, "--format", "json")) == {"found": 0, "superseded": 0, "conflicts": []}
        pool = stack.enter_context(ThreadPoolExecutor(2))
        handles = [client.database("contended") for client in clients]
        for number in range(500):
            writes = [pool.submit(one.upsert, ["x"], row, consistency="eventual") for one in handles]
            assert [write.result().count for write in writes] == [1, 1]
            if number % 10 == 9 and (told := handles[1].conflicts()).found:
                break
        else:
            pytest.fail("1000 writes of one vector by two nodes at once were all seen by each other")
        newest = told.conflicts[0]
        assert newest.id == "x" and newest.concurrent and newest.shard == 0 and newest.winner in ("late", "stood")
        assert {newest.late.node, newest.stood.node} == {"n1", "n2"} and newest.late.request_id
        with pytest.raises(jade.JadeError):
            handles[0].upsert(["x"], row, consistency="sometimes")
        assert "conflicts found" in run("conflicts", made.id).stdout
        metrics = metrics_of(local)
    assert f'jadevectordb_eventual_lag_seconds_count{{database="{made.id}"}}' in metrics
    assert f'jadevectordb_eventual_conflicts_total{{database="{made.id}",shard="0"}}' in metrics


def test_what_is_asked_of_one_node_is_known_to_all(run: Run, local: LocalCluster) -> None:
    with contextlib.ExitStack() as clients:
        one, two, three = (
            clients.enter_context(jade.Client(node.url, user="admin", password=local.admin_password, timeout=PATIENT))
            for node in local.nodes
        )
        database = one.create_database("looked-after", 4, shards=2)
        database.upsert(["a", "b"], np.eye(2, 4, dtype=np.float32))
        wait_until(lambda: all("looked-after" in node.databases() for node in (two, three)))
        policy = {"maxAgeDays": 30, "archiveOnExpire": True}
        one.call("PUT", f"/v1/databases/{database.id}/lifecycle", policy)
        told = two.call("GET", f"/v1/databases/{database.id}/lifecycle/status")
        assert told["retentionPolicy"]["maxAgeDays"] == 30 and told["archivedCount"] == 0
        checked = three.call("POST", f"/v2/databases/{database.id}/verify")
        assert checked["sound"] and len(checked["replicas"]) == 6
        alert = one.call("POST", "/v1/alerts", {"type": "info", "message": "the disks are to be replaced"})
        assert three.call("PUT", f"/v1/alerts/{alert['id']}/acknowledge")["acknowledged"]
        assert [
            each["acknowledged"] for each in two.call("GET", "/v1/alerts")["alerts"] if each["id"] == alert["id"]
        ] == [True]
        changed = two.call("PATCH", f"/v2/databases/{database.id}", {"index": "HNSW", "schema": {"year": "integer"}})
        assert changed["index"] == "HNSW"
        assert two.call("GET", f"/v1/databases/{database.id}")["indexType"] == "HNSW"


def test_shards_are_shown_with_their_replicas(run: Run, local: LocalCluster) -> None:
    rows = answer(run("shards", "--database", "words", "--format", "json"))
    assert len(rows) == 2 and {row["replica_nodes"] for row in rows} == {"n1,n2,n3"}
    one = answer(run("shard-status", rows[0]["shard_id"], "--format", "json"))
    assert one["migration"] is None and [replica["node_id"] for replica in one["placement"]] == ["n1", "n2", "n3"]
    assert (
        rows[0]["shard_id"] in run("shards").stdout and "watermark" in run("shard-status", rows[1]["shard_id"]).stdout
    )


def test_the_master_changes_on_purpose(run: Run, local: LocalCluster) -> None:
    healthy(run)  # what was just made is placed
    done = answer(run("failover", "--format", "json"))
    assert done["old_master"] != done["new_master"]
    assert {done["old_master"], done["new_master"]} <= {"n1", "n2", "n3"}
    wait_until(lambda: healthy(run)["master_node"] != done["old_master"])


def test_a_drain_without_room_is_refused(run: Run, local: LocalCluster) -> None:
    assert "no other node to go to" in run("drain", "n2", ok=False).output
    wait_until(lambda: {node["status"] for node in answer(run("nodes", "--format", "json"))} == {"active"})


def test_down_stops_everything_and_up_brings_it_back(run: Run, local: LocalCluster) -> None:
    before = now(local).nodes
    nats = [node_process.nats_server_of(local.data_of(node)) for node in before]
    assert all(pid for pid, _ in nats)
    assert "n1 stopped" in run("down", "1", "--wait", 60).output
    # The last of them stands alone and may have to be killed: then nothing is lost either
    told = run("down", "--wait", 10).output.splitlines()
    assert [line.split()[0] for line in told] == ["n1", "n2", "n3"] and told[0] == "n1 was not running"
    assert not any(node_process.runs(pid, started) for pid, started in nats)
    assert not any(node_process.runs(node.pid, node.started) for node in before)
    assert "was not running" in run("down", "2").output
    shown = run("status", "--timeout", "5", ok=False).output
    assert "No connection" in shown and "is running: `jade cluster up" in shown and "stopped" in shown
    assert "No node of the cluster" in run("add", ok=False).output
    run("up")
    with local.client() as client:
        assert client.database("words").count(consistency="strong") >= 400


def test_a_cluster_with_one_keeper_of_the_log_comes_back_too(tmp_path: Path) -> None:
    local = LocalCluster.make(tmp_path / "cluster", 1, None, "open-loopback")
    (node,) = local.nodes
    try:
        for ended in (lambda: local.stop([node], lambda _: None), lambda: local.kill(node)):
            local.start([node], lambda _: None)
            with local.client() as client:
                database = client.create_database("words", 4, exist_ok=True)
                database.upsert([f"v{database.count(consistency='strong')}"], np.ones((1, 4), np.float32))
            ended()
        local.start([node], lambda _: None)
        with local.client() as client:
            assert client.database("words").exists(["v0", "v1"], consistency="strong") == [True, True]
    finally:
        local.kill(node)


# Whose process it is


def test_only_the_process_that_was_started_is_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        started = node_process.started_at(other.pid)
        assert started and node_process.runs(other.pid, started)
        assert not node_process.signal_it(other.pid, started + "0", node_process.signal.SIGKILL)
        assert not LocalNode("n1", (1, 2, 3, 4, 5, 6), other.pid, "at another time").is_running
        assert other.poll() is None
        assert node_process.signal_it(other.pid, started, node_process.signal.SIGKILL)
        assert node_process.gone(other.pid, started, 60.0)  # although nobody has asked how it ended
    assert node_process.started_at(0) == "" and not node_process.runs(0, "")


def test_a_node_that_does_not_start_is_quoted_with_what_it_says_now(tmp_path: Path) -> None:
    local = LocalCluster.make(tmp_path / "cluster", 1, None, "open-loopback")
    (local.folder / "n1" / "node.out").write_text("ready, in another life\n")
    with (local.folder / "n1" / "node.toml").open("a") as settings:
        settings.write("[no_such_section]\nx = 1\n")
    with pytest.raises(jade.JadeError, match="n1 ended with code 1 instead of serving") as refused:
        local.start(local.nodes, lambda _: None)
    assert "no_such_section" in refused.value.message and "another life" not in refused.value.message


def test_who_interrupts_a_start_is_told_what_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, told = LocalCluster.make(tmp_path / "cluster", 1, None, "open-loopback"), []

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_wait_serving", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            local.start(local.nodes, told.append)
        assert len(told) == 1 and "jade cluster down" in told[0]
        assert LocalCluster.open(local.folder).nodes[0].is_running
    finally:
        local.kill(local.nodes[0])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").write_text("mine")
    shown = CliRunner().invoke(commands, ["cluster", "up", "--data", str(tmp_path / "c")])
    assert shown.exit_code == 1 and "is no cluster's folder" in shown.output
    shown = CliRunner().invoke(commands, ["cluster", "logs", "--data", str(tmp_path / "none")])
    assert shown.exit_code == 1 and "jade cluster up" in shown.output
    (tmp_path / "c" / "cluster.json").write_text("{}")
    for command in (["status"], ["nodes"], ["drain", "n1"], ["keep", "n1"]):  # no other cluster is asked instead
        shown = CliRunner().invoke(commands, ["cluster", *command, "--data", str(tmp_path / "none")])
        assert shown.exit_code == 1 and "There is no cluster in" in shown.output
    both = ["--data", str(tmp_path), "--url", "http://127.0.0.1:9"]
    assert CliRunner().invoke(commands, ["cluster", "status", *both]).exit_code == 2
    monkeypatch.chdir(tmp_path)
    for command in (["up", "--wait", "-1"], ["drain", "n1", "--wait", "-1"]):
        assert CliRunner().invoke(commands, ["cluster", *command]).exit_code == 2
    assert not Path("jade-cluster").exists()
    shown = CliRunner().invoke(commands, ["cluster", "logs", "--data", str(tmp_path / "c")])
    assert shown.exit_code == 1 and "is not what" in shown.output


@pytest.mark.parametrize("count, keepers", [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (7, 5)])
def test_never_two_keep_the_log(tmp_path: Path, count: int, keepers: int) -> None:
    from jadevectordb.settings.cluster import keeps_log
    from jadevectordb.settings.sources import load

    made = LocalCluster.make(tmp_path / "c", count, None, "open-loopback")
    files = [made.folder / node.id / "node.toml" for node in made.nodes]
    found = [load(str(file), {}, {}).settings.cluster for file in files]
    assert sum(map(keeps_log, found)) == keepers and len({own.name for own in found}) == 1
    assert len({port for node in made.nodes for port in node.ports}) == 6 * count
