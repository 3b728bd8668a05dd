// One measurement of the server: its status, and figures from its own meters. Rates are differences of counters between two
// measurements, so a burst shows at once; latencies are the server's percentiles over the last minute.

/** {status, sample}; `before`: the last sample, or undefined. Figures that are not measured are null. */
export async function measure(api, before, signal) {
  const [status, performance, metrics] = await Promise.all([
    api.get("/status", { signal }),
    api.get("/v1/metrics/performance", { signal }),
    api.get("/metrics", { signal, text: true }).then(parseMetrics),
  ]);
  const at = Date.now();
  const searches = performance.queries_total ?? null;
  const processSeconds = total(metrics, "process_cpu_seconds_total");
  const sample = {
    at,
    searches,
    processSeconds,
    qps: rate(before, at, "searches", searches) ?? performance.queries_per_second ?? null,
    p50: performance.query_latency_p50 ?? null,
    p95: performance.query_latency_p95 ?? null,
    p99: performance.query_latency_p99 ?? null,
    cpu: performance.cpu_usage ?? null,
    process: scaled(rate(before, at, "processSeconds", processSeconds), 100),
    memory: total(metrics, "process_resident_memory_bytes"),
    rows: status.performance?.total_vectors ?? null,
  };
  return { status, sample };
}

/** Growth of a counter in a second; null without a recent measurement before, or after a restart. */
function rate(before, at, key, now) {
  const past = before?.[key];
  if (typeof past !== "number" || typeof now !== "number" || now < past || at <= before.at || at - before.at > 10_000) return null;
  return ((now - past) * 1000) / (at - before.at);
}

const scaled = (value, factor) => (value === null ? null : value * factor);

/** The Prometheus text format: name -> [{labels, value}], labels as text. */
export function parseMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const parts = /^([a-zA-Z_:][\w:]*)(\{.*\})?\s+(\S+)/.exec(line);
    if (!parts) continue;
    const value = Number(parts[3].replace("+Inf", "Infinity").replace("-Inf", "-Infinity"));
    if (!found.has(parts[1])) found.set(parts[1], []);
    found.get(parts[1]).push({ labels: parts[2] ?? "", value });
  }
  return found;
}

/** The sum over all labels; null when the server does not report it. */
export function total(metrics, name) {
  const entries = metrics.get(name);
  return entries ? entries.reduce((sum, entry) => sum + entry.value, 0) : null;
}
