"""Settings: which source wins, where a value came from, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.settings.schema import Settings
from jadevectordb.settings.sources import load, names, variable_of


def write(folder: Path, text: str) -> str:
    path = folder / "jade.toml"
    path.write_text(text)
    return str(path)


def test_the_later_source_wins_and_is_remembered(tmp_path: Path) -> None:
    file = write(tmp_path, '[server]\nport = 1\nhost = "localhost"\nthreads = 3\n[log]\nlevel = "debug"\n')
    known = load(
        file,
        {"JADEVECTORDB_PORT": "2", "JADEVECTORDB_THREADS": "4", "HOME": "/x"},
        {"server.port": 5, "server.data": None},
    )
    settings = known.settings
    assert (settings.server.port, settings.server.threads, settings.server.host) == (5, 4, "localhost")
    assert settings.log.level == "debug" and settings.server.data == "./jade-data"
    assert known.origins["server.port"] == "flag"
    assert known.origins["server.threads"] == "environment JADEVECTORDB_THREADS"
    assert known.origins["log.level"] == f"file {file}"
    shown = {name: origin for name, _, origin in known.shown()}
    assert shown["server.data"] == "default" and set(shown) == set(names())


def test_every_setting_can_be_set_in_the_environment() -> None:
    variables = [variable_of(name) for name in names()]
    assert len(set(variables)) == len(variables)
    assert variable_of("auth.admin_password") == "JADEVECTORDB_ADMIN_PASSWORD"
    environment = {"JADEVECTORDB_CORS_ORIGINS": "http://a, http://b,", "JADEVECTORDB_REQUEST_TIMEOUT_S": "2.5"}
    settings = load(None, environment, {}).settings
    assert settings.cors.origins == ["http://a", "http://b"] and settings.server.request_timeout_s == 2.5


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, "[server]\ngrpc_port = -1\n")
    assert load(None, {"JADEVECTORDB_CONFIG": file}, {}).settings.server.grpc_port == -1


def test_secrets_are_never_shown() -> None:
    known = load(None, {"JADEVECTORDB_ADMIN_PASSWORD": "correct horse"}, {})
    assert "correct horse" not in str(known.shown())
    with pytest.raises(JadeError) as caught:
        load(None, {"JADEVECTORDB_ADMIN_PASSWORD": "sesame"}, {})
    assert "sesame" not in caught.value.message and "8 characters" in caught.value.message


WRONG: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("", {"JADEVECTORDB_PROT": "1"}, {}, "JADEVECTORDB_PORT"),
    ("", {"JADEVECTORDB_PORT": "http"}, {}, "server.port (environment JADEVECTORDB_PORT)"),
    ("", {"JADEVECTORDB_PORT": "70000"}, {}, "65535"),
    ("[server]\nprot = 1\n", {}, {}, "'server.port'"),
    ("port = 1\n", {}, {}, "outside a section"),
    ("[server\n", {}, {}, "not valid TOML"),
    ("[server]\nport = '1'\n", {}, {"server.threads": 0}, "server.threads (flag)"),
    ("", {}, {"auth.mode": "off"}, "open-loopback"),
    ("", {}, {"auth.mode": "open-loopback", "server.host": "0.0.0.0"}, "loopback"),
    ("", {}, {"tls.certificate": "/none"}, "go together"),
    ("", {}, {"tls.certificate": "/none", "tls.key": "/none"}, "no file /none"),
    ("", {}, {"tls.client_ca": "/none"}, "needs tls.certificate"),
    ("", {"JADEVECTORDB_AUTH_TRUSTED_PROXIES": "proxy.local"}, {}, "no IP address"),
]


@pytest.mark.parametrize("text, environment, flags, told", WRONG)
def test_a_wrong_setting_is_named_with_its_source(
    tmp_path: Path, text: str, environment: dict[str, str], flags: dict[str, Any], told: str
) -> None:
    with pytest.raises(JadeError) as caught:
        load(write(tmp_path, text) if text else None, environment, flags)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT and told in caught.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(JadeError, match="can't be read"):
        load(str(tmp_path / "none.toml"), {}, {})


def test_the_defaults_are_safe() -> None:
    settings = Settings()
    assert settings.on_loopback and not settings.auth.is_open and settings.cors.origins == []
