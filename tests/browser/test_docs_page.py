"""The API reference: every operation of the description, found by words, readable without a network, tried with the token."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.serving import ServerProcess


def test_every_operation_is_there_and_found_by_words(visit: Open, server: ServerProcess) -> None:
    status, description = server.call("GET", "/openapi.json")
    assert status == 200
    operations = sum(
        method in ("get", "post", "put", "patch", "delete") for item in description["paths"].values() for method in item
    )
    page = visit("/docs")
    expect(page.locator(".operation")).to_have_count(operations)
    page.get_by_label("Find operations").fill("post search/batch")
    expect(page.locator(".operation:visible").first).to_contain_text("/search/batch")
    page.get_by_label("Find operations").fill("nothing like this")
    expect(page.get_by_text("No operation matches.")).to_be_visible()
    page.get_by_label("Find operations").fill("")
    for summary in page.locator(".operation > summary").all()[:: max(1, operations // 12)]:
        summary.click()
    expect(page.locator(".operation[open] .try").first).to_be_visible()


def test_an_operation_is_tried_with_the_token_of_the_console(visit: Open, server: ServerProcess, token: str) -> None:
    anonymous = visit("/docs")
    tried = anonymous.locator(".operation", has=anonymous.get_by_text("/v2/databases", exact=True)).filter(
        has_text="GET"
    )
    tried.locator("summary").first.click()
    tried.get_by_role("button", name="Send GET").click()
    expect(tried.locator(".try .badge")).to_have_text("401")

    page = visit("/docs", token)
    made = page.locator(".operation", has=page.get_by_text("/v2/databases", exact=True)).filter(has_text="POST")
    made.locator("summary").first.click()
    made.get_by_label("Body").fill("{'name': 1}")
    made.get_by_role("button", name="Send POST").click()
    expect(made.locator("mark")).to_have_text("'")
    made.get_by_label("Body").fill('{"name": "from the reference", "dimension": 7}')
    made.get_by_role("button", name="Send POST").click()
    expect(made.locator(".try .badge")).to_have_text("201")
    expect(made.get_by_label("Answer")).to_contain_text('"from the reference"')
    got = page.locator(".operation", has=page.get_by_text("/v2/databases/{db}", exact=True)).filter(has_text="GET")
    got.locator("summary").first.click()
    got.get_by_role("button", name="Send GET").click()
    expect(got.get_by_text("db is part of the path.")).to_be_visible()
    got.get_by_label("db").fill("from the reference")
    got.get_by_role("button", name="Send GET").click()
    expect(got.get_by_label("Answer")).to_contain_text('"dimension": 7')
