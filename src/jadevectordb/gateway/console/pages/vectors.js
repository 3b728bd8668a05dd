// Vectors: browse a database page by page, look at one, add one by hand, delete after asking.

import { databasePath } from "../api.js";
import { copyButton, fill, h } from "../dom.js";
import { brief, count, plural } from "../format.js";
import { askForm, confirm, Field, form, JsonField, problem, select, textInput } from "../forms.js";
import { card, databaseOptions, empty, heading, jsonBlock, load, noDatabases, table } from "../parts.js";
import { randomVector, readVector } from "./search.js";

const PAGE_ROWS = 25;

export async function vectors(page) {
  const box = h("div", {});
  fill(page.main, heading("Vectors", "What is stored, in the order of the store."), box);
  await load(page, box, () => page.api.get("/v2/databases", { signal: page.signal }), ({ databases }) => {
    if (!databases.length) return noDatabases();
    const { options, chosen } = databaseOptions(databases, page.query.get("db"));
    const database = databases.find((candidate) => candidate.id === chosen);
    const id = page.query.get("id");
    return id === null ? browser(page, database, options) : oneVector(page, database, id);
  });
  if (page.query.get("add") && !page.signal.aborted) page.main.querySelector("#add-vector")?.click();
}

const link = (database, id) => `#/vectors?db=${encodeURIComponent(database.id)}${id === undefined ? "" : `&id=${encodeURIComponent(id)}`}`;

function browser(page, database, options) {
  const box = h("div", { class: "results" });
  const chooser = new Field("Database", select(options, database.id, { name: "database", onchange: (event) => page.go(`#/vectors?db=${encodeURIComponent(event.target.value)}`) }));
  const wanted = new Field("Go to id", textInput({ name: "vector-id" }));
  const filter = new JsonField("Filter (optional)", { rows: 2, placeholder: '{"field": "value"}' });
  filter.input.name = "filter";
  const cursors = [null]; // of the pages so far; the last is the one shown
  let condition;
  const show = async () => {
    const path = (rest) => databasePath(database.id, rest);
    const { signal } = page;
    const body = { limit: PAGE_ROWS, cursor: cursors.at(-1), filter: condition, include: ["metadata"] };
    const [found, total] = await Promise.all([
      page.api.post(path("/vectors/scroll"), body, { signal }), page.api.post(path("/count"), { filter: condition }, { signal }),
    ]);
    if (!signal.aborted) fill(box, pageView(page, database, found, total.count, condition, cursors, again));
  };
  const again = () => show().catch((error) => { if (!page.signal.aborted) fill(box, problem(error, again)); });
  const filtering = form([filter.element], { submit: "Show", act: async () => {
    condition = filter.read();
    cursors.splice(0, cursors.length, null);
    try {
      await show();
    } catch (error) {
      if (error.code === "INVALID_FILTER" || error.code === "UNKNOWN_FIELD") filter.failAt(error.details?.at, error.message);
      throw error;
    }
  } });
  const going = form([wanted.element], { submit: "Go", act: async () => page.go(link(database, wanted.required("Enter an id."))) });
  going.element.classList.add("inline");
  void again();
  return [
    h("div", { class: "card" }, h("div", { class: "columns" }, chooser.element, going.element), filtering.element),
    h("p", {}, h("button", { type: "button", id: "add-vector", onclick: () => addDialog(page, database, again) }, "Add a vector")), box,
  ];
}

function pageView(page, database, found, total, condition, cursors, again) {
  if (!found.vectors.length) {
    if (cursors.length > 1) return empty("That was the last page.", turns(found, cursors, again));
    return condition
      ? empty("No vector matches this filter.", h("p", {}, "Empty the filter to see what fields there are."))
      : empty("It holds no vectors yet.", h("p", {}, "Add one by hand, or put many in with the API, a client or jade vectors import."));
  }
  const first = (cursors.length - 1) * PAGE_ROWS + 1;
  return [
    h("p", { class: "quiet", role: "status" }, `${count(first)} to ${count(first + found.vectors.length - 1)} of ${plural(total, "vector")}${condition ? " that match" : ""}`),
    table("Vectors", [
      ["Id", (item) => h("a", { href: link(database, item.id) }, item.id), "id"],
      ["Metadata", (item) => h("code", { class: "preview" }, brief(item.metadata, 140))],
      ["Version", (item) => String(item.version ?? "–"), "right"],
      ["", (item) => h("button", { type: "button", class: "small danger-text", "aria-label": `Delete ${item.id}`, onclick: () => deleteDialog(page, database, item.id, again) }, "Delete"), "right"],
    ], found.vectors),
    turns(found, cursors, again),
  ];
}

