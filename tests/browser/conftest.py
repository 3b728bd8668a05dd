"""A headless Chromium for these tests, the system's own; without one they are skipped, and the summary says so loudly.

JADEVECTORDB_REQUIRE_BROWSER=1 makes a missing browser a failure instead: that is how continuous integration runs them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.serving import ADMIN_PASSWORD, ServerProcess, serving

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_REQUIRED = "JADEVECTORDB_REQUIRE_BROWSER"
_MISSING = pytest.StashKey[int]()
_SERVER_KILLED = ("CONNECTION_REFUSED", "CONNECTION_RESET", "CONNECTION_CLOSED", "EMPTY_RESPONSE")  # by a test
WAIT_MS = 60_000
Open = Callable[..., Page]


def chromium() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    if not mine or chromium() is not None or os.environ.get(_REQUIRED) == "1":
        return
    config.stash[_MISSING] = len(mine)
    for item in mine:
        item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash.get(_MISSING, 0)
    if missing:
        terminalreporter.write_sep(
            "!", f"THE WEB CONSOLE WAS NOT TESTED: {missing} browser tests skipped", red=True, bold=True
        )
        terminalreporter.write_line(
            "There is no Chromium here. Install it (Debian: apt-get install chromium) and run: pytest tests/browser\n"
            f"With {_REQUIRED}=1 these tests fail instead of being skipped.",
            red=True,
        )


@pytest.fixture(scope="package")  # the driver keeps an event loop of its own running: it must end with these tests
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.fail(f"{_REQUIRED}=1 is set, but there is no Chromium: looked for {', '.join(_NAMES)}")
    # Chromium's own sandbox does not start for root, nor in most containers
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With an administrator, and every search counted as slow."""
    environment = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD, "JADEVECTORDB_LOG_SLOW_QUERY_MS": "0.001"}
    with serving(tmp_path_factory.mktemp("console") / "data", auth="required", env=environment) as running:
        yield running


@pytest.fixture(scope="package")
def token(server: ServerProcess) -> str:
    return sign_in(server, "admin", ADMIN_PASSWORD)


def sign_in(server: ServerProcess, name: str, password: str) -> str:
    status, answer = server.call("POST", "/v1/auth/login", {"username": name, "password": password})
    assert status == 200, answer
    found: str = answer["token"]
    return found


class Complaints:
    """What a page must not do: fail in a script, break the content policy, ask other servers, open a dialog."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def watch(self, page: Page, host: str) -> None:
        page.on("pageerror", lambda error: self.heard.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("dialog", lambda dialog: (self.heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: self.heard.append(f"asked {request.url}") if urlsplit(request.url).netloc != host else None,
        )

    def _console(self, message: ConsoleMessage) -> None:
        # A refused request is reported by the browser too; the console shows it as a sentence
        expected = any(f"status of {status}" in message.text for status in (400, 401, 403, 404, 409)) or (
            any(f"ERR_{what}" in message.text for what in _SERVER_KILLED)
        )
        if message.type in ("error", "warning") and not expected:
            self.heard.append(f"{message.type}: {message.text}")


@pytest.fixture()
def visit(browser: Browser, server: ServerProcess) -> Iterator[Open]:
    """visit(path, token="", server=…, scheme="light"): a page of its own, watched to its end."""
    complaints = Complaints()
    contexts = []

    def visiting(path: str, token: str = "", server: ServerProcess = server, scheme: str = "light") -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        complaints.watch(page, urlsplit(server.url).netloc)
        if token:
            page.add_init_script(f"sessionStorage.setItem('jade.credential', '{token}')")
        page.goto(server.url + path)
        return page

    yield visiting
    for context in contexts:
        context.close()
    assert complaints.heard == []
