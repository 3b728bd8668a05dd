"""Breaks a real cluster for some minutes while clients use it, and says whether it kept its word.

    python -m tests.nemesis --minutes 3 --seed 7 --nodes 3

Exit code 0: nothing wrong was found, and the search was completed. 1: something was, and is told with the slice of history that shows it.
The same seed chooses the same faults and the same calls; when they meet is up to the machine.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.nemesis.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults; starting and settling come on top")
    parser.add_argument("--seed", type=int, default=None, help="drawn and told when it is not given")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--only", default="", help='faults with this in their name, such as "kill" or "partition"')
    parser.add_argument("--by-vector", action="store_true", help="of a database whose vectors decide their shard")
    parser.add_argument("--folder", type=Path, default=None, help="a new folder for history, report and logs")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {options.nodes} nodes, {options.minutes:g} minutes, in {folder}", flush=True)
    plan = Plan(folder, options.minutes * 60, seed, options.nodes, options.clients, options.only, options.by_vector)
    outcome = run(plan, lambda text: print(text, flush=True))
    print(f"\n{outcome.text()}", flush=True)
    if outcome.is_good and options.folder is None:
        for path in folder.iterdir():
            if path.suffix in (".disk", ".toml", ".out"):
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
