"""The console's files over HTTP: types, policy, revalidation, nothing beyond them; and nothing they need from elsewhere."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.serving import ServerProcess, serving

FOLDER = Path(str(resources.files("jadevectordb.gateway.console")))
FILES = sorted(
    p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.suffix in (".html", ".css", ".js", ".svg")
)
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("files") / "data", auth="required") as running:
        yield running


def fetch(
    server: ServerProcess, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """The path goes over the wire exactly as it is given."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/console", "/console/", "/docs", *(f"/console/{name}" for name in FILES)])
def test_every_file_is_served_to_anybody_under_a_strict_policy(server: ServerProcess, path: str) -> None:
    status, headers, body = fetch(server, path)
    suffix = Path(path).suffix or ".html"
    assert status == 200 and body
    assert headers["content-type"].startswith(TYPES[suffix])
    policy = {part.split()[0]: part.split()[1:] for part in headers["content-security-policy"].split("; ")}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    again, headers_again, nothing = fetch(server, path, if_none_match=headers["etag"])
    assert (again, headers_again["etag"], nothing) == (304, headers["etag"], b"")
    assert fetch(server, path, if_none_match=f'"other", W/{headers["etag"]}')[0] == 304
    assert fetch(server, path, if_none_match='"other"')[0] == 200
    status, headers, nothing = fetch(server, path, "HEAD")
    assert status == 200 and nothing == b"" and int(headers["content-length"]) == len(body)


@pytest.mark.parametrize(
    "path",
    [
        "/console/../http.py", "/console/..%2fhttp.py", "/console/%2e%2e/%2e%2e/main.py", "/console/pages/..%2f..%2f..%2fmain.py",
        "/console/..%5c..%5cmain.py", "/console//etc/passwd", "/console/%2fetc%2fpasswd", "/console/__init__.py", "/console/pages",
        "/console/pages/", "/console/app.js%00.html", "/console/APP.JS", "/console/app.js/x", "/console/%ff", "/docs/index.html",
        "/console/pages%2fsearch.js%2f..%2f..%2f__init__.py",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server: ServerProcess, path: str) -> None:
    status, headers, body = fetch(server, path)
    assert status in (400, 404), body[:200]
    assert headers["content-type"].startswith("application/json")
    assert b"def " not in body and b"root:" not in body


def test_only_reading_is_possible(server: ServerProcess) -> None:
    for method in ("POST", "PUT", "DELETE"):
        status, headers, _ = fetch(server, "/console/app.js", method, content_length="0")
        assert (status, headers["allow"]) == (405, "GET")


def test_the_files_need_nothing_from_elsewhere_and_nothing_inline() -> None:
    for name in FILES:
        text = (FOLDER / name).read_text()
        addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`)]*""", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML\s*=|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|@import|url\(", text
        ), name
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", text), name
            for found in re.findall(r'(?:src|href)="(/console[^"]*)"', text):
                assert found == "/console" or found.removeprefix("/console/") in FILES, f"{name} asks for {found}"
        if name.endswith(".js"):
            for found in re.findall(r'from "([^"]+)"', text):
                assert (FOLDER / name).parent.joinpath(found).resolve().is_file(), f"{name} imports {found}"


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name.removeprefix("jadevectordb/gateway/console/") for name in archive.namelist()}
    assert held >= set(FILES)