function turns(found, cursors, again) {
  const turn = (change) => () => { change(); void again(); };
  return h("div", { class: "buttons" },
    h("button", { type: "button", disabled: cursors.length === 1, onclick: turn(() => cursors.pop()) }, "Previous"),
    h("button", { type: "button", disabled: !found.cursor, onclick: turn(() => cursors.push(found.cursor)) }, "Next"));
}

function oneVector(page, database, id) {
  const box = h("div", {});
  const again = () => load(page, box, () => page.api.get(databasePath(database.id, `/vectors/${encodeURIComponent(id)}`), { signal: page.signal }), (item) => [
    card("Metadata", jsonBlock(item.metadata, "Metadata"),
      h("div", { class: "buttons" }, copyButton(() => JSON.stringify(item.metadata)),
        h("button", { type: "button", class: "small", onclick: () => metadataDialog(page, database, item, again) }, "Change"))),
    card("Vector", h("p", { class: "quiet" }, `${plural(item.vector.length, "number")}, version ${item.version}`),
      bars(item.vector), jsonBlock(item.vector.slice(0, 64).join(", ") + (item.vector.length > 64 ? ", …" : ""), "Vector"),
      copyButton(() => JSON.stringify(item.vector), "Copy all numbers")),
    h("div", { class: "buttons" },
      h("a", { class: "button primary", href: `#/search?db=${encodeURIComponent(database.id)}&id=${encodeURIComponent(id)}` }, "Search for its like"),
      h("button", { type: "button", class: "danger-text", onclick: () => deleteDialog(page, database, id, () => page.go(link(database))) }, "Delete")),
  ]);
  void again();
  return [h("p", {}, h("a", { href: link(database) }, `← All vectors of ${database.name}`)), h("h2", { class: "vector-id" }, id), box];
}

/** The numbers of a vector as small bars: enough to see whether two are alike, or one is empty. */
function bars(values) {
  const shown = values.slice(0, 256);
  const largest = Math.max(...shown.map(Math.abs), 1e-12);
  const canvas = h("canvas", { class: "bars", width: shown.length * 4, height: 60, role: "img",
    "aria-label": `The first ${shown.length} numbers as bars, the largest ${largest.toPrecision(3)}` });
  const pen = canvas.getContext("2d");
  // The canvas takes no colours from the style sheet by itself
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  shown.forEach((value, i) => pen.fillRect(i * 4, value >= 0 ? 30 - (value / largest) * 29 : 30, 3, Math.max(1, (Math.abs(value) / largest) * 29)));
  return canvas;
}

function deleteDialog(page, database, id, done) {
  confirm("Delete this vector?", `${id} and its metadata are removed from ${database.name}. This cannot be undone.`, { submit: "Delete", act: async () => {
    await page.api.post(databasePath(database.id, "/vectors/delete"), { ids: [id] });
    page.notice(`${id} was deleted.`);
    await done();
  } });
}

function metadataDialog(page, database, item, done) {
  const metadata = new JsonField("Metadata", { rows: 10, value: JSON.stringify(item.metadata, null, 2) });
  askForm(`Change the metadata of ${item.id}`, [metadata.element], { submit: "Save", act: async () => {
    const changed = readMetadata(metadata);
    // if_version: what somebody else wrote meanwhile is not overwritten unseen
    await page.api.post(databasePath(database.id, "/vectors/metadata"), { ids: [item.id], metadata: changed, merge: false, if_version: [item.version] });
    page.notice("Saved.");
    await done();
  } });
}

function addDialog(page, database, done) {
  const id = new Field("Id", textInput({ name: "new-id" }), { hint: "A vector already stored under this id is replaced." });
  const vector = new JsonField("Vector", { rows: 3, placeholder: `[${database.dimension} numbers, as JSON]` });
  const metadata = new JsonField("Metadata (optional)", { rows: 3, placeholder: '{"title": "…"}' });
  vector.input.name = "new-vector";
  metadata.input.name = "new-metadata";
  vector.element.append(h("button", { type: "button", class: "small", onclick: () => { vector.input.value = JSON.stringify(randomVector(database)); vector.clear(); } }, "Random vector"));
  askForm(`Add a vector to ${database.name}`, [id.element, vector.element, metadata.element], { submit: "Add", act: async () => {
    const item = { id: id.required("Give the vector an id."), values: readVector(vector, database.dimension), metadata: readMetadata(metadata) };
    await page.api.post(databasePath(database.id, "/vectors"), { vectors: [item] });
    page.notice(`${item.id} was stored.`);
    await done();
  } });
}

function readMetadata(field) {
  const value = field.read() ?? {};
  if (typeof value !== "object" || value === null || Array.isArray(value)) field.fail('Metadata is a JSON object, such as {"title": "A book"}.');
  return value;
}
