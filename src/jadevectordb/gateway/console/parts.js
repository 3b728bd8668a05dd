// What pages are put together from: headings, cards, tables, states of loading and emptiness, JSON values.

import { fill, h } from "./dom.js";
import { brief, pretty } from "./format.js";
import { problem } from "./forms.js";

/** The head of a page: its title, a line about it, and its buttons. */
export function heading(title, about, ...buttons) {
  return h("header", { class: "page-head" },
    h("div", {}, h("h1", { tabindex: "-1" }, title), about ? h("p", { class: "quiet" }, about) : null),
    buttons.length ? h("div", { class: "buttons" }, buttons) : null);
}

export function card(title, ...children) {
  return h("section", { class: "card" }, title ? h("h2", {}, title) : null, children);
}

/** A figure with its name. */
export function tile(label, value, note) {
  return h("div", { class: "tile" }, h("dt", {}, label), h("dd", {}, value, note ? h("small", {}, note) : null));
}

export function tiles(...entries) {
  return h("dl", { class: "tiles" }, entries);
}

/** Nothing here: why, and what to do about it. */
export function empty(title, ...what) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("div", {}, what));
}

export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** A table that scrolls within itself. columns: [title, cell of a row, class]. caption: what it shows, for screen readers. */
export function table(caption, columns, rows) {
  return h("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind }, title)))),
      h("tbody", {}, rows.map((row, index) => h("tr", {}, columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row, index))))))));
}

/** Fill `box` with what `draw` makes of what `fetch` gets; meanwhile and on failure it says so. */
export async function load(page, box, fetch, draw) {
  box.setAttribute("aria-busy", "true");
  if (!box.hasChildNodes()) fill(box, h("p", { class: "quiet loading" }, "Loading…"));
  try {
    const value = await fetch();
    if (!page.signal.aborted) fill(box, draw(value));
  } catch (error) {
    if (!page.signal.aborted) fill(box, problem(error, () => load(page, fill(box), fetch, draw)));
  } finally {
    box.removeAttribute("aria-busy");
  }
}

/** Run `act` now and every `intervalMs` while the page is shown; not while the window is hidden, never twice at a time. */
export function poll(page, intervalMs, act) {
  let timer = 0;
  const turn = async () => {
    if (!document.hidden) await act();
    if (!page.signal.aborted) timer = setTimeout(turn, intervalMs);
  };
  page.signal.addEventListener("abort", () => clearTimeout(timer));
  void turn();
}

/** Metadata as a list of fields; anything nested is shown as JSON. */
export function metadataView(metadata, { limit = 160 } = {}) {
  const entries = Object.entries(metadata ?? {});
  if (!entries.length) return h("span", { class: "quiet" }, "no metadata");
  return h("dl", { class: "metadata" }, entries.map(([key, value]) =>
    h("div", {}, h("dt", {}, key), h("dd", { class: typeof value === "string" ? "" : "code" }, brief(value, limit)))));
}

export function jsonBlock(value, label) {
  return h("pre", { class: "code block", tabindex: "0", "aria-label": label }, typeof value === "string" ? value : pretty(value));
}

/** A select of the databases the caller may see; `chosen` may be an id or a name. */
export function databaseOptions(databases, chosen) {
  const found = databases.find((database) => database.id === chosen) ?? databases.find((database) => database.name === chosen);
  return { options: databases.map((database) => [database.id, database.name]), chosen: found?.id ?? databases[0]?.id };
}

/** What to show where a database is needed and there is none. */
export function noDatabases() {
  return empty("There is no database yet.", h("p", {}, "A database holds vectors of one dimension, with their metadata."),
    h("a", { class: "button primary", href: "#/databases?create=1" }, "Create the first database"));
}
