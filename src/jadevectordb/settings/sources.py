"""Where settings come from: defaults, then a TOML file, then the environment, then flags; the later wins, and it is remembered.

Environment names: JADEVECTORDB_ + section + _ + name in capitals (JADEVECTORDB_LOG_LEVEL); the section `server` is left out
(JADEVECTORDB_PORT), and JADEVECTORDB_ADMIN_PASSWORD is auth.admin_password. Lists are comma-separated.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.settings.cluster import check_cluster
from jadevectordb.settings.schema import CHOICES, SECRETS, Settings

_PREFIX = "JADEVECTORDB_"
_SHORT = {"JADEVECTORDB_ADMIN_PASSWORD": "auth.admin_password"}
_CLIENT_NAMES = frozenset(  # variables of clients and examples, not of the server
    {
        "JADEVECTORDB_URL",
        "JADEVECTORDB_API_KEY",
        "JADEVECTORDB_USER_ID",
        "JADEVECTORDB_CONFIG",
        "JADEVECTORDB_REQUIRE_BROWSER",
    }
)


@dataclass(frozen=True, slots=True)
class Known:
    """Settings and, for every `section.name`, where its value came from."""

    settings: Settings
    origins: dict[str, str]

    def shown(self) -> list[tuple[str, Any, str]]:
        """(name, value, origin) of every setting; secrets are hidden."""
        rows = []
        for name in names():
            section, _, field = name.partition(".")
            value = getattr(getattr(self.settings, section), field)
            rows.append((name, "(set)" if name in SECRETS and value else value, self.origins.get(name, "default")))
        return rows


def names() -> list[str]:
    return [
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    ]


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    for variable, meant in _SHORT.items():
        if meant == name:
            return variable
    section, _, field = name.partition(".")
    return _PREFIX + (field if section == "server" else f"{section}_{field}").upper()


def load(file: str | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Known:
    """flags: by `section.name`, None = not given. Raises INVALID_ARGUMENT naming the setting, where it was set, and what it may be."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = file or environment.get("JADEVECTORDB_CONFIG") or None
    if file is not None:
        for name, value in _from_file(Path(file)).items():
            values[name], origins[name] = value, f"file {file}"
    for name, (variable, text) in _from_environment(environment).items():
        values[name], origins[name] = text, f"environment {variable}"
    for name, value in flags.items():
        if value is not None:
            values[name], origins[name] = value, "flag"
    settings = _checked(values, origins)
    return Known(settings, origins)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _wrong(f"The settings file {path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"The settings file {path} is not valid TOML: {error}.") from None
    known, found = set(names()), {}
    for section, content in document.items():
        if not isinstance(content, dict):
            raise _wrong(f"{path}: {section!r} stands outside a section; sections are {_sections()}.")
        for field, value in content.items():
            name = f"{section}.{field}"
            if name not in known:
                raise _wrong(f"{path}: there is no setting {name!r}.{_nearest(name, known)}")
            found[name] = value
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    by_variable = {variable_of(name): name for name in names()}
    found = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _CLIENT_NAMES:
            continue
        name = by_variable.get(variable)
        if name is None:
            raise _wrong(f"The environment variable {variable} is no setting.{_nearest(variable, set(by_variable))}")
        found[name] = (variable, text)
    return found


def _checked(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    types = {
        f"{section.name}.{field.name}": field.type
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }
    for name, value in values.items():
        section, _, field = name.partition(".")
        if isinstance(value, str) and types[name] == list[str]:
            value = [part.strip() for part in value.split(",") if part.strip()]
        try:
            sections.setdefault(section, {})[field] = msgspec.convert(
                value, types[name], strict=not isinstance(value, str)
            )
        except msgspec.ValidationError as error:
            raise _wrong(f"{name} ({origins[name]}) is {_shown(name, value)}: {error}.") from None
        allowed = CHOICES.get(name)
        if allowed and value not in allowed:
            raise _wrong(f"{name} ({origins[name]}) is {value!r}: use one of {', '.join(allowed)}.")
    settings = msgspec.convert(sections, Settings)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if settings.auth.is_open and not settings.on_loopback:
        raise _wrong(
            f"auth.mode open-loopback needs server.host to be a loopback address, not {settings.server.host!r}: "
            "without sign-in the server must not be reachable from other machines."
        )
    tls = settings.tls
    if bool(tls.certificate) != bool(tls.key):
        raise _wrong("tls.certificate and tls.key go together: give both or neither.")
    if tls.client_ca and not tls.certificate:
        raise _wrong("tls.client_ca needs tls.certificate and tls.key.")
    for name, path in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path and not Path(path).is_file():
            raise _wrong(f"tls.{name}: there is no file {path}.")
    for name, addresses in (
        ("trusted_proxies", settings.auth.trusted_proxies),
        ("metrics_allow", settings.auth.metrics_allow),
    ):
        for address in addresses:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                raise _wrong(f"auth.{name}: {address!r} is no IP address or network.") from None
    if settings.auth.admin_password and len(settings.auth.admin_password) < 8:
        raise _wrong("auth.admin_password must have at least 8 characters.")
    check_cluster(settings.cluster, processes=settings.server.processes)


def _shown(name: str, value: Any) -> str:
    return "(hidden)" if name in SECRETS else repr(value)


def _sections() -> str:
    return ", ".join(section.name for section in msgspec.structs.fields(Settings))


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else " `jade config show` lists all of them."


def _wrong(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
