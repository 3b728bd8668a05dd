// One database: what it is, how much it holds, what its segments are, who may use it, and looking after it.

import { databasePath } from "../api.js";
import { fill, h } from "../dom.js";
import { bytes, count, when } from "../format.js";
import { askForm, confirm, Field, problem, select, textInput } from "../forms.js";
import { badge, card, empty, heading, load, poll, table, tile, tiles } from "../parts.js";
import { dropDialog, INDEXES } from "./databases.js";

const INTERVAL_MS = 3000;
const WAIT_S = 60;

export async function database(page) {
  const { api, signal } = page;
  const path = (rest) => databasePath(page.params.db, rest);
  const title = heading("Database");
  const box = h("div", {});
  fill(page.main, title, box);
  await load(page, box, () => api.get(path(""), { signal }), (found) => {
    title.remove();
    const stats = h("div", {});
    const grants = h("div", {});
    const failure = h("div", {});
    const chosen = encodeURIComponent(found.id);
    const act = (label, work) => h("button", { type: "button", onclick: async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      button.textContent = `${label}…`;
      fill(failure);
      try {
        page.notice(await work());
      } catch (error) {
        if (!signal.aborted) fill(failure, problem(error));
      }
      button.disabled = false;
      button.textContent = label;
    } }, label);
    const compact = act("Compact", async () => {
      await api.post(path("/compact"), { timeout_s: WAIT_S }, { timeoutMs: (WAIT_S + 15) * 1000 });
      return "Compacted: dead rows are gone.";
    });
    const wait = act("Index now", async () => {
      await api.post(path("/wait-indexed"), { timeout_s: WAIT_S }, { timeoutMs: (WAIT_S + 15) * 1000 });
      return "Every vector is in an indexed segment.";
    });
    poll(page, INTERVAL_MS, async () => {
      try {
        const answer = await api.get(path("/stats"), { signal });
        if (!signal.aborted) fill(stats, statsView(answer, chosen));
      } catch (error) {
        if (!signal.aborted) fill(stats, problem(error));
      }
    });
    const owns = page.isAdmin || found.owner === page.user.user_id;
    if (owns) void showGrants(page, grants);
    return [
      heading(found.name, found.description,
        h("a", { class: "button primary", href: `#/search?db=${chosen}` }, "Search"),
        h("a", { class: "button", href: `#/vectors?db=${chosen}` }, "Browse vectors")),
      stats, card("Settings", settings(found, page.user)),
      owns ? card("Who may use it", grants) : null,
      card("Looking after it", failure, h("div", { class: "buttons" }, wait, compact,
        h("button", { type: "button", onclick: () => editDialog(page, found) }, "Change"),
        h("button", { type: "button", class: "danger-text", onclick: () => dropDialog(page, found, () => page.go("#/databases")) }, "Drop"))),
    ];
  });
  page.main.querySelector("h1")?.focus({ preventScroll: true });
}

