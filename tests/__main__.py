"""Runs all tests: `python -m tests`, in four groups side by side.

Much of what is tested is waiting: for an election, for a server to be found dead, for a disk. One after the other that would be more
than twice as long. The groups share nothing but the machine; each prints its whole output when it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

_HERE = Path(__file__).parent
_GROUPS = (
    ("jetstream", "faults"),
    ("contract", "crash", "nemesis", "simulation", "fuzz", "property"),
    ("server", "browser"),
)  # and those that are in none of them


def _run(folders: tuple[str, ...]) -> tuple[tuple[str, ...], int, str, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", *(f"tests/{folder}" for folder in folders)]
    done = subprocess.run(
        command, cwd=_HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return folders, done.returncode, done.stdout, time.monotonic() - began


def main() -> int:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # who was started in the background ignores it, and so do his children
    named = {folder for group in _GROUPS for folder in group}
    others = tuple(sorted({path.parent.name for path in _HERE.glob("*/test_*.py")} - named))
    failed = False
    with ThreadPoolExecutor(len(_GROUPS) + 1) as pool:
        for future in as_completed([pool.submit(_run, group) for group in (*_GROUPS, others)]):
            folders, code, output, seconds = future.result()
            sys.stdout.write(
                f"{output}\n{', '.join(folders)}: {'passed' if code == 0 else 'FAILED'} in {seconds:.0f} s\n\n"
            )
            sys.stdout.flush()
            failed = failed or code != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
