// Search: ask a database by vector, by a stored vector's id, by words, or by vector and words; see hits and what was done.

import { databasePath } from "../api.js";
import { copyButton, fill, h } from "../dom.js";
import { millis, plural, pretty, score } from "../format.js";
import { check, Field, form, JsonField, select, textInput } from "../forms.js";
import { databaseOptions, empty, heading, jsonBlock, load, metadataView, noDatabases } from "../parts.js";
import { planCard } from "../plan.js";

export async function search(page) {
  const box = h("div", {});
  fill(page.main, heading("Search", "Every search here is explained: which segments were asked, how, and how long each took."), box);
  await load(page, box, () => page.api.get("/v2/databases", { signal: page.signal }), ({ databases }) =>
    databases.length ? searchForm(page, databases) : noDatabases());
}

function searchForm(page, databases) {
  const results = h("div", { class: "results", "aria-live": "polite" });
  const { options, chosen } = databaseOptions(databases, page.query.get("db"));
  const database = new Field("Database", select(options, chosen, { name: "database" }));
  const current = () => databases.find((candidate) => candidate.id === database.input.value);
  const query = queryFields(page, current);
  const k = new Field("Results (k)", h("input", { type: "number", name: "k", min: 1, max: 10000, value: "10", inputmode: "numeric" }));
  const recall = recallField();
  const filter = new JsonField("Filter (optional)", { rows: 3, placeholder: '{"year": {"$gte": 2000}}',
    hint: 'JSON, as in MongoDB: {"field": value}, $gte, $lt, $in, $contains, $prefix, $exists, $and, $or, $not …' });
  filter.input.name = "filter";
  const threshold = new Field("Least score", h("input", { type: "number", name: "threshold", step: "any" }), { hint: "Only for searches by vector or id." });
  const group = new Field("At most one per value of", textInput({ name: "group_by", placeholder: "metadata field" }));
  const exact = check("Compare every vector (exact)", { name: "exact" });
  database.input.addEventListener("change", () => { query.draw(); fill(results); });

  const read = () => {
    const body = { ...query.read(), k: k.number(1, 10000, { integer: true }) ?? 10, recall: Number(recall.input.value), explain: true };
    const condition = filter.read();
    if (condition !== undefined) body.filter = condition;
    if (threshold.text !== "") body.threshold = threshold.number(-1e9, 1e9);
    if (group.text) Object.assign(body, { group_by: group.text, group_size: 1 });
    if (exact.box.checked) body.exact = true;
    return body;
  };
  const run = async () => {
    const body = read();
    const path = databasePath(current().id, "/search");
    const started = performance.now();
    let answer;
    try {
      answer = await page.api.post(path, body, { signal: page.signal });
    } catch (error) {
      place(error, filter, query);
      throw error;
    }
    if (!page.signal.aborted) fill(results, resultView(page, current(), path, body, answer, performance.now() - started));
  };
  const asked = form([
    h("div", { class: "columns" }, database.element, query.modeElement), query.element,
    h("div", { class: "columns" }, k.element, recall.element), filter.element,
    h("details", {}, h("summary", {}, "More options"), h("div", { class: "columns" }, threshold.element, group.element), exact.element),
  ], { submit: "Search", act: run });
  query.draw();
  if (query.byId(page.query.get("id"))) queueMicrotask(() => asked.element.requestSubmit());
  return [h("div", { class: "card" }, asked.element), results];
}

/** A refusal goes to the field that it is about. */
function place(error, filter, query) {
  if (!error.code) return;
  if (error.code === "INVALID_FILTER" || (error.code === "UNKNOWN_FIELD" && filter.text)) {
    filter.failAt(error.details?.at, error.message);
  }
  if (error.code === "DIMENSION_MISMATCH" || error.code === "INVALID_VECTOR") query.failVector(error.message);
  if (error.code === "NOT_FOUND") query.failId(error.message);
}

