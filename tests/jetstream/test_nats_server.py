"""Supervision of a real nats-server: what is refused and in which words, what is mended, and that none is left behind."""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jadevectordb.adapters import nats_config
from jadevectordb.adapters.nats_config import Credentials, NatsServerConfig, binary_version, find_binary
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_external import check_external
from jadevectordb.adapters.nats_server import NatsServer, ServerState
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.hosting_world import WAIT_S, wait_until
from tests.nats_cluster import NatsCluster, server_configs

CLOCK = SystemClock()


def config(folder: Path) -> NatsServerConfig:
    return server_configs(folder, 1)[0]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def await_end(pid: int) -> None:
    """Of a process that is not ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], WAIT_S)[0], f"process {pid} goes on"
    finally:
        os.close(fd)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the binary -------------------------------------------------------------------------------------------------------


def test_the_one_on_path_wins_over_the_one_installed_with_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    installed = find_binary()
    assert binary_version(installed) >= nats_config.VERSION_MIN
    own = script(tmp_path / "bin" / "nats-server", f'exec {installed} "$@"\n')
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")
    assert find_binary() == own


def test_a_missing_binary_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JadeError, match=r"there is no nats-server at .* put it on PATH") as caught:
        NatsServer(config(tmp_path), CLOCK, binary=tmp_path / "nowhere").start()
    assert caught.value.code is ErrorCode.NOT_INSTALLED
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nats_config, "_in_wheel", lambda: None)
    with pytest.raises(JadeError, match="no nats-server on this machine"):
        find_binary()


@pytest.mark.parametrize("version", ["2.10.22", "2.12.0"])
def test_an_old_version_is_refused(tmp_path: Path, version: str) -> None:
    old = script(tmp_path / "nats-server", f"echo nats-server: v{version}\n")
    with pytest.raises(JadeError, match=f"is version {version}, but 2.12.1 or newer is needed") as caught:
        find_binary(old)
    assert caught.value.code is ErrorCode.NOT_INSTALLED


def test_what_is_no_nats_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JadeError, match="does not tell its version"):
        find_binary(script(tmp_path / "nats-server", "echo hello\n"))


# --- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["client", "monitoring", "routes_listen"])
def test_a_taken_port_is_named(tmp_path: Path, which: str) -> None:
    wanted = server_configs(tmp_path, 3)[0]
    address = getattr(wanted, which)
    with socket.socket() as taken:
        taken.bind((address.host, address.port))
        taken.listen()
        with pytest.raises(JadeError, match=f"{address}.*another program may use the port") as caught:
            NatsServer(wanted, CLOCK).start()
        assert caught.value.code is ErrorCode.CONFLICT


def test_a_server_that_does_not_sync_is_refused_and_ended(tmp_path: Path) -> None:
    """The file says what it should; what counts is what the server runs with."""
    real = find_binary()
    careless = script(
        tmp_path / "nats-server",
        f'[ "$1" = -c ] && sed "s/sync_interval: always/sync_interval: 2m/" "$2" > "$2.other" && exec {real} -c "$2.other"\n'
        f'exec {real} "$@"\n',
    )
    server = NatsServer(config(tmp_path / "data"), CLOCK, binary=careless)
    with pytest.raises(JadeError, match=r"does not sync before it acknowledges.*sync_interval: always") as caught:
        server.start()
    assert caught.value.code is ErrorCode.CONFLICT
    health = server.health()
    assert health.state is ServerState.STOPPED and not health.ready and health.pid is None


def test_a_server_that_ends_at_once_tells_its_own_words(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "store").write_text("a file where the store's folder should be")
    with pytest.raises(
        JadeError, match=r"ended at once with status 1: .*storage directory is not a directory"
    ) as caught:
        NatsServer(wanted, CLOCK).start()
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_a_server_with_another_secret_does_not_join(tmp_path: Path) -> None:
    configs = server_configs(tmp_path, 2)
    servers = [
        NatsServer(configs[0], CLOCK),
        NatsServer(replace(configs[1], credentials=Credentials("another secret")), CLOCK),
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            wait_until(lambda server=server: "waits for the others" in server.health().reason)
            with pytest.raises(JadeError) as caught:
                server.wait_ready(1.0)
            assert caught.value.code is ErrorCode.UNAVAILABLE
    finally:
        for server in servers:
            server.stop()


def test_a_client_with_another_secret_is_told_so(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        connection = NatsConnection(cluster.urls, CLOCK, credentials=Credentials("another secret"))

        def told() -> str:
            with pytest.raises(JadeError) as caught:
                check_external(connection, None, connect_s=1)
            assert caught.value.code is ErrorCode.UNAVAILABLE
            return caught.value.message

        wait_until(lambda: "Authorization Violation" in told())  # a slow server may not have come to say so
        connection.close()


def test_configuration_holds_no_secret_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        path = cluster.configs[0].config_path
        assert path.stat().st_mode & 0o077 == 0
        assert "a secret of tests" not in path.read_text() and "a secret" not in repr(cluster.configs[0])


def test_monitoring_for_others_and_impossible_names_are_refused(tmp_path: Path) -> None:
    good = config(tmp_path)
    for changes in (
        {"monitoring": replace(good.monitoring, host="0.0.0.0")},
        {"name": "a b"},
        {"cluster": ""},
    ):
        with pytest.raises(JadeError) as caught:
            replace(good, **changes)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT


# --- dying ------------------------------------------------------------------------------------------------------------


def test_a_server_killed_again_and_again_is_started_again_and_told_to_be_failing(tmp_path: Path) -> None:
    told: queue.SimpleQueue[tuple[ServerState, str]] = queue.SimpleQueue()
    server = NatsServer(config(tmp_path), CLOCK, on_change=lambda state, reason: told.put((state, reason)))
    server.start()
    assert [told.get()[0], told.get()[0]] == [ServerState.STARTING, ServerState.RUNNING]
    for death in range(1, 5):
        pid = server.health().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        state, reason = told.get(timeout=WAIT_S)
        assert state is (ServerState.DOWN if death < 4 else ServerState.FAILING)
        assert reason.startswith("it ended with signal 9")
        assert told.get(timeout=WAIT_S)[0] is ServerState.RUNNING
    health = wait_until(lambda: (now := server.health()).ready and now)
    assert health.deaths == 4 and health.starts == 5
    server.stop()
    assert server.health().state is ServerState.STOPPED
    server.stop()


def test_a_server_that_does_not_answer_is_told_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jadevectordb.adapters.nats_server._WATCH_S", 0.1)
    server = NatsServer(config(tmp_path), CLOCK)
    server.start()
    pid = server.health().pid
    assert pid is not None and not server.trouble
    os.kill(pid, signal.SIGSTOP)
    try:
        assert wait_until(lambda: server.trouble).startswith(f"it runs (process {pid}) but has not answered 3 times")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not server.trouble)
    assert server.health().starts == 1
    server.stop()


PARENT = """
import sys
from pathlib import Path
from jadevectordb.adapters.nats_server import NatsServer
from jadevectordb.adapters.system_clock import SystemClock
from tests.nats_cluster import server_configs
server = NatsServer(server_configs(Path(sys.argv[1]), 1)[0], SystemClock())
server.start()
print(server.health().pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a child with its parent on Linux only")
def test_the_server_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    await_end(pid)
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="waits by a process descriptor")
def test_a_server_left_behind_is_ended_before_another_starts(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    wanted.directory.mkdir()
    wanted.config_path.write_text(wanted.render())
    orphan = subprocess.Popen([find_binary(), "-c", str(wanted.config_path)])
    wait_until(lambda: orphan.poll() is not None or (wanted.pid_path.exists() and wanted.pid_path.read_text().strip()))
    assert orphan.poll() is None
    server = NatsServer(wanted, CLOCK)
    server.start()
    assert orphan.wait(WAIT_S) is not None
    wait_until(lambda: server.health().ready)
    server.stop()


def test_a_pid_file_that_names_another_process_ends_nobody(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    wanted.directory.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    wanted.pid_path.write_text(str(bystander.pid))
    server = NatsServer(wanted, CLOCK)
    server.start()
    assert bystander.poll() is None
    server.stop()
    assert bystander.stdin is not None
    bystander.stdin.close()
    bystander.wait()


# --- servers of somebody else -----------------------------------------------------------------------------------------


def test_servers_of_somebody_else_are_checked_as_far_as_they_tell(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        connection = NatsConnection(cluster.urls, CLOCK, credentials=cluster.credentials)
        check = check_external(connection, None, connect_s=WAIT_S)
        assert not check.servers and "not checked" in check.unchecked
        password = cluster.credentials.system_password
        system_url = f"nats://{nats_config.SYSTEM_USER}:{password}@{cluster.configs[0].client}"
        check = check_external(connection, system_url, connect_s=WAIT_S)
        assert [facts.sync_always for facts in check.servers] == [True] and not check.unchecked
        connection.close()


def test_a_server_of_somebody_else_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    wanted.directory.mkdir()
    wanted.config_path.write_text(wanted.render().replace("sync_interval: always", "sync_interval: 2m"))
    other = subprocess.Popen([find_binary(), "-c", str(wanted.config_path)])
    connection = NatsConnection([wanted.client_url()], CLOCK, credentials=wanted.credentials)
    try:
        system_url = f"nats://{nats_config.SYSTEM_USER}:{wanted.credentials.system_password}@{wanted.client}"
        with pytest.raises(JadeError, match="does not sync before it acknowledges") as caught:
            check_external(connection, system_url, connect_s=WAIT_S)
        assert caught.value.code is ErrorCode.CONFLICT
    finally:
        connection.close()
        other.terminate()
        other.wait()
