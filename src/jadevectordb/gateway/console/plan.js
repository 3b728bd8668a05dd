// What a search did, as a table a person can read: each segment, how it was asked and why, and where the time went.

import { h } from "./dom.js";
import { count, micros, plural } from "./format.js";
import { badge, card, table, tile, tiles } from "./parts.js";

/** explanation: as the server gives it; times in microseconds. */
export function planView(explanation) {
  const segments = explanation.segments ?? [];
  const rows = segments.reduce((sum, segment) => sum + segment.rows, 0);
  return card("Plan",
    h("p", {}, sentence(explanation, rows)),
    tiles(
      tile("Total", micros(explanation.total_us)), tile("Compared exactly", count(explanation.candidates), `of ${plural(rows, "row")}`),
      tile("Passed the filter", count(explanation.matches)), tile("Merging", micros(explanation.merge_us)), tile("Recall target", String(explanation.recall))),
    segments.length ? segmentTable(segments) : h("p", { class: "quiet" }, "No segment was asked: the database is empty."));
}

function sentence(explanation, rows) {
  const parts = [`${plural(explanation.segments?.length ?? 0, "segment")} with ${plural(rows, "vector")} ${rows === 1 ? "was" : "were"} asked.`];
  if (explanation.text_terms?.length) parts.push(`Words looked for: ${explanation.text_terms.join(", ")}.`);
  if (explanation.fusion) parts.push(`Rankings of vector and words were fused by ${explanation.fusion}, ${plural(explanation.depth, "hit")} deep each.`);
  return parts.join(" ");
}

function segmentTable(segments) {
  const longest = Math.max(...segments.map((segment) => segment.filter_us + segment.search_us), 1);
  return table("What each segment did", [
    ["Segment", (segment) => h("code", {}, segment.segment)],
    ["Index", (segment) => badge(segment.index, segment.index === "growing" ? "busy" : "")],
    ["Rows", (segment) => count(segment.rows), "right"],
    ["Matches", (segment) => count(segment.matches), "right"],
    ["Strategy", (segment) => [h("b", {}, segment.strategy), h("p", { class: "quiet small-text reason" }, segment.reason)]],
    ["Effort", effort],
    ["Compared", (segment) => count(segment.compared), "right"],
    ["Filter", (segment) => micros(segment.filter_us), "right"],
    ["Search", (segment) => micros(segment.search_us), "right"],
    ["Time", (segment) => h("meter", { min: 0, max: longest, value: segment.filter_us + segment.search_us,
      "aria-label": `${micros(segment.filter_us + segment.search_us)} in all` })],
  ], segments);
}

function effort(segment) {
  if (segment.nprobe) return `${count(segment.nprobe)} of ${plural(segment.lists, "list")}`;
  if (segment.ef_search) return `ef ${count(segment.ef_search)}`;
  return "–";
}
