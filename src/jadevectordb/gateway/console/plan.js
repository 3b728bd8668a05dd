// What a search did, as a table a person can read: each segment, how it was asked and why, and where the time went.

import { h } from "./dom.js";
import { count, micros, plural } from "./format.js";
import { badge, card, table, tile, tiles } from "./parts.js";

/** A card about the explanation of a search, as the server gives it; times in microseconds. */
export function planCard(explanation) {
  return card("Plan", planBody(explanation));
}

export function planBody(explanation) {
  const segments = explanation.segments ?? [];
  // A search by vector and words asks a segment twice
  const asked = [...new Map(segments.map((segment) => [segment.segment, segment])).values()];
  const rows = asked.reduce((sum, segment) => sum + segment.rows, 0);
  return [
    h("p", {}, sentence(explanation, asked, rows)),
    tiles(
      tile("Total", micros(explanation.total_us)), tile("Compared exactly", count(explanation.candidates), `of ${plural(rows, "row")}`),
      tile("Passed the filter", count(asked.reduce((sum, segment) => sum + segment.matches, 0))), tile("Merging", micros(explanation.merge_us)), tile("Recall target", String(explanation.recall))),
    segments.length ? segmentTable(segments) : null,
  ];
}

function sentence(explanation, segments, rows) {
  const parts = [segments.length ? `${plural(segments.length, "segment")} with ${plural(rows, "vector")} ${segments.length === 1 ? "was" : "were"} asked.` : "No segment was asked."];
  if (explanation.text_terms?.length) parts.push(`Words looked for: ${explanation.text_terms.join(", ")}.`);
  if (explanation.fusion) parts.push(`The rankings by vector and by words were fused by ${explanation.fusion}, ${plural(explanation.depth, "hit")} deep each.`);
  return parts.join(" ");
}

function segmentTable(segments) {
  const time = (segment) => segment.filter_us + segment.search_us;
  const longest = Math.max(...segments.map(time), 1);
  return table("What each segment did", [
    ["Segment", (segment) => [badge(segment.index, segment.index === "growing" ? "busy" : ""), h("p", {}, h("code", { class: "quiet" }, segment.segment))], "nowrap"],
    ["Rows", (segment) => count(segment.rows), "right"],
    ["Matches", (segment) => count(segment.matches), "right"],
    ["Strategy", (segment) => [h("b", {}, segment.strategy), effort(segment), h("p", { class: "quiet small-text reason" }, segment.reason)]],
    ["Compared", (segment) => count(segment.compared), "right"],
    ["Filter", (segment) => micros(segment.filter_us), "right"],
    ["Search", (segment) => micros(segment.search_us), "right"],
    ["In all", (segment) => [micros(time(segment)), h("br"), h("meter", { min: 0, max: longest, value: time(segment),
      "aria-label": `${micros(time(segment))} of at most ${micros(longest)}` })], "right"],
  ], segments);
}

function effort(segment) {
  if (segment.nprobe) return `, ${count(segment.nprobe)} of ${plural(segment.lists, "list")}`;
  return segment.ef_search ? `, ef ${count(segment.ef_search)}` : "";
}
