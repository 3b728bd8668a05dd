// One measurement of the server: its status, and figures from its own meters. The rate of searches is the difference of a
// counter between two measurements, so a burst shows at once; latencies and CPU are the server's own, over its last minute.

const RECENT_MS = 10_000;

/** {status, sample}; `before`: the last sample, or undefined. Figures that are not measured are null. */
export async function measure(api, before, signal) {
  const [status, performance] = await Promise.all([
    api.get("/status", { signal }),
    api.get("/v1/metrics/performance", { signal }),
  ]);
  const at = Date.now();
  const searches = performance.queries_total ?? null;
  const sample = {
    at,
    searches,
    qps: rate(before, at, "searches", searches) ?? performance.queries_per_second ?? null,
    p50: performance.query_latency_p50 ?? null,
    p95: performance.query_latency_p95 ?? null,
    p99: performance.query_latency_p99 ?? null,
    cpu: performance.cpu_usage ?? null,
    process: performance.process_cpu_usage ?? null,
    memory: performance.process_memory_bytes ?? null,
    rows: status.performance?.total_vectors ?? null,
  };
  return { status, sample };
}

/** Growth of a counter in a second; null without a recent measurement before, or after a restart. */
function rate(before, at, key, now) {
  const past = before?.[key];
  if (typeof past !== "number" || typeof now !== "number" || now < past || at <= before.at || at - before.at > RECENT_MS) return null;
  return ((now - past) * 1000) / (at - before.at);
}
