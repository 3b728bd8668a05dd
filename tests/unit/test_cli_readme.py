"""The README's examples are run as they are written: what a newcomer copies works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.serving import ADMIN_PASSWORD, serving

ROOT = Path(__file__).parents[2]


def test_python_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2, "the embedded database, and the client of a server"
    first, second = blocks
    lines = run(first, tmp_path)
    assert lines[0] == "item-0 1.0 red"
    assert re.fullmatch(r"\d+ vectors, \d+ compared exactly", lines[-1])
    with serving(tmp_path / "served", auth="required", env={"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD}) as server:
        second = second.replace("http://127.0.0.1:8080", server.url).replace('"..."', repr(ADMIN_PASSWORD))
        data = first[: first.index("with jade.open")]
        assert run(data + second + "\nprint(len(db))", tmp_path) == ["1000"]


def run(program: str, folder: Path) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_shell_commands_exist() -> None:
    from jadevectordb.cli.main import commands

    named = set(re.findall(r"^jade (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= set(commands.commands)
