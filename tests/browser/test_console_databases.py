"""A user's first hour in the console: make a database, search it, read the plan, browse, make mistakes, drop it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.serving import ServerProcess

WORDS = ["river", "stone", "light", "quick", "silver", "green", "forest", "mountain", "bird", "song"]


@pytest.fixture(scope="module")
def words(server: ServerProcess, token: str) -> str:
    """A database of 60 vectors with metadata and a text field; its id."""
    schema = {"gloss": "text", "year": "integer"}
    status, made = server.call(
        "POST", "/v2/databases", {"name": "words", "dimension": 4, "schema": schema}, token=token
    )
    assert status == 201, made
    fill(server, token, made["id"], 60)
    found: str = made["id"]
    return found


def fill(server: ServerProcess, token: str, database: str, count: int, **metadata: Any) -> None:
    source = random.Random(7)
    rows = [
        {
            "id": f"w{i:03}",
            "values": [source.gauss(0, 1) for _ in range(4)],
            "metadata": {"gloss": " ".join(source.choices(WORDS, k=5)), "year": 1960 + i, **metadata},
        }
        for i in range(count)
    ]
    status, answer = server.call("POST", f"/v2/databases/{database}/vectors", {"vectors": rows}, token=token)
    assert status == 200, answer


def submit(page: Page) -> None:
    page.get_by_role("main").get_by_role("button", name="Search", exact=True).click()


def test_a_database_is_created_searched_and_dropped(visit: Open, server: ServerProcess, token: str) -> None:
    page = visit("/console#/databases", token)
    page.get_by_role("button", name="Create database").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_role("alert").filter(has_text="Give the database a name.")).to_be_visible()
    dialog.get_by_label("Name").fill("birds & trees")
    dialog.get_by_label("Dimension").fill("5000")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(dialog.get_by_text("This must be a whole number from 1 to 4096.")).to_be_visible()
    dialog.get_by_label("Dimension").fill("4")
    dialog.get_by_text("Metadata fields and more").click()
    dialog.get_by_role("button", name="Add a field").click()
    dialog.get_by_label("Field name").fill("gloss")
    dialog.get_by_label("Field type").select_option("text")
    dialog.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", name="birds & trees", level=1)).to_be_visible()
    expect(page.get_by_text("It holds no vectors yet.")).to_be_visible()

    database = page.url.rpartition("/")[2]
    fill(server, token, database, 30)
    expect(page.get_by_role("region", name="Segments").get_by_text("growing", exact=True)).to_be_visible()
    page.get_by_role("link", name="Search").last.click()
    page.get_by_role("button", name="Random vector").click()
    submit(page)
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.get_by_role("heading", name="Plan")).to_be_visible()

    page.get_by_role("navigation").get_by_role("link", name="Databases").click()
    page.get_by_role("button", name="Drop birds & trees").click()
    drop = page.get_by_role("button", name="Drop database")
    expect(drop).to_be_disabled()
    page.get_by_role("dialog").get_by_role("textbox").fill("birds")
    expect(drop).to_be_disabled()
    page.get_by_role("dialog").get_by_role("textbox").fill("birds & trees")
    drop.click()
    expect(page.get_by_text("birds & trees was dropped.")).to_be_visible()
    expect(page.get_by_role("link", name="birds & trees")).to_have_count(0)
    assert server.call("GET", f"/v2/databases/{database}", token=token)[0] == 404


def test_a_name_that_is_taken_is_told_in_the_dialog(visit: Open, token: str, words: str) -> None:
    page = visit("/console#/databases?create=1", token)
    page.get_by_role("dialog").get_by_label("Name").fill("words")
    page.get_by_role("dialog").get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("A database named 'words' exists")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_search_by_vector_id_words_and_both(visit: Open, token: str, words: str) -> None:
    page = visit(f"/console#/search?db={words}", token)
    page.get_by_label("Query vector").fill("[1, 0, 0, 0]")
    page.get_by_label("Results (k)").fill("3")
    page.get_by_label("Filter").fill('{"year": {"$gte": 1990}}')
    submit(page)
    expect(page.locator(".hit")).to_have_count(3)
    plan = page.get_by_role("region", name="What each segment did")
    expect(plan.get_by_text("60", exact=True)).to_be_visible()  # rows
    expect(plan.get_by_text("30", exact=True).first).to_be_visible()  # that pass the filter
    expect(plan.get_by_text("µs").or_(plan.get_by_text(" ms")).first).to_be_visible()

    page.locator(".hit").first.get_by_role("link", name="More like this").click()
    expect(page.locator(".hit")).to_have_count(10)
    page.get_by_label("Like the vector with id").fill("nobody")
    submit(page)
    expect(page.get_by_role("alert").filter(has_text="There is no vector 'nobody'")).to_be_visible()

    page.get_by_label("By", exact=True).select_option("text")
    page.get_by_label("Words").fill("river")
    submit(page)
    expect(page.get_by_text("Words looked for: river.")).to_be_visible()
    page.get_by_label("By", exact=True).select_option("hybrid")
    page.get_by_label("Query vector").fill("[1, 0, 0, 0]")
    submit(page)
    expect(page.get_by_text("fused by rrf")).to_be_visible()


# field, what is typed there, part of the sentence, what is marked
MISTAKES = (
    (
        "Filter",
        '{"year": {"$gte": 1990},\n "$or": [{"a": 1}, {"year": {"$gtt": 3}}]}',
        "did you mean $gt?",
        '"$gtt"',
    ),
    ("Filter", '{"year": 1990,}', "There is a comma too many", ","),
    ("Filter", "{'year': 1990}", "A key in double quotes is expected", "'"),
    ("Filter", '{"year": True}', "write true", "True"),
    ("Filter", '{"year": "1990"}', "year", '"year"'),
    ("Query vector", "[1, 0, NaN, 0]", "JSON has no NaN", "NaN"),
    ("Query vector", '[1, 0, "2", 0]', "Element 3 is not a number.", '"2"'),
)


def test_wrong_input_is_shown_at_its_place(visit: Open, token: str, words: str) -> None:
    page = visit(f"/console#/search?db={words}", token)
    for field, text, message, marked in MISTAKES:
        page.get_by_label("Query vector").fill("[1, 0, 0, 0]")
        page.get_by_label("Filter").fill("")
        page.get_by_label(field).fill(text)
        submit(page)
        box = page.locator(".field", has=page.get_by_label(field))
        expect(box.get_by_role("alert").filter(has_text=message)).to_be_visible()
        expect(box.locator("mark")).to_have_text(marked)
        expect(page.get_by_label(field)).to_be_focused()
        page.get_by_label(field).fill("")  # and typing takes the complaint away
        expect(box.locator("mark")).to_have_count(0)


def test_other_wrong_input_has_a_sentence_too(visit: Open, token: str, words: str) -> None:
    page = visit(f"/console#/search?db={words}", token)
    submit(page)
    expect(page.get_by_text("Enter a vector as a JSON list of numbers")).to_be_visible()
    page.get_by_label("Query vector").fill("[1, 2]")
    submit(page)
    expect(page.get_by_text("This database has vectors of 4 numbers; this one has 2.")).to_be_visible()
    page.get_by_label("Query vector").fill("[0, 0, 0, 0]")
    submit(page)
    expect(page.locator(".field", has=page.get_by_label("Query vector")).get_by_role("alert")).to_contain_text("zero")
    page.get_by_label("Query vector").fill("[1, 0, 0, 0]")
    page.get_by_label("Results (k)").fill("0")
    submit(page)
    expect(page.get_by_text("This must be a whole number from 1 to 10000.")).to_be_visible()
    page.get_by_label("Results (k)").fill("5")
    page.get_by_label("Filter").fill('{"year": 1}')
    submit(page)
    expect(page.get_by_text("Nothing matched.")).to_be_visible()


def test_vectors_are_browsed_filtered_changed_and_deleted(
    visit: Open, server: ServerProcess, token: str, words: str
) -> None:
    page = visit(f"/console#/vectors?db={words}", token)
    expect(page.get_by_text("1 to 25 of 60 vectors")).to_be_visible()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("26 to 50 of 60 vectors")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51 to 60 of 60 vectors")).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("26 to 50 of 60 vectors")).to_be_visible()
    page.get_by_label("Filter").fill('{"year": {"$lt": 1963}}')
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("1 to 3 of 3 vectors that match")).to_be_visible()

    page.get_by_role("button", name="Add a vector").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Id").fill("größe/1?#")
    dialog.get_by_role("button", name="Random vector").click()
    dialog.get_by_label("Metadata").fill('{"year": 1961, "serial": 12345678901234567890}')
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("1 to 4 of 4 vectors that match")).to_be_visible()
    page.get_by_role("link", name="größe/1?#").click()
    expect(page.get_by_role("main").get_by_label("Metadata", exact=True)).to_contain_text("12345678901234567890")
    page.get_by_role("button", name="Change").click()
    text = page.get_by_role("dialog").get_by_role("textbox").input_value()
    page.get_by_role("dialog").get_by_role("textbox").fill(text.replace("1961", "1962"))
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("main").get_by_label("Metadata", exact=True)).to_contain_text("1962")
    status, stored = server.call("POST", f"/v2/databases/{words}/vectors/get", {"ids": ["größe/1?#"]}, token=token)
    assert status == 200 and stored["vectors"][0]["metadata"] == {"year": 1962, "serial": 12345678901234567890}

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("größe/1?# was deleted.")).to_be_visible()
    expect(page.get_by_text("1 to 25 of 60 vectors")).to_be_visible()
    page.get_by_label("Go to id").fill("nobody")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("not found")


def test_what_others_wrote_is_shown_and_never_run(visit: Open, server: ServerProcess, token: str) -> None:
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    body = {"name": evil[:120], "description": evil, "dimension": 2, "schema": {"<b>f</b>": "string", "t": "text"}}
    status, made = server.call("POST", "/v2/databases", body, token=token)
    assert status == 201, made
    row = {
        "id": evil,
        "values": [1, 0.5],
        "metadata": {evil: evil, "deep": [{"<i>": evil}], "t": evil, "__proto__": {"x": 1}},
    }
    status, answer = server.call("POST", f"/v2/databases/{made['id']}/vectors", {"vectors": [row]}, token=token)
    assert status == 200, answer
    db = made["id"]
    quoted = "".join(f"%{byte:02X}" for byte in evil.encode())
    page = visit("/console", token)
    for address in (
        "#/", "#/databases", f"#/databases/{db}", f"#/search?db={db}&id={quoted}", f"#/vectors?db={db}",
        f"#/vectors?db={db}&id={quoted}", f"#/{quoted}", f"#/databases/{quoted}", "#/logs", "#/slow",
    ):  # fmt: skip
        page.evaluate("address => { location.hash = address }", address)
        expect(page.get_by_text("<script>").or_(page.get_by_role("heading", level=1)).first).to_be_visible()
        expect(page.locator("[aria-busy]")).to_have_count(0)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img:not([src^='/console/']), main script, main i, main code b").count() == 0
    page.evaluate("address => { location.hash = address }", f"#/search?db={db}")
    page.get_by_label("Query vector").fill("[1, 1]")
    submit(page)
    expect(page.locator(".hit-id")).to_have_text(evil)
    assert page.evaluate("window.hacked") is None
    page.evaluate("address => { location.hash = address }", f"#/vectors?db={db}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_text(evil)).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert server.call("DELETE", f"/v2/databases/{db}", token=token)[0] == 200


def test_json_with_places_reads_what_json_parse_reads(visit: Open) -> None:
    """The console's own reader against the browser's, on random texts, whole and damaged."""
    source = random.Random(11)

    def value(depth: int) -> Any:
        kind = source.randrange(8 if depth else 6)
        if kind == 6:
            return [value(depth - 1) for _ in range(source.randrange(4))]
        if kind == 7:
            return {
                "".join(source.choices('ab.$"\\é\n[]', k=source.randrange(5))): value(depth - 1)
                for _ in range(source.randrange(4))
            }
        return [
            None,
            True,
            source.randrange(-9, 10**20),
            source.gauss(0, 1e6),
            "".join(source.choices('x"\\\té😀', k=4)),
            False,
        ][kind]

    texts = []
    for _ in range(400):
        text = json.dumps(value(3), ensure_ascii=source.random() < 0.5, indent=source.choice([None, 1]))
        texts.append(text)
        at = source.randrange(len(text) + 1)
        texts.append(
            text[:at] + source.choice(["", ",", '"', "}", "x", "0", "-", "\\", "\n"]) + text[at + source.randrange(3) :]
        )
    page = visit("/console")
    different = page.evaluate(
        """async (texts) => {
            const { parsePlaces, parseExact } = await import("/console/json_places.js");
            const placed = (error, text) => error.start >= 0 && error.end > error.start && error.start <= text.length;
            const read = (parse, text) => { try { return JSON.stringify(parse(text)); } catch (error) {
                return parse === parseExact || placed(error, text) ? "error" : `no place: ${error}`; } };
            return texts.filter((text) => read((t) => parsePlaces(t).value, text) !== read(parseExact, text));
        }""",
        texts,
    )
    assert different == []