/** The part of the form that says what to look for. */
function queryFields(page, current) {
  const vector = new JsonField("Query vector", { rows: 3, placeholder: "[0.12, -0.03, …]" });
  const id = new Field("Like the vector with id", textInput({ name: "vector-id" }), { hint: "The vector itself is left out of the results." });
  const text = new Field("Words", textInput({ name: "text" }));
  const alpha = new Field("Share of the vector", h("input", { type: "number", name: "alpha", min: 0, max: 1, step: 0.05, value: "0.5" }), { hint: "0: words alone, 1: vector alone. Only for weighted fusion." });
  const fusion = new Field("Fusion", select([["rrf", "by rank (rrf)"], ["weighted", "weighted scores"]], "rrf", { name: "fusion" }));
  const random = h("button", { type: "button", class: "small", onclick: () => { vector.input.value = JSON.stringify(randomVector(current())); vector.clear(); } }, "Random vector");
  vector.input.name = "vector";
  vector.element.append(random);
  const element = h("div", {});
  const mode = new Field("By", select([], "", { name: "mode" }));
  mode.input.addEventListener("change", () => show());
  const show = () => {
    const parts = { vector: [vector], id: [id], text: [text], hybrid: [vector, text] }[mode.input.value];
    fill(element, parts.map((part) => part.element), mode.input.value === "hybrid" ? h("div", { class: "columns" }, fusion.element, alpha.element) : null);
  };
  return {
    element, modeElement: mode.element,
    /** Offer what this database can do. */
    draw() {
      const fields = textFields(current());
      const modes = [["vector", "vector"], ["id", "id of a stored vector"]];
      if (fields.length) modes.push(["text", "words (full text)"], ["hybrid", "vector and words"]);
      const before = mode.input.value;
      fill(mode.input, modes.map(([value, label]) => h("option", { value, selected: value === before }, label)));
      mode.say(fields.length ? "" : "Words can be searched where a database declares fields of type text.");
      text.say(`In ${fields.join(", ")}; ranked by BM25.`);
      vector.input.placeholder = `[${current().dimension} numbers, as JSON]`;
      show();
    },
    read() {
      const asked = {};
      if (mode.input.value === "vector" || mode.input.value === "hybrid") asked.vector = readVector(vector, current().dimension);
      if (mode.input.value === "id") asked.id = id.required("Enter the id of a stored vector.");
      if (mode.input.value === "text" || mode.input.value === "hybrid") asked.text = text.required("Enter words to look for.");
      if (mode.input.value === "hybrid") Object.assign(asked, { fusion: fusion.input.value, alpha: alpha.number(0, 1) ?? 0.5 });
      return asked;
    },
    byId(wanted) {
      if (!wanted) return false;
      mode.input.value = "id";
      id.input.value = wanted;
      show();
      return true;
    },
    failVector: (message) => { if (vector.element.isConnected) vector.fail(message); },
    failId: (message) => { if (id.element.isConnected) id.fail(message); },
  };
}

/** The vector in a field, checked before it is sent; shared with the page that adds vectors. */
export function readVector(field, dimension) {
  const value = field.read();
  if (value === undefined) field.fail("Enter a vector as a JSON list of numbers, or take a random one.");
  if (!Array.isArray(value)) field.fail("A vector is a JSON list of numbers, such as [0.1, 0.2].");
  const wrong = value.findIndex((part) => typeof part !== "number" && !JSON.isRawJSON?.(part));
  if (wrong >= 0) field.failAt(`[${wrong}]`, `Element ${wrong + 1} is not a number.`);
  if (value.length !== dimension) field.fail(`This database has vectors of ${plural(dimension, "number")}; this one has ${value.length}.`);
  return value;
}

export function randomVector({ dimension, metric }) {
  const draw = metric === "hamming" ? () => Math.round(Math.random()) : () => Number((Math.random() * 2 - 1).toFixed(3));
  return Array.from({ length: dimension }, draw);
}

function textFields(database) {
  return Object.entries(database.schema ?? {})
    .filter(([, type]) => /^text/.test(typeof type === "string" ? type : type?.type ?? "")).map(([field]) => field);
}

function recallField() {
  const shown = h("output", {}, "0.95");
  const input = h("input", { type: "range", name: "recall", min: 0.5, max: 1, step: 0.005, value: "0.95" });
  input.addEventListener("input", () => { shown.textContent = Number(input.value) === 1 ? "1 (exact)" : input.value; });
  const field = new Field("Recall target", input, { hint: "Share of the true nearest to find: less is faster." });
  field.element.querySelector("label").append(" ", shown);
  return field;
}

function resultView(page, database, path, body, answer, tookMs) {
  const hits = answer.hits ?? [];
  const best = Math.max(...hits.map((hit) => Math.abs(hit.score)), 1e-9);
  return [
    h("div", { class: "results-head" }, h("h2", {}, plural(hits.length, "hit")),
      h("p", { class: "quiet" }, `${millis(tookMs)} seen from this browser`)),
    hits.length ? h("ol", { class: "hits" }, hits.map((hit, index) => hitView(database, hit, index, best)))
      : empty("Nothing matched.", h("p", {}, body.filter ? "Loosen the filter, or check how its fields are spelt in a vector." : body.threshold !== undefined ? "Lower the least score." : "Does the database hold vectors?")),
    answer.explanation ? planCard(answer.explanation) : null,
    h("details", { class: "card" }, h("summary", {}, "The request, to repeat it elsewhere"),
      jsonBlock(`POST ${path}\n\n${pretty(shortened(body))}`, "Request"), copyButton(() => JSON.stringify(body), "Copy the body")),
  ];
}

function shortened(body) {
  return body.vector && body.vector.length > 8 ? { ...body, vector: [...body.vector.slice(0, 8), `… ${body.vector.length} numbers`] } : body;
}

function hitView(database, hit, index, best) {
  const db = encodeURIComponent(database.id);
  const id = encodeURIComponent(hit.id);
  return h("li", { class: "hit" },
    h("div", { class: "rank" }, String(index + 1)),
    h("div", { class: "hit-body" },
      h("p", { class: "hit-id" }, h("a", { href: `#/vectors?db=${db}&id=${id}` }, hit.id)), metadataView(hit.metadata)),
    h("div", { class: "hit-score" }, h("b", {}, score(hit.score)),
      h("meter", { min: 0, max: best, value: Math.max(0, hit.score), "aria-label": `score ${score(hit.score)}` }),
      h("a", { class: "small-text", href: `#/search?db=${db}&id=${id}` }, "More like this")));
}
