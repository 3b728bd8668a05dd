"""The part of requirements.lock that a server needs, with its hashes: what the tests and linters need stays out of images.

    python deploy/production_lock.py [--extra NAME]... [--also PACKAGE]... > production.lock

The lock says for every package why it is there (`# via`). Starting from the dependencies in pyproject.toml, and those of the
extras named, this keeps the packages that are reachable. Versions and hashes stay as locked, so `pip install --require-hashes`
accepts the result and nothing can differ from what was tested. Uses only the standard library.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OURS = "jadevectordb"


@dataclass(frozen=True)
class Locked:
    """A requirement as it stands in the lock. text: with its hashes. wanted_by: packages that asked for it."""

    name: str
    text: str
    wanted_by: frozenset[str]


def normalized(name: str) -> str:
    found = _NAME.match(name)
    if found is None:
        raise ValueError(f"no package name in {name!r}")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def parse_lock(text: str) -> list[Locked]:
    """Every requirement of the lock. One name may be there twice, for different Python versions."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            blocks.append([line])
        elif blocks and line.strip():
            blocks[-1].append(line)
    return [_locked(lines) for lines in blocks]


def _locked(lines: list[str]) -> Locked:
    wanted_by = set()
    for line in lines[1:]:
        stripped = line.strip()
        if stripped.startswith("#"):
            reason = stripped.lstrip("# ").removeprefix("via").strip()
            if reason:
                wanted_by.add(normalized(reason))
    requirement = [line for line in lines if not line.strip().startswith("#")]
    return Locked(normalized(lines[0]), "\n".join(requirement), frozenset(wanted_by))


def roots(project: str, extras: list[str]) -> set[str]:
    """The names that the project asks for by itself."""
    table = tomllib.loads(project)["project"]
    optional = table["optional-dependencies"]
    unknown = set(extras) - set(optional)
    if unknown:
        raise ValueError(f"there is no extra {', '.join(sorted(unknown))}; there are {', '.join(sorted(optional))}")
    wanted = [*table["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {normalized(line) for line in wanted}


def production(lock: list[Locked], wanted: set[str]) -> list[Locked]:
    """The requirements reachable from `wanted`, in the lock's order."""
    missing = wanted - {locked.name for locked in lock}
    if missing:
        raise ValueError(f"not in the lock: {', '.join(sorted(missing))}; run `make lock`")
    kept = set(wanted)
    while True:
        more = {locked.name for locked in lock if locked.name not in kept and locked.wanted_by & (kept - {_OURS})}
        if not more:
            return [locked for locked in lock if locked.name in kept]
        kept |= more


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml to include")
    parser.add_argument("--also", action="append", default=[], help="a locked package to include, whoever needs it")
    options = parser.parse_args(arguments)
    try:
        wanted = roots((ROOT / "pyproject.toml").read_text(), options.extra) | {normalized(one) for one in options.also}
        kept = production(parse_lock((ROOT / "requirements.lock").read_text()), wanted)
    except ValueError as error:
        print(f"production_lock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("\n".join(locked.text for locked in kept))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
