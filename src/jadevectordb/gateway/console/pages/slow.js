// Slow queries: the searches that took longest lately, with the plan each followed.

import { fill, h } from "../dom.js";
import { brief, count, millis, when } from "../format.js";
import { empty, heading, load } from "../parts.js";
import { planBody } from "../plan.js";

export async function slow(page) {
  const box = h("div", {});
  const again = () => load(page, box, () => page.api.get("/v2/queries/slow", { signal: page.signal }), listView);
  fill(page.main, heading("Slow queries", "Searches that took longer than the server's threshold, the newest first, each with the plan that says why.",
    h("button", { type: "button", onclick: again }, "Refresh")), box);
  await again();
}

function listView({ queries, threshold_ms: threshold }) {
  if (!queries.length) {
    return empty("No search was slow.", h("p", {}, typeof threshold === "number"
      ? `Searches that take ${millis(threshold)} or longer appear here.` : "Searches that take as long as the server's threshold or longer appear here."));
  }
  return h("ol", { class: "slow" }, queries.map(queryView));
}

function queryView(query) {
  const asked = [["k", query.k ?? "all"], ["recall", query.recall], ["hits", count(query.hits)], ...Object.entries(query.options ?? {})];
  asked.push(["filter", query.filter], ["request", query.request_id]);
  return h("li", { class: "card" },
    h("div", { class: "slow-head" }, h("b", {}, millis(query.duration_ms)), h("span", {}, query.database), h("span", { class: "quiet" }, when(query.time, "–"))),
    h("dl", { class: "metadata" }, asked.filter(([, value]) => value !== "" && value !== null).map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, brief(value, 300))))),
    query.plan ? h("details", {}, h("summary", {}, `Plan ${query.plan_note}`), planBody(query.plan)) : h("p", { class: "quiet" }, `Plan ${query.plan_note}.`));
}
