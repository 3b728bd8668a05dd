"""Watching a server in the console: graphs that move, logs that filter, slow queries; and pages that everybody can use."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.serving import ServerProcess

PAGES = (
    "", "databases", "databases/{db}", "search?db={db}", "vectors?db={db}", "vectors?db={db}&id=v1", "logs", "slow", "users",
    "keys", "account",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(server: ServerProcess, token: str) -> str:
    """The id of a database in which a few searches have been made."""
    status, made = server.call("POST", "/v2/databases", {"name": "watched", "dimension": 3}, token=token)
    assert status == 201, made
    rows = [{"id": f"v{i}", "values": [i + 1, 1, 0], "metadata": {"n": i}} for i in range(30)]
    path = f"/v2/databases/{made['id']}"
    assert server.call("POST", path + "/vectors", {"vectors": rows}, token=token)[0] == 200
    for i in range(20):
        assert server.call("POST", path + "/search", {"vector": [1, i, 2], "k": 3}, token=token)[0] == 200
    found: str = made["id"]
    return found


def test_the_overview_shows_figures_and_graphs_that_move(
    visit: Open, server: ServerProcess, token: str, searched: str
) -> None:
    page = visit("/console", token)
    expect(page.get_by_text("operational")).to_be_visible()
    charts = page.locator(".chart")
    expect(charts).to_have_count(5)
    latency = charts.filter(has=page.get_by_role("heading", name="Search latency"))
    expect(latency.locator("path.line")).to_have_count(3)
    expect(latency.locator(".legend")).to_contain_text("s")  # a time, not a dash
    first = page.locator(".chart path.line").first
    before = first.get_attribute("d")
    expect(first).not_to_have_attribute("d", before or "")
    plot = latency.locator("svg")
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(latency.locator("header span")).to_contain_text("at ")
    memory = charts.filter(has=page.get_by_role("heading", name="Memory"))
    expect(memory.locator(".legend")).to_contain_text("MiB")


def test_logs_are_filtered_by_level_and_text(visit: Open, token: str, searched: str) -> None:
    page = visit("/console#/logs", token)
    lines = page.locator(".log-line")
    expect(lines.filter(has_text="slow search in watched").first).to_be_visible()
    page.get_by_label("Level").select_option("error")
    expect(page.get_by_text("No line matches.")).to_be_visible()
    page.get_by_label("Level").select_option("warning")
    expect(lines.first).to_be_visible()
    page.get_by_label("Contains").fill("no such text <b>")
    expect(page.get_by_text("No line matches.")).to_be_visible()
    page.get_by_label("Contains").fill("SEARCH in watched")
    expect(lines.first).to_contain_text("slow search in watched")


def test_slow_queries_come_with_their_plan(visit: Open, token: str, searched: str) -> None:
    page = visit("/console#/slow", token)
    entry = page.locator(".slow > li").filter(has_text="watched").first
    expect(entry).to_be_visible()
    planned = page.locator(".slow details").first
    while planned.count() == 0:  # the plan of a slow search is taken in the background
        page.get_by_role("button", name="Refresh").click()
        page.wait_for_load_state("networkidle")
    planned.locator("summary").click()
    expect(page.get_by_role("region", name="What each segment did").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_and_operated(visit: Open, token: str, searched: str, scheme: str) -> None:
    """Text stands out from its ground (4.5 to 1, large text 3 to 1), and every control has a name."""
    page = visit("/console", token, scheme=scheme)
    for address in PAGES:
        page.evaluate("address => { location.hash = address }", f"#/{address.format(db=searched)}")
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("[aria-busy]")).to_have_count(0)
        assert page.locator("h1").count() == 1
        assert page.evaluate(NAMELESS) == [], address
        assert page.evaluate(FAINT) == [], address
    page.evaluate("location.hash = '#/databases?create=1'")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(NAMELESS) == [] and page.evaluate(FAINT) == []


def test_it_works_by_keyboard_and_on_a_phone(visit: Open, token: str, searched: str) -> None:
    page = visit("/console#/databases", token)
    expect(page.get_by_role("heading", name="Databases", level=1)).to_be_focused()
    create = page.get_by_role("button", name="Create database")
    create.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(create).to_be_focused()
    page.set_viewport_size({"width": 360, "height": 700})
    for address in PAGES:
        page.evaluate("address => { location.hash = address }", f"#/{address.format(db=searched)}")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        assert _overflow(page) <= 0, address


def _overflow(page: Page) -> int:
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, a[href], svg[tabindex]")]
    .filter((element) => element.checkVisibility() && !(element.labels?.length && element.labels[0].textContent.trim())
        && !element.getAttribute("aria-label") && !element.textContent.trim()).map((element) => element.outerHTML)"""

FAINT = """() => {
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
    const ground = (element) => {
        if (!element) return [255, 255, 255, 1];
        const own = parse(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own : over(own, ground(element.parentElement));
    };
    const light = (colour) => { const [r, g, b] = colour.slice(0, 3).map((c) => { c /= 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        if (!node.textContent.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
        if (element.closest(":disabled, .unseen, svg, option")) continue;
        const style = getComputedStyle(element);
        const behind = ground(element);
        const [a, b] = [light(over(parse(style.color), behind)), light(behind)].sort((x, y) => y - x);
        const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
        if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) faint.push(`${node.textContent.trim().slice(0, 40)}: ${style.color} on ${behind}`);
    }
    return [...new Set(faint)];
}"""
