// JSON Schema for people: nested lists of fields with their types, and an example to begin from.

import { h } from "./dom.js";

const DEPTH_MAX = 5;

/** The schema behind a reference. */
function resolve(description, schema) {
  let found = schema ?? {};
  for (let i = 0; found.$ref && i < 10; i += 1) {
    const target = found.$ref.split("/").slice(1).map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
    found = target.reduce((at, key) => at?.[key], description) ?? {};
  }
  return found;
}

const isNull = (schema) => schema.type === "null";
const choices = (schema) => schema.anyOf ?? schema.oneOf;

function typeName(description, given, depth = 0) {
  const schema = resolve(description, given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (choices(schema)) return depth > 2 ? "any" : [...new Set(choices(schema).map((one) => typeName(description, one, depth + 1)))].join(" or ");
  if (Array.isArray(schema.type)) return schema.type.join(" or ");
  if (schema.type === "array") return depth > 2 ? "list" : `list of ${typeName(description, schema.items, depth + 1)}`;
  return schema.type ?? (schema.properties ? "object" : "any");
}

function limits(schema) {
  const said = [];
  if (schema.minimum !== undefined) said.push(`≥ ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) said.push(`> ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) said.push(`≤ ${schema.maximum}`);
  if (schema.exclusiveMaximum !== undefined) said.push(`< ${schema.exclusiveMaximum}`);
  if (schema.minLength !== undefined || schema.maxLength !== undefined) said.push(`${schema.minLength ?? 0} to ${schema.maxLength ?? "any number of"} characters`);
  if (schema.minItems !== undefined || schema.maxItems !== undefined) said.push(`${schema.minItems ?? 0} to ${schema.maxItems ?? "any number of"} items`);
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  return said.join(", ");
}

/** The objects inside a schema whose fields are worth listing: itself, its items, its choices. */
function objects(description, given, depth = 0) {
  const schema = resolve(description, given);
  if (schema.properties) return [schema];
  if (depth > 3) return [];
  const inner = [...(choices(schema) ?? []), ...(schema.allOf ?? []), ...(schema.items ? [schema.items] : []),
    ...(typeof schema.additionalProperties === "object" ? [schema.additionalProperties] : [])];
  return inner.flatMap((one) => objects(description, one, depth + 1));
}

export function schemaView(description, given, depth = 0) {
  const schema = resolve(description, given);
  const found = objects(description, schema);
  if (!found.length) return h("p", {}, h("span", { class: "schema-type" }, typeName(description, schema)), " ", h("span", { class: "quiet" }, schema.description ?? ""));
  return [
    depth === 0 && schema.description ? h("p", { class: "quiet" }, schema.description) : null,
    found.map((object) => fields(description, object, depth)),
  ];
}

function fields(description, object, depth) {
  return h("ul", { class: "schema" }, Object.entries(object.properties).map(([name, given]) => {
    const schema = resolve(description, given);
    const nested = depth < DEPTH_MAX && objects(description, schema).length > 0;
    const said = limits({ ...schema, ...given });
    return h("li", {},
      h("code", {}, name), " ", h("span", { class: "schema-type" }, typeName(description, given)),
      (object.required ?? []).includes(name) ? h("span", { class: "must" }, " required") : null,
      said ? h("span", { class: "quiet" }, ` ${said}`) : null,
      schema.description ? h("span", { class: "quiet" }, ` ${schema.description}`) : null,
      nested ? schemaView(description, given, depth + 1) : null);
  }));
}

/** A value to begin from: of an object its required fields, which may be none. */
export function exampleOf(description, given, depth = 0) {
  const schema = resolve(description, given);
  if (schema.examples?.length) return schema.examples[0];
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const choice = (choices(schema) ?? []).find((one) => !isNull(resolve(description, one)));
  if (choice) return depth > DEPTH_MAX ? null : exampleOf(description, choice, depth + 1);
  if (schema.properties) {
    const required = depth > DEPTH_MAX ? [] : schema.required ?? [];
    return Object.fromEntries(required.map((name) => [name, exampleOf(description, schema.properties[name], depth + 1)]));
  }
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case "array": return schema.items && depth <= DEPTH_MAX ? [exampleOf(description, schema.items, depth + 1)] : [];
    case "string": return "text";
    case "integer": return schema.minimum ?? 1;
    case "number": return 0.5;
    case "boolean": return false;
    case "object": return {};
    default: return null;
  }
}
