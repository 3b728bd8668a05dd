// Databases: all that the caller may see, creating one, and dropping one after its name was typed.

import { databasePath } from "../api.js";
import { fill, h } from "../dom.js";
import { count, when } from "../format.js";
import { askForm, check, confirm, Field, select, textInput } from "../forms.js";
import { empty, heading, load, table } from "../parts.js";

const METRICS = [
  ["cosine", "cosine: angle between vectors (usual for text)"],
  ["euclidean", "euclidean: distance"],
  ["dot", "dot: inner product, larger is nearer"],
  ["hamming", "hamming: differing bits, vectors of 0 and 1"],
];
export const INDEXES = [
  ["AUTO", "AUTO: chosen by size (recommended)"],
  ["FLAT", "FLAT: compares everything, always exact"],
  ["IVF", "IVF: inverted lists, small and fast"],
  ["HNSW", "HNSW: graph of neighbours"],
  ["LSH", "LSH: random projections"],
];
const TYPES = ["string", "string[]", "integer", "integer[]", "number", "number[]", "boolean", "boolean[]", "date", "date[]", "text", "text[]"];

export async function databases(page) {
  const box = h("div", {});
  const show = () => load(page, box, () => page.api.get("/v2/databases", { signal: page.signal }), (answer) => list(page, answer.databases, show));
  const create = h("button", { type: "button", class: "primary", onclick: () => createDialog(page) }, "Create database");
  fill(page.main, heading("Databases", "Each holds vectors of one dimension, with metadata to filter by.", create), box);
  await show();
  if (page.query.get("create") && !page.signal.aborted) createDialog(page);
}

function list(page, found, again) {
  if (!found.length) {
    return empty("There is no database you can see.",
      h("p", {}, "Create one, or ask the owner of an existing one to grant you access."),
      h("button", { type: "button", class: "primary", onclick: () => createDialog(page) }, "Create the first database"));
  }
  const path = (database) => encodeURIComponent(database.id);
  return table("Databases", [
    ["Name", (database) => [h("a", { href: `#/databases/${path(database)}` }, database.name),
      database.description ? h("p", { class: "quiet small-text" }, database.description) : null]],
    ["Vectors", (database) => count(database.vectors), "right"],
    ["Dimension", (database) => count(database.dimension), "right"],
    ["Metric", (database) => database.metric],
    ["Index", (database) => database.index],
    ["Created", (database) => when(database.created_at, "–")],
    ["", (database) => h("div", { class: "row-actions" },
      h("a", { class: "button small", href: `#/search?db=${path(database)}` }, "Search"),
      h("a", { class: "button small", href: `#/vectors?db=${path(database)}` }, "Browse"),
      h("button", { type: "button", class: "small danger-text", "aria-label": `Drop ${database.name}`, onclick: () => dropDialog(page, database, again) }, "Drop")), "right"],
  ], found);
}

export function dropDialog(page, database, done) {
  confirm(`Drop ${database.name}?`,
    `All its ${count(database.vectors)} vectors and their metadata are deleted at once. This cannot be undone.`,
    { word: database.name, submit: "Drop database", act: async () => {
      await page.api.delete(databasePath(database.id));
      page.notice(`${database.name} was dropped.`);
      await done();
    } });
}

function createDialog(page) {
  const name = new Field("Name", textInput({ name: "database-name" }), { hint: "What people call it." });
  const dimension = new Field("Dimension", h("input", { type: "number", name: "dimension", min: 1, max: 4096, value: "384", inputmode: "numeric" }),
    { hint: "How many numbers a vector has: that of your embedding model." });
  const metric = new Field("Metric", select(METRICS, "cosine", { name: "metric" }));
  const index = new Field("Index", select(INDEXES, "AUTO", { name: "index" }));
  const description = new Field("Description (optional)", textInput({ name: "description" }));
  const shards = new Field("Shards", h("input", { type: "number", name: "shards", min: 1, max: 1024, value: "1", inputmode: "numeric" }), { hint: "One is right on one machine. It is fixed for good." });
  const language = new Field("Language of text fields", textInput({ name: "text_language", value: "english" }));
  const strict = check("Refuse metadata fields that are not declared", { name: "strict" });
  const schema = schemaRows();
  askForm("Create a database", [
    h("div", { class: "columns" }, name.element, dimension.element, metric.element, index.element), description.element,
    h("details", {}, h("summary", {}, "Metadata fields and more"),
      h("p", { class: "hint" }, "Declared fields are checked and filter faster; fields of type text can be searched by words. Everything else can be filtered undeclared."),
      schema.element, strict.element, h("div", { class: "columns" }, language.element, shards.element)),
  ], { submit: "Create", act: async () => {
    const body = {
      name: name.required("Give the database a name."),
      dimension: dimension.required("Say how many numbers a vector has.") && dimension.number(1, 4096, { integer: true }),
      metric: metric.input.value, index: index.input.value, description: description.text,
      shards: shards.number(1, 1024, { integer: true }) ?? 1, schema: schema.read(), strict: strict.box.checked, text_language: language.text || "english",
    };
    const created = await page.api.post("/v2/databases", body);
    page.notice(`${created.name} was created.`);
    page.go(`#/databases/${encodeURIComponent(created.id)}`);
  } });
}

/** Rows of field name and type. */
function schemaRows() {
  const rows = h("div", { class: "schema-rows" });
  const add = () => {
    const row = h("div", { class: "schema-row" },
      textInput({ "aria-label": "Field name", placeholder: "field name", name: "field-name" }),
      select(TYPES, "string", { "aria-label": "Field type", name: "field-type" }),
      h("button", { type: "button", class: "small", "aria-label": "Remove this field", onclick: () => row.remove() }, "Remove"));
    rows.append(row);
    row.querySelector("input").focus();
  };
  return {
    element: h("div", {}, rows, h("button", { type: "button", class: "small", onclick: add }, "Add a field")),
    read: () => Object.fromEntries([...rows.children]
      .map((row) => [row.querySelector("input").value.trim(), row.querySelector("select").value]).filter(([field]) => field)),
  };
}