function settings(found, user) {
  const fields = Object.entries(found.schema ?? {});
  const rows = [
    ["Id", h("code", {}, found.id)], ["Dimension", count(found.dimension)], ["Metric", found.metric], ["Index", found.index],
    ["Shards", count(found.shards)], ["Owner", found.owner === user.user_id ? `${user.username} (you)` : found.owner || "nobody (administrators only)"],
    ["Created", when(found.created_at, "–")], ["Changed", when(found.updated_at, "–")],
    ["Metadata fields", fields.length
      ? h("ul", { class: "plain" }, fields.map(([field, type]) => h("li", {}, h("code", {}, field), ` ${typeof type === "string" ? type : JSON.stringify(type)}`)))
      : "none declared; every field can be filtered all the same"],
    ["Undeclared fields", found.strict ? "refused (strict)" : "allowed"], ["Language of text", found.text_language],
  ];
  return h("dl", { class: "pairs" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function statsView(stats, chosen) {
  const waiting = stats.rows - stats.indexed_rows;
  return [
    stats.trouble ? h("p", { class: "problem", role: "alert" }, `Background work has stopped: ${stats.trouble}`) : null,
    tiles(
      tile("Vectors", count(stats.rows)), tile("Indexed", count(stats.indexed_rows), waiting ? `${count(waiting)} searched exactly so far` : ""),
      tile("Dead rows", count(stats.dead_rows)), tile("In memory", bytes(stats.memory_bytes)), tile("On disk", bytes(stats.disk_bytes)),
      tile("Log", bytes(stats.log_bytes))),
    card("Segments", segments(stats.segments ?? [], chosen)),
  ];
}

function segments(found, chosen) {
  if (!found.some((segment) => segment.rows > 0)) {
    return empty("It holds no vectors yet.", h("p", {}, "Put some in with the API, a client or jade vectors import; or add one by hand."),
      h("a", { class: "button", href: `#/vectors?db=${chosen}&add=1` }, "Add a vector"));
  }
  return table("Segments", [
    ["Shard", (segment) => count(segment.shard), "right"],
    ["Segment", (segment) => h("code", {}, segment.name)],
    ["Index", (segment) => badge(segment.index, segment.index === "growing" ? "busy" : "")],
    ["Rows", (segment) => count(segment.rows), "right"],
    ["Alive", (segment) => count(segment.live), "right"],
    ["In memory", (segment) => bytes(segment.memory_bytes), "right"],
    ["On disk", (segment) => bytes(segment.disk_bytes), "right"],
  ], found);
}

function editDialog(page, found) {
  const name = new Field("Name", textInput({ value: found.name }));
  const description = new Field("Description", textInput({ value: found.description ?? "" }));
  const index = new Field("Index", select(INDEXES, found.index, {}), { hint: "Another one is built in the background; searches go on meanwhile." });
  askForm(`Change ${found.name}`, [name.element, description.element, index.element], { submit: "Save", act: async () => {
    const changes = {};
    if (name.required("A database has a name.") !== found.name) changes.name = name.text;
    if (description.text !== (found.description ?? "")) changes.description = description.text;
    if (index.input.value !== found.index) changes.index = index.input.value;
    if (Object.keys(changes).length) await page.api.patch(databasePath(found.id), changes);
    page.notice("Saved.");
    page.go(location.hash);
  } });
}

/** Grants: user id -> right; only owner and administrators see and change them. */
async function showGrants(page, box) {
  const path = (rest) => databasePath(page.params.db, `/grants${rest}`);
  const again = () => showGrants(page, box);
  const names = new Map();
  await load(page, box, async () => {
    const [answer, users] = await Promise.all([
      page.api.get(path(""), { signal: page.signal }),
      page.isAdmin ? page.api.get("/v1/users", { signal: page.signal }).catch(() => null) : null,
    ]);
    for (const user of users?.users ?? []) names.set(user.user_id, user.username);
    return Object.entries(answer.grants ?? {});
  }, (grants) => [
    grants.length ? table("Grants", [
      ["User", ([user]) => names.get(user) ?? user],
      ["May", ([, right]) => right],
      ["", ([user]) => h("button", { type: "button", class: "small danger-text", onclick: () => confirm(
        "Take this grant away?", `${names.get(user) ?? user} will not see this database any more.`,
        { submit: "Take away", act: async () => { await page.api.delete(path(`/${encodeURIComponent(user)}`)); await again(); } }) }, "Take away"), "right"],
    ], grants) : h("p", { class: "quiet" }, "Only its owner and administrators."),
    h("button", { type: "button", class: "small", onclick: () => grantDialog(page, path, names, again) }, "Grant access"),
  ]);
}

function grantDialog(page, path, names, done) {
  const user = new Field("User", names.size ? select([...names], undefined, {}) : textInput({ placeholder: "user id" }));
  const right = new Field("May", select([["read", "read and search"], ["write", "read and write"], ["admin", "everything but drop it"]], "read", {}));
  askForm("Grant access", [user.element, right.element], { submit: "Grant", act: async () => {
    await page.api.put(path(`/${encodeURIComponent(user.required("Say who."))}`), { right: right.input.value });
    await done();
  } });
}
