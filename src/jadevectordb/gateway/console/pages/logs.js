// The server's log: newest lines first, filtered by level and text, followed while the page is open if one likes.

import { fill, h } from "../dom.js";
import { brief, clock, when } from "../format.js";
import { check, Field, problem, select, textInput } from "../forms.js";
import { badge, empty, heading, jsonBlock, poll } from "../parts.js";

const INTERVAL_MS = 2000;
const TYPING_MS = 250;
const KNOWN = new Set(["time", "level", "message", "trace"]);
const KIND = { debug: "", info: "good", warning: "busy", error: "bad" };
const LEVELS = [["debug", "all"], ["info", "info and above"], ["warning", "warnings and errors"], ["error", "errors"]];

export function logs(page) {
  const level = new Field("Level", select(LEVELS, "debug", { name: "level" }));
  const contains = new Field("Contains", h("input", { type: "search", name: "log-text", autocomplete: "off", spellcheck: "false" }));
  const limit = new Field("Lines", select(["100", "200", "500", "1000"], "200", { name: "limit" }));
  const follow = check("Follow", { name: "follow", checked: true });
  const box = h("div", { class: "results" });
  let shown = "";
  let asked = 0;
  const show = async () => {
    asked += 1;
    const turn = asked; // an answer that was overtaken by a newer question is dropped
    try {
      const answer = await page.api.get("/v2/logs", { signal: page.signal,
        query: { level: level.input.value, contains: contains.input.value, limit: limit.input.value } });
      const text = JSON.stringify(answer.entries);
      if (page.signal.aborted || turn !== asked || text === shown) return;
      shown = text; // lines are only drawn anew when they changed: an opened line stays open
      fill(box, logView(answer.entries, level.input.value !== "debug" || contains.input.value));
    } catch (error) {
      if (page.signal.aborted || turn !== asked) return;
      shown = "";
      fill(box, problem(error, show));
    }
  };
  let typing = 0;
  contains.input.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(show, TYPING_MS); });
  for (const input of [level.input, limit.input]) input.addEventListener("change", show);
  follow.box.addEventListener("change", () => { if (follow.box.checked) void show(); });
  fill(page.main, heading("Logs", "What the server has said lately, the newest first."),
    h("form", { class: "card columns", onsubmit: (event) => event.preventDefault() }, level.element, contains.element, limit.element, follow.element), box);
  poll(page, INTERVAL_MS, async () => { if (follow.box.checked || !shown) await show(); });
}

function logView(entries, filtered) {
  if (!entries.length) {
    return filtered ? empty("No line matches.", h("p", {}, "Choose another level or less text."))
      : empty("The log is empty.", h("p", {}, "Lines appear here as the server writes them."));
  }
  return h("ol", { class: "log", "aria-label": "Log lines" }, entries.map(lineView));
}

function lineView(entry) {
  const level = String(entry.level ?? "").toLowerCase();
  const rest = Object.entries(entry).filter(([key, value]) => !KNOWN.has(key) && value !== null && value !== "");
  const nested = rest.filter(([, value]) => typeof value === "object");
  const plain = rest.filter(([, value]) => typeof value !== "object");
  const today = new Date(entry.time).toDateString() === new Date().toDateString();
  return h("li", { class: "log-line" },
    h("time", { datetime: String(entry.time ?? ""), title: when(entry.time) }, today ? clock(entry.time) : when(entry.time)), badge(level, KIND[level] ?? ""),
    h("div", { class: "log-text" }, h("p", {}, String(entry.message ?? "")),
      h("p", { class: "quiet" }, plain.map(([key, value]) => h("span", { class: "log-field" }, `${key}=${brief(value, 2000)}`))),
      nested.map(([key, value]) => h("details", {}, h("summary", {}, key), jsonBlock(value, key))),
      entry.trace ? h("details", {}, h("summary", {}, "Trace"), jsonBlock(String(entry.trace), "Trace")) : null));
}
