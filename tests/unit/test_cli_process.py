"""The installed command as a shell runs it: exit codes, streams, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jadevectordb as jade


def jade_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from jadevectordb.cli.main import main; main()", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_version_and_help() -> None:
    version = jade_command("--version")
    assert (version.returncode, version.stdout) == (0, f"jade, version {jade.__version__}\n")
    shown = jade_command("--help")
    assert shown.returncode == 0
    for name in ("demo", "databases", "create", "drop", "stats", "search", "get", "count", "import", "export"):
        assert f"\n  {name} " in shown.stdout


def test_exit_codes_and_streams(tmp_path: Path) -> None:
    assert jade_command("create", tmp_path / "s", "a", "--dimension", 4).returncode == 0
    counted = jade_command("count", tmp_path / "s", "a")
    assert (counted.returncode, counted.stdout, counted.stderr) == (0, "0\n", "")
    refused = jade_command("count", tmp_path / "s", "b")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: There is no database 'b'")
    assert "Traceback" not in refused.stderr
    assert jade_command("count").returncode == 2


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with jade.open(tmp_path / "s") as store:
        store.create_database("a", 4)
        refused = jade_command("count", tmp_path / "s", "a")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr


def test_a_poor_terminal_gets_question_marks(tmp_path: Path) -> None:
    with jade.open(tmp_path / "s") as store:
        store.create_database("a", 2).upsert(["x"], [[1.0, 0.0]], [{"word": "jadeïet 玉"}])
    shown = jade_command("get", tmp_path / "s", "a", "x", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert "word=jade?et ?" in shown.stdout


def test_demo_says_what_is_missing(tmp_path: Path) -> None:
    missing = jade_command("demo", "--data", tmp_path)
    assert missing.returncode == 1
    assert "--data FOLDER" in missing.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused = jade_command("demo", "--folder", tmp_path / "full")
    assert refused.returncode == 1
    assert "not an empty folder" in refused.stderr
    assert (tmp_path / "full" / "file").exists()
