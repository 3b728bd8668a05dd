"""Signing in and out of the console, accounts and keys, and what it shows when the server refuses or is gone."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, sign_in
from tests.serving import ADMIN_PASSWORD, ServerProcess, serving


def log_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("User name or e-mail").fill(name)
    page.get_by_label("Password", exact=True).last.fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_password_signs_in_for_this_tab_only(visit: Open) -> None:
    page = visit("/console#/databases")
    expect(page.get_by_role("heading", name="Sign in to JadeVectorDB")).to_be_visible()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Enter your user name or e-mail.")).to_be_visible()
    log_in(page, "admin", "not the password")
    expect(page.get_by_role("alert").filter(has_text="Unauthorized")).to_be_visible()
    log_in(page, "admin", ADMIN_PASSWORD)
    expect(page.get_by_role("heading", name="Databases", level=1)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Databases", level=1)).to_be_visible()
    assert page.evaluate("localStorage.length") == 0 and page.context.cookies() == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to JadeVectorDB")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_session_that_was_ended_asks_to_sign_in_again(visit: Open, server: ServerProcess) -> None:
    token = sign_in(server, "admin", ADMIN_PASSWORD)
    page = visit("/console#/logs", token)
    expect(page.get_by_role("heading", name="Logs")).to_be_visible()
    assert server.call("POST", "/v1/auth/logout", token=token)[0] == 200
    expect(page.get_by_text("Your sign-in has ended")).to_be_visible()  # the page follows the log, and is refused
    log_in(page, "admin", ADMIN_PASSWORD)
    expect(page.get_by_role("heading", name="Logs")).to_be_visible()


def test_users_and_keys(visit: Open, server: ServerProcess, token: str) -> None:
    page = visit("/console#/users", token)
    page.get_by_role("button", name="Create user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("User name").fill("grace")
    dialog.get_by_label("Password").fill("short")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.locator(".form-failure")).to_contain_text("password")
    dialog.get_by_label("Password").fill("a longer password")
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_role("cell", name="grace")).to_be_visible()

    page.get_by_role("link", name="API keys").click()
    page.get_by_role("button", name="Create key").click()
    dialog.get_by_label("What is it for?").fill("nightly <b>import</b>")
    dialog.get_by_label("For user").select_option(label="grace")
    dialog.get_by_role("button", name="Create", exact=True).click()
    secret = page.locator(".secret").inner_text()
    assert re.fullmatch(r"jadevdb_[\w.-]{43,}", secret)
    page.get_by_role("button", name="I have kept it").click()
    expect(page.locator(".secret")).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="nightly <b>import</b>")
    expect(row.get_by_text("active")).to_be_visible()
    expect(row.get_by_text("grace")).to_be_visible()
    assert secret not in page.content()
    assert server.call("GET", "/v2/databases", token=secret)[0] == 200

    reader = visit("/console")
    reader.get_by_label("API key").check()
    reader.get_by_label("API key").last.fill("jadevdb_wrong")
    reader.get_by_role("button", name="Sign in").click()
    expect(reader.get_by_role("alert").filter(has_text="Unauthorized")).to_be_visible()
    reader.get_by_label("API key").last.fill(secret)
    reader.get_by_role("button", name="Sign in").click()
    expect(reader.get_by_role("heading", name="Overview")).to_be_visible()
    expect(reader.get_by_role("link", name="Users")).to_have_count(0)
    reader.goto(server.url + "/console#/logs")
    expect(reader.get_by_role("alert")).to_contain_text("needs")

    row.get_by_role("button", name="Revoke").click()
    dialog.get_by_role("button", name="Revoke").click()
    expect(row.get_by_text("revoked")).to_be_visible()
    assert server.call("GET", "/v2/databases", token=secret)[0] == 401


def test_a_password_set_by_somebody_else_must_be_changed(visit: Open, server: ServerProcess, token: str) -> None:
    status, made = server.call("POST", "/v1/users", {"username": "lin", "password": "first password"}, token=token)
    assert status == 201, made
    page = visit("/console#/users", token)
    page.get_by_role("row").filter(has_text="lin").get_by_role("button", name="Reset password").click()
    page.get_by_role("dialog").get_by_label("New password").fill("second password")
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(page.get_by_text("The password of lin was reset.")).to_be_visible()

    theirs = visit("/console#/databases")
    log_in(theirs, "lin", "second password")
    expect(theirs.get_by_text("choose your own to go on")).to_be_visible()
    theirs.get_by_role("link", name="Search").click()
    expect(theirs.get_by_text("choose your own to go on")).to_be_visible()
    theirs.get_by_label("Present password").fill("wrong password")
    theirs.get_by_label("New password", exact=True).fill("third password")
    theirs.get_by_label("New password again").fill("another password")
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.get_by_text("This is not the same as above.")).to_be_visible()
    theirs.get_by_label("New password again").fill("third password")
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.locator(".field", has=theirs.get_by_label("Present password")).get_by_role("alert")).not_to_be_empty()
    theirs.get_by_label("Present password").fill("second password")
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.get_by_text("The password was changed.")).to_be_visible()
    theirs.get_by_role("link", name="Databases").click()
    expect(theirs.get_by_text("There is no database you can see.")).to_be_visible()


def test_open_mode_needs_no_sign_in_and_a_dead_server_is_told(visit: Open, tmp_path: Path) -> None:
    with serving(tmp_path / "open") as own:
        page = visit("/console", server=own)
        expect(page.get_by_text("open mode: no sign-in needed")).to_be_visible()
        expect(page.get_by_text("operational")).to_be_visible()
        page.get_by_role("link", name="Create the first database").click()
        page.get_by_role("dialog").get_by_label("Name").fill("mine")
        page.get_by_role("dialog").get_by_role("button", name="Create", exact=True).click()
        expect(page.get_by_role("heading", name="mine")).to_be_visible()
        page.get_by_role("navigation").get_by_role("link", name="Overview").click()
        expect(page.get_by_role("link", name="mine")).to_be_visible()
        own.kill()
        expect(page.get_by_role("alert").filter(has_text="cannot be reached. Is it running?")).to_be_visible()
        page.get_by_role("link", name="Databases").click()
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_the_first_administrator_is_made_with_the_token_that_the_server_printed(visit: Open, tmp_path: Path) -> None:
    with serving(tmp_path / "fresh", auth="required") as own:
        assert own.process.stdout is not None
        printed = re.search(r"jadesetup_[\w.-]+", own.process.stdout.readline())
        assert printed is not None
        page = visit("/console", server=own)
        page.get_by_label("First start").check()
        page.get_by_label("Setup token").fill("jadesetup_guessed")
        page.get_by_label("User name").fill("root")
        page.get_by_label("Password").last.fill("a first password")
        make = page.get_by_role("button", name="Make the first administrator")
        make.click()
        expect(page.get_by_role("alert").filter(has_text="the setup token is wrong")).to_be_visible()
        page.get_by_label("Setup token").fill(printed[0])
        make.click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(page.get_by_role("link", name="Users")).to_be_visible()
        page.close()  # before its server ends, which would cut off what it is loading
