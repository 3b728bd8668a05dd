"""Small and read-only file systems, mounted for one test; skipped loudly where that is not allowed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED without root: a file system must be mounted")


@contextmanager
def mounted(path: Path, kind: str, options: str) -> Iterator[Path]:
    """An empty file system of this kind at `path`, which is made."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", kind, "-o", options, kind, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: mounting is not allowed here ({done.stderr.strip()})")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)
