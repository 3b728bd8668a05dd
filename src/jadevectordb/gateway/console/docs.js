// The API reference: reads /openapi.json and shows every operation with its parameters, bodies and answers, and lets one try
// it with the credential of the console. Operations are drawn when they are opened, so the page is there at once.

import { Api } from "./api.js";
import { fill, h } from "./dom.js";
import { problem } from "./forms.js";
import { badge, empty } from "./parts.js";
import { exampleOf, schemaView } from "./schema.js";
import { tryForm } from "./try_it.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const RESOURCES = new Set(["vectors", "search", "indexes", "bm25-index", "analytics", "lifecycle", "reranking"]); // of a database
const FIRST = ["databases, v2", "vectors, v2", "search, v2"];
const find = (id) => document.getElementById(id);
const api = new Api();

async function start() {
  fill(find("who"),
    h("p", {}, api.credential ? "Requests carry the credential of the console in this tab." : "Requests carry no credential. Sign in at the console first where one is needed."),
    h("a", { href: "/console" }, "Console"), h("a", { href: "/openapi.json" }, "openapi.json"));
  try {
    draw(await api.get("/openapi.json", { keep401: true }));
  } catch (error) {
    fill(find("main"), h("h1", {}, "API reference"), problem(error, start));
  }
}

function draw(description) {
  const groups = grouped(description);
  const filter = h("input", { type: "search", placeholder: "search, vectors, /v2/databases …", "aria-label": "Find operations", autocomplete: "off" });
  const sections = [...groups].map(([name, operations]) => {
    const entries = operations.map((operation) => [operation, operationView(description, operation)]);
    const element = h("section", { class: "group", id: slug(name) }, h("h2", {}, name), h("div", { class: "operations" }, entries.map(([, entry]) => entry)));
    return { name, element, entries };
  });
  const none = h("div", { hidden: true }, empty("No operation matches.", h("p", {}, "Try part of a path, or a word such as delete.")));
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let any = false;
    for (const { element, entries } of sections) {
      let visible = false;
      for (const [operation, entry] of entries) {
        const shown = words.every((word) => operation.text.includes(word));
        entry.hidden = !shown;
        visible ||= shown;
      }
      element.hidden = !visible;
      any ||= visible;
    }
    none.hidden = any;
  });
  fill(find("nav"), h("ul", {}, sections.map(({ name, element }) => h("li", {}, h("a", { href: `#${element.id}` }, name)))));
  fill(find("main"),
    h("header", { class: "page-head" }, h("div", {}, h("h1", {}, description.info?.title ?? "API reference"),
      h("p", { class: "quiet" }, `Version ${description.info?.version ?? "–"}, ${[...groups.values()].flat().length} operations`))),
    description.info?.description ? h("p", {}, description.info.description) : null,
    h("div", { class: "field" }, filter), none, sections.map(({ element }) => element));
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

/** Group name -> operations, by what their path is about; the native API first. */
function grouped(description) {
  const groups = new Map();
  for (const [path, item] of Object.entries(description.paths ?? {})) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const name = groupOf(path);
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])];
      const text = `${method} ${path} ${operation.summary ?? ""} ${name}`.toLowerCase();
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push({ ...operation, path, method, parameters, text });
    }
  }
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : name.endsWith("v2") ? 10 : name === "server" ? 11 : 12);
  return new Map([...groups].sort(([a], [b]) => rank(a) - rank(b)));
}

function groupOf(path) {
  const parts = path.split("/").filter(Boolean);
  if (!/^v\d+$/.test(parts[0])) return "server";
  const [version, resource, , part] = parts;
  return `${resource === "databases" && RESOURCES.has(part) ? part : resource}, ${version}`;
}

const slug = (name) => name.toLowerCase().replace(/[^a-z0-9]+/g, "-");

function operationView(description, operation) {
  const body = h("div", {});
  const element = h("details", { class: "operation" },
    h("summary", {}, h("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()), h("code", { class: "path" }, operation.path),
      h("span", { class: "quiet" }, operation.summary ?? ""), operation.deprecated ? badge("deprecated", "busy") : null), body);
  element.addEventListener("toggle", () => {
    if (element.open && !body.hasChildNodes()) fill(body, detail(description, operation));
  });
  return element;
}

function detail(description, operation) {
  const parameters = operation.parameters.map((parameter) => resolved(description, parameter));
  const content = resolved(description, operation.requestBody ?? {}).content ?? {};
  return [
    operation.description ? h("p", {}, operation.description) : null,
    parameters.length ? h("section", {}, h("h3", {}, "Parameters"), h("ul", { class: "schema" }, parameters.map((parameter) => h("li", {},
      h("code", {}, parameter.name), " ", h("span", { class: "quiet" }, `in ${parameter.in} `),
      h("span", { class: "schema-type" }, typeText(parameter.schema)), parameter.required ? h("span", { class: "must" }, " required") : null,
      parameter.description ? h("span", { class: "quiet" }, ` ${parameter.description}`) : null)))) : null,
    ...Object.entries(content).map(([type, { schema }]) => h("section", {}, h("h3", {}, "Body ", h("small", { class: "quiet" }, type)), schemaView(description, schema))),
    h("section", {}, h("h3", {}, "Answers"), Object.entries(operation.responses ?? {}).map(([status, given]) => answerView(description, status, resolved(description, given)))),
    tryForm(api, operation, parameters, content["application/json"] ? exampleOf(description, content["application/json"].schema) : undefined),
  ];
}

function answerView(description, status, response) {
  const schemas = Object.entries(response.content ?? {});
  const head = h("span", { class: "answer-status" }, badge(status, status.startsWith("2") ? "good" : "bad"), h("span", {}, response.description ?? ""));
  if (!schemas.length) return h("p", {}, head);
  return h("details", {}, h("summary", {}, head), schemas.map(([type, { schema }]) => [h("p", { class: "quiet small-text" }, type), schemaView(description, schema)]));
}

function typeText(schema) {
  return Array.isArray(schema?.type) ? schema.type.join(" or ") : schema?.type ?? schema?.enum?.join(" | ") ?? "any";
}

function resolved(description, item) {
  return item?.$ref ? item.$ref.split("/").slice(1).reduce((at, key) => at?.[key], description) ?? {} : item;
}

void start();
