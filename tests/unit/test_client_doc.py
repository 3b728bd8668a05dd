"""The Python examples of docs/client.md run as they stand, one after the other, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.serving import serving

DOC = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(examples) == 3
    with serving(tmp_path / "data") as server:
        program = "\n".join(examples).replace("http://127.0.0.1:8080", server.url)
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"JADEVECTORDB_URL": server.url, "PATH": ""},
        )
    assert done.returncode == 0, done.stderr
    first, loaded, answers = done.stdout.splitlines()
    assert first == "a 1.0 {'pos': 'noun'} [1. 0. 0. 0.]"
    assert loaded.startswith("5000 vectors in ")
    assert answers.count("[") == 5
    assert not (tmp_path / "words.progress").exists()
