"""Saved servers: what `jade login` writes, so that later commands need neither a URL nor a secret.

One JSON file for the user alone (mode 600), in $XDG_CONFIG_HOME/jadevectordb or ~/.config/jadevectordb.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import jadevectordb as jade

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    """secret: a session token or an API key. ca: file of authorities to trust, "" = the system's."""

    url: str
    secret: str = ""
    user: str = ""
    ca: str = ""


def path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "jadevectordb" / "profiles.json"


def load_all() -> dict[str, Profile]:
    """By name. Raises IO_ERROR for a file that can't be read."""
    file = path()
    try:
        return {name: Profile(**fields) for name, fields in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise jade.JadeError(
            jade.ErrorCode.IO_ERROR, f"The saved servers in {file} can't be read ({error}): repair or remove the file."
        ) from None


def load(name: str) -> Profile:
    """Raises NOT_FOUND."""
    known = load_all()
    if name not in known:
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND,
            f"There is no saved server {name!r} (there are: {', '.join(sorted(known)) or 'none'}). Save one with "
            f"`jade login URL --profile {name}`.",
        )
    return known[name]


def save(name: str, profile: Profile | None) -> None:
    """None removes it. Replaces the file as a whole; nobody else may read it at any moment."""
    known = load_all()
    if profile is None:
        known.pop(name, None)
    else:
        known[name] = profile
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            json.dump({name: asdict(each) for name, each in sorted(known.items())}, out, indent=1)
        beside.replace(file)
    except OSError as error:
        raise jade.JadeError(
            jade.ErrorCode.IO_ERROR, f"The saved servers can't be written to {file} ({error.strerror})."
        ) from error
