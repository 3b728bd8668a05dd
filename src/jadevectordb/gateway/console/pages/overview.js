// Overview: what the server is, how it is, and what it is doing right now, measured every two seconds.

import { Chart } from "../chart.js";
import { fill, h } from "../dom.js";
import { bytes, count, duration, millis, number, percent } from "../format.js";
import { problem } from "../forms.js";
import { measure } from "../measure.js";
import { badge, card, empty, heading, load, poll, table, tile, tiles } from "../parts.js";

const INTERVAL_MS = 2000;

export async function overview(page) {
  const facts = h("div", { class: "facts" });
  const trouble = h("div", {});
  const list = h("div", {});
  const charts = [
    new Chart("Searches a second", [["qps", "searches"]], { format: number, ceiling: 1 }),
    new Chart("Search latency in the server", [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]], { format: millis, note: "Over the searches of the last minute." }),
    new Chart("CPU", [["cpu", "machine"], ["process", "this process"]], { format: percent, ceiling: 100, note: "Of this process: 100 % is one core." }),
    new Chart("Memory of this process", [["memory", "resident"]], { format: bytes, ceiling: 1 << 20, binary: true }),
    new Chart("Vectors", [["rows", "stored"]], { format: count, ceiling: 10 }),
  ];
  fill(page.main,
    heading("Overview", "Figures are taken every two seconds while this page is open."),
    trouble, facts,
    h("div", { class: "charts" }, charts.map((chart) => chart.element)),
    card("Databases", list));
  void load(page, list, () => page.api.get("/v2/databases", { signal: page.signal }), (answer) => databaseTable(answer.databases));
  poll(page, INTERVAL_MS, async () => {
    try {
      const { status, sample } = await measure(page.api, page.history.samples.at(-1), page.signal);
      if (page.signal.aborted) return;
      page.history.add(sample);
      fill(trouble);
      fill(facts, factTiles(status));
    } catch (error) {
      if (page.signal.aborted) return;
      page.history.add({ at: Date.now() });
      fill(trouble, problem(error));
    }
    for (const chart of charts) chart.update(page.history.samples, Date.now());
  });
}

function factTiles(status) {
  const failing = Object.entries(status.checks ?? {}).filter(([, result]) => result !== "ok");
  const well = status.status === "operational";
  return [
    tiles(
      tile("Status", badge(status.status, well ? "good" : "bad")),
      tile("Version", status.version),
      tile("Up for", duration(status.uptime_seconds)),
      tile("Databases", count(status.performance?.database_count)),
      tile("Vectors", count(status.performance?.total_vectors)),
      tile("Disk used", percent(status.system?.disk_usage_percent)),
      tile("Sign-in", status.auth_mode ?? "–")),
    failing.length ? h("div", { class: "problem", role: "alert" }, failing.map(([name, result]) => h("p", {}, h("b", {}, name), `: ${result}`))) : null,
  ];
}

function databaseTable(databases) {
  if (!databases.length) {
    return empty("There is no database yet.", h("a", { class: "button primary", href: "#/databases?create=1" }, "Create the first database"));
  }
  return table("Databases", [
    ["Name", (database) => h("a", { href: `#/databases/${encodeURIComponent(database.id)}` }, database.name)],
    ["Vectors", (database) => count(database.vectors), "right"],
    ["Dimension", (database) => count(database.dimension), "right"],
    ["Metric", (database) => database.metric],
  ], databases);
}
