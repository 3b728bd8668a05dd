// Trying an operation from the reference: fill in, send, see status, time and answer.

import { copyButton, fill, h } from "./dom.js";
import { bytes, millis } from "./format.js";
import { Field, form, JsonField, textInput } from "./forms.js";
import { parseExact } from "./json_places.js";
import { badge, jsonBlock } from "./parts.js";

const WITH_BODY = new Set(["post", "put", "patch"]);
const SHOWN_CHARACTERS_MAX = 100_000;

export function tryForm(api, operation, parameters, example) {
  const inputs = parameters.filter((parameter) => parameter.in === "path" || parameter.in === "query").map((parameter) => {
    const field = new Field(`${parameter.name}${parameter.in === "query" ? " (query)" : ""}`, textInput({ name: parameter.name }));
    return { parameter, field };
  });
  const begun = example === undefined ? "" : JSON.stringify(example, null, 2);
  const body = example === undefined && !WITH_BODY.has(operation.method) ? null : new JsonField("Body", { rows: Math.min(16, begun.split("\n").length + 2), value: begun });
  const answer = h("div", { "aria-live": "polite" });
  const asked = form([
    inputs.length ? h("div", { class: "columns" }, inputs.map(({ field }) => field.element)) : null, body?.element,
  ], { submit: `Send ${operation.method.toUpperCase()}`, act: async () => {
    const { path, query } = addressed(operation.path, inputs);
    if (body) body.read(); // shows what is no JSON at its place; what is sent is the text itself
    const started = performance.now();
    const response = await api.send(operation.method.toUpperCase(), path, body?.text || undefined, { query });
    const text = await response.text();
    fill(answer, answerView(response, text, performance.now() - started));
  } });
  asked.element.append(answer);
  return h("section", { class: "try" }, h("h3", {}, "Try it"), asked.element);
}

function addressed(template, inputs) {
  let path = template;
  const query = {};
  for (const { parameter, field } of inputs) {
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(field.required(`${parameter.name} is part of the path.`)));
    else if (parameter.required) query[parameter.name] = field.required(`${parameter.name} is required.`);
    else query[parameter.name] = field.text;
  }
  return { path, query };
}

function answerView(response, text, tookMs) {
  let shown = text;
  try {
    shown = JSON.stringify(parseExact(text), null, 2);
  } catch { /* not JSON: as it is */ }
  const cut = shown.length > SHOWN_CHARACTERS_MAX;
  return [
    h("p", { class: "answer-status" }, badge(String(response.status), response.ok ? "good" : "bad"),
      h("span", { class: "quiet" }, `${millis(tookMs)}, ${bytes(text.length)}, ${response.headers.get("Content-Type") ?? "no type"}`), copyButton(text)),
    jsonBlock(cut ? `${shown.slice(0, SHOWN_CHARACTERS_MAX)}\n… and ${bytes(shown.length - SHOWN_CHARACTERS_MAX)} more` : shown || "(empty)", "Answer"),
  ];
}
