"""The commands against a real server: the same commands as for a folder, those that only a server has, and what --curl prints."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

import jadevectordb as jade
from jadevectordb.cli.main import commands

Run = Callable[..., Result]
ROWS, DIMENSION = 30, 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    password = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}
    with serving(tmp_path_factory.mktemp("cli") / "data", auth="required", env=password) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> Iterator[jade.Client]:
    with jade.Client(server.url, user="admin", password=ADMIN_PASSWORD) as client:
        yield client


@pytest.fixture(scope="module")
def key(admin: jade.Client) -> str:
    made: str = admin.call("POST", "/v1/api-keys", {"description": "tests"})["api_key"]
    return made


@pytest.fixture
def run(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as a user with a home folder of their own; `{url}` in an argument is the server's."""
    for name in ("JADEVECTORDB_URL", "JADEVECTORDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        texts = [str(argument).replace("{url}", server.url) for argument in arguments]
        result = CliRunner().invoke(commands, texts, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def signed_in(run: Run, key: str) -> Run:
    done = run("login", "{url}", "--with-key", "--secret-stdin", stdin=f"{key}\n")
    assert done.exit_code == 0, done.output
    return run


@pytest.fixture
def words(signed_in: Run, admin: jade.Client) -> Iterator[jade.client.Database]:
    made = admin.create_database("words", DIMENSION, schema={"pos": "string", "gloss": "text"})
    vectors = np.random.default_rng(3).standard_normal((ROWS, DIMENSION), dtype=np.float32)
    metadata = [{"pos": ["noun", "verb"][i % 2], "gloss": f"meaning {i}"} for i in range(ROWS)]
    made.upsert([f"w{i}" for i in range(ROWS)], vectors, metadata)
    yield made
    admin.drop_database(made.id)


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# The same commands as for a folder


def test_databases_of_a_server(signed_in: Run) -> None:
    made = signed_in("create", "@", "a", "--dimension", 4, "--metric", "dot", "--schema", '{"year": "integer"}')
    assert (made.exit_code, made.stdout) == (0, "made a: dimension 4, dot\n")
    assert signed_in("create", "@", "a", "--dimension", 4).exit_code == 1
    (listed,) = parsed(signed_in("databases", "@", "--format", "json"))
    assert (listed["name"], listed["dimension"], listed["vectors"], listed["metric"]) == ("a", 4, 0, "dot")
    assert "dot" in signed_in("databases", "@").stdout
    assert signed_in("drop", "@", "a", stdin="n\n").exit_code == 1
    assert signed_in("drop", "@", "a", "--yes").exit_code == 0
    assert parsed(signed_in("databases", "@", "--format", "json")) == []


@pytest.mark.usefixtures("words")
def test_a_place_can_be_written_in_four_ways(signed_in: Run, key: str) -> None:
    for place in (
        ["@", "words"],
        ["@default", "words"],
        ["{url}", "words", "--api-key", key],
        ["words", "--url", "{url}", "--api-key", key],
        ["words", "--profile", "default"],
        ["--url={url}", f"--api-key={key}", "words"],
    ):
        assert signed_in("count", *place).stdout == f"{ROWS}\n"
    assert signed_in("count", "words").exit_code == 2
    assert signed_in("count", "@nowhere", "words").stderr.startswith("error: There is no saved server 'nowhere'")
    refused = signed_in("count", "{url}", "words", "--api-key", "jadevdb_wrong")
    assert refused.exit_code == 1
    assert "jade login" in refused.stderr


def test_search(words: jade.client.Database, signed_in: Run, tmp_path: Path) -> None:
    found = parsed(signed_in("search", "@", "words", "--id", "w5", "-k", 4, "--recall", 1, "--format", "json"))
    assert [hit["id"] for hit in found["hits"]] == words.search(id="w5", k=4, recall=1.0).ids
    query = json.dumps(words.get("w7").vector.tolist())  # type: ignore[union-attr]
    options = ["--vector", query, "--filter", '{"pos": "verb"}', "--explain", "--vectors", "-k", 2]
    found = parsed(signed_in("search", "@", "words", *options, "--format", "json"))
    assert found["hits"][0]["id"] == "w7"
    assert found["hits"][0]["vector"] == json.loads(query)
    assert found["explanation"]["segments"]
    assert "recall asked" in signed_in("search", "@", "words", *options).stdout
    assert "w17" in signed_in("search", "@", "words", "--text", "17").stdout
    np.save(
        tmp_path / "two.npy",
        words.search_batch(np.eye(2, DIMENSION), k=1, include=["vector"])[0][0].vector[None].repeat(2, 0),
    )
    rows = list(
        csv.DictReader(
            io.StringIO(signed_in("search", "@", "words", "--file", tmp_path / "two.npy", "--format", "csv").stdout)
        )
    )
    assert len(rows) == 20
    assert (rows[0]["query"], rows[0]["rank"], rows[10]["query"]) == ("0", "1", "1")
    assert json.loads(rows[0]["metadata"]).keys() == {"pos", "gloss"}
    documents = list(
        yaml.safe_load_all(signed_in("search", "@", "words", "--file", tmp_path / "two.npy", "--format", "yaml").stdout)
    )
    assert [len(document["hits"]) for document in documents] == [10, 10]
    told = signed_in("search", "@", "words", "--embed", "green stone")
    assert told.exit_code in (0, 1)
    if told.exit_code:
        assert told.stderr.startswith("error: ")


@pytest.mark.usefixtures("words")
def test_put_get_delete(signed_in: Run) -> None:
    put = signed_in(
        "put", "@", "words", "new/1", "--vector", "[1, 2, 3, 4]", "--metadata", '{"pos": "noun", "x": [1, null]}'
    )
    assert put.stdout.startswith("stored new/1, version ")
    (got,) = parsed(signed_in("get", "@", "words", "new/1", "--vectors", "--format", "json"))
    assert (got["vector"], got["metadata"]) == ([1.0, 2.0, 3.0, 4.0], {"pos": "noun", "x": [1, None]})
    assert signed_in("put", "@", "words", "new/1", "--metadata", '{"y": 1}').exit_code == 0
    assert yaml.safe_load(signed_in("get", "@", "words", "new/1", "--format", "yaml").stdout)[0]["metadata"] == {"y": 1}
    assert signed_in("put", "@", "words", "new/1", "--vector", "[1, 2, 3, 4]", "--if-version", 0).exit_code == 1
    assert signed_in("put", "@", "words", "nobody", "--metadata", "{}").stderr.startswith(
        "error: There is no vector 'nobody'"
    )
    assert signed_in("put", "@", "words", "short", "--vector", "[1]").stderr.startswith("error: Vector 0 has 1 values")
    assert parsed(signed_in("delete", "@", "words", "new/1", "nobody", "--format", "json")) == {"deleted": 1}
    assert signed_in("delete", "@", "words", "--filter", '{"pos": "verb"}', stdin="n\n").exit_code == 1
    assert parsed(signed_in("delete", "@", "words", "--filter", '{"pos": "verb"}', "--yes", "--format", "json")) == {
        "deleted": ROWS // 2
    }
    assert signed_in("delete", "@", "words").exit_code == 2
    missing = signed_in("get", "@", "words", "w0", "w1", "--format", "csv")
    assert missing.exit_code == 1
    assert [row["id"] for row in csv.DictReader(io.StringIO(missing.stdout))] == ["w0"]
    assert signed_in("wait", "@", "words", "--for", 60).stdout == "words is indexed\n"


def test_the_same_writes_in_a_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert run("create", folder, "a", "--dimension", 2).exit_code == 0
    assert run("put", folder, "a", "x", "--vector", "[1, 2]").exit_code == 0
    assert yaml.safe_load(run("count", folder, "a", "--format", "yaml").stdout) == {"count": 1}
    assert parsed(run("delete", folder, "a", "x", "--format", "json")) == {"deleted": 1}
    assert run("wait", folder, "a").exit_code == 0
    assert run("count", folder, "a", "--curl").exit_code == 2


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_export_and_import(
    words: jade.client.Database, signed_in: Run, tmp_path: Path, suffix: str, admin: jade.Client
) -> None:
    file = tmp_path / f"words.{suffix}"
    assert parsed(signed_in("export", "@", "words", file, "--format", "json"))["rows"] == ROWS
    assert signed_in("create", "@", "copy", "--dimension", DIMENSION).exit_code == 0
    report = parsed(signed_in("import", "@", "copy", file, "--batch-rows", 7, "--format", "json"))
    assert (report["rows"], report["rows_before"]) == (ROWS, 0)
    copied = admin.database("copy")
    assert {item.id: (item.metadata, item.vector.tolist()) for item in copied.items()} == {
        item.id: (item.metadata, item.vector.tolist()) for item in words.items()
    }
    assert not list((tmp_path / "state").rglob("*.json"))
    admin.drop_database("copy")


@pytest.mark.usefixtures("words")
def test_stats_and_what_needs_files(signed_in: Run) -> None:
    assert parsed(signed_in("stats", "@", "words", "--format", "json"))["rows"] == ROWS
    assert "watermarks" in signed_in("stats", "@").stdout
    assert signed_in("compact", "@", "words").stdout.startswith(f"words: {ROWS} vectors")
    for command in (["verify", "{url}"], ["snapshot", "@", "target"]):
        refused = signed_in(*command)
        assert (refused.exit_code, "not on a server" in refused.stderr) == (1, True)


# The server itself


def test_health_and_status(run: Run, signed_in: Run) -> None:
    assert parsed(run("health", "--url", "{url}", "--format", "json"))["status"] == "healthy"
    assert "operational" in signed_in("status").stdout
    gone = run("health", "--url", "http://127.0.0.1:9")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert "is the server running" in gone.stderr
    for command in (["status"], ["cluster", "status"], ["cluster", "drain", "n1"]):  # no other server is asked instead
        refused = run(*command, "--url", "localhost:8080")
        assert (refused.exit_code, "does not begin with http://" in refused.stderr) == (1, True)


def test_users_and_keys(signed_in: Run) -> None:
    run = signed_in
    made = parsed(
        run(
            "users",
            "create",
            "ada",
            "--role",
            "user",
            "--password-stdin",
            "--format",
            "json",
            stdin="long enough pw 1\n",
        )
    )
    assert (made["username"], made["roles"]) == ("ada", ["user"])
    assert "ada" in run("users", "list", "--role", "user").stdout
    assert parsed(run("users", "show", "ada", "--format", "json"))["user_id"] == made["user_id"]
    assert "viewer" in run("users", "update", "ada", "--role", "viewer", "--inactive").stdout
    assert run("users", "update", "ada").exit_code == 2
    assert run("users", "reset-password", "ada", "--password-stdin", stdin="another long pw 2\n").exit_code == 0
    created = run("keys", "create", "for tests", "--permission", "read", "--days", 3)
    secret = created.stdout.strip()
    assert secret.startswith("jadevdb_")
    key_id = re.search(r"made (\S+)", created.stderr)
    assert key_id is not None
    assert secret not in run("keys", "list", "--format", "json").stdout
    assert parsed(run("databases", "{url}", "--api-key", secret, "--format", "json")) == []
    assert run("create", "{url}", "x", "--dimension", 2, "--api-key", secret).exit_code == 1
    assert run("keys", "revoke", key_id[1]).exit_code == 0
    assert run("databases", "{url}", "--api-key", secret).exit_code == 1
    assert run("users", "delete", "ada", stdin="n\n").exit_code == 1
    assert run("users", "delete", "ada", "--yes").stdout == "deleted ada\n"
    assert run("users", "show", "ada").exit_code == 1


def test_audit_sessions_grants(words: jade.client.Database, signed_in: Run, admin: jade.Client) -> None:
    events = parsed(signed_in("audit", "--event", "database_create", "--limit", 5, "--format", "json"))
    assert events and all(event["event_type"] == "database_create" for event in events)
    assert "total_events" in parsed(signed_in("audit", "--stats", "--format", "json"))
    assert signed_in("audit", "--event", "nonsense").exit_code == 1
    assert signed_in("sessions").exit_code == 0
    user = admin.call("POST", "/v1/users", {"username": "grace", "password": "long enough pw 3"})["user_id"]
    assert parsed(signed_in("grants", "set", "words", "grace", "read", "--format", "json")) == {user: "read"}
    assert user in signed_in("grants", "list", "words").stdout
    assert parsed(signed_in("grants", "remove", "words", "grace", "--format", "json")) == {}
    admin.call("DELETE", f"/v1/users/{user}")


# Signing in


def test_login_saves_a_session_for_the_user_alone(run: Run, tmp_path: Path) -> None:
    done = run("login", "{url}", "--user", "admin", "--secret-stdin", "--profile", "prod", stdin=f"{ADMIN_PASSWORD}\n")
    assert "as admin; saved as @prod" in done.stdout
    saved = tmp_path / "config" / "jadevectordb" / "profiles.json"
    assert oct(saved.stat().st_mode)[-3:] == "600"
    assert ADMIN_PASSWORD not in saved.read_text()
    (listed,) = parsed(run("profiles", "--format", "json"))
    assert (listed["profile"], listed["user"]) == ("prod", "admin")
    assert json.loads(saved.read_text())["prod"]["secret"] not in run("profiles").stdout
    assert run("databases", "@prod").exit_code == 0
    secret = json.loads(saved.read_text())["prod"]["secret"]
    assert run("logout", "--profile", "prod").exit_code == 0
    assert run("databases", "@prod").exit_code == 1
    assert run("databases", "{url}", "--api-key", secret).exit_code == 1  # the session is over, not only forgotten
    wrong = run("login", "{url}", "--user", "admin", "--secret-stdin", stdin="wrong wrong\n")
    assert wrong.exit_code == 1
    assert run("profiles").stdout == "No saved servers yet: jade login URL\n"
    saved.write_text("{")
    assert run("databases", "@prod").stderr.startswith("error: The saved servers in ")


# --curl


@pytest.mark.usefixtures("words")
def test_curl_prints_what_would_be_sent(signed_in: Run, key: str) -> None:
    shown = signed_in("search", "@", "words", "--vector", "[1, 0.5, 0, 0]", "--filter", '{"pos": "it\'s"}', "--curl")
    assert (shown.exit_code, key in shown.output) == (0, False)
    assert '-H "Authorization: Bearer $JADEVECTORDB_API_KEY"' in shown.stdout
    for secret in (
        signed_in("users", "create", "eve", "--password-stdin", "--curl", stdin="very secret pw\n"),
        signed_in("users", "reset-password", "eve", "--password-stdin", "--curl", stdin="very secret pw\n"),
    ):
        assert "$JADEVECTORDB_PASSWORD" in secret.stdout
        assert "very secret" not in secret.output
    assert signed_in("users", "show", "eve").exit_code == 1  # nothing was sent
    assert signed_in("drop", "@", "words", "--curl").exit_code == 0
    assert signed_in("count", "@", "words").stdout == f"{ROWS}\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: what --curl prints is not run")
def test_what_curl_prints_can_be_pasted(words: jade.client.Database, signed_in: Run, key: str) -> None:
    def paste(*arguments: object) -> Any:
        printed = signed_in(*arguments, "--curl")
        assert printed.exit_code == 0, printed.output
        environment = {**os.environ, "JADEVECTORDB_API_KEY": key, "JADEVECTORDB_PASSWORD": "pasted pw '1 long"}
        done = subprocess.run(["sh", "-c", printed.stdout], check=True, capture_output=True, text=True, env=environment)
        return json.loads(done.stdout)

    vector = json.dumps(words.get("w7").vector.tolist())  # type: ignore[union-attr]
    found = paste("search", "@", "words", "--vector", vector, "-k", 2, "--filter", '{"gloss": {"$ne": "it\'s $HOME"}}')
    assert [hit["id"] for hit in found["hits"]] == words.search(id="w7", k=1).ids or found["hits"][0]["id"] == "w7"
    assert paste("put", "@", "words", "it's", "--vector", "[1, 2, 3, 4]", "--metadata", '{"a": "ü"}')["count"] == 1
    assert paste("get", "@", "words", "it's")["vectors"][0]["metadata"] == {"a": "ü"}
    assert paste("count", "@", "words")["count"] == ROWS + 1
    assert paste("delete", "@", "words", "it's")["count"] == 1
    assert paste("search", "@", "words", "--text", "meaning")["hits"]
    assert paste("stats", "@", "words")["rows"] == ROWS
    assert paste("databases", "@")["databases"][0]["name"] == "words"
    assert paste("health")["status"] == "healthy"
    assert paste("users", "create", "pasted")["username"] == "pasted"
    assert paste("users", "delete", "pasted")["username"] == "pasted"


def test_completion(run: Run) -> None:
    assert "_JADE_COMPLETE=bash_complete" in run("completion", "bash").stdout
    assert "compdef" in run("completion", "zsh").stdout
    assert run("completion", "tcsh").exit_code == 2
