// Values as people read them: numbers, bytes, durations, times, JSON. Every function takes null for "not measured".

const UNKNOWN = "–";
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  return isNumber(value) ? whole.format(value) : UNKNOWN;
}

export function number(value) {
  if (!isNumber(value)) return UNKNOWN;
  return Math.abs(value) >= 10000 ? short.format(value) : plain.format(value);
}

export function percent(value) {
  return isNumber(value) ? `${plain.format(value)} %` : UNKNOWN;
}

/** A score with as many digits as tell neighbours apart. */
export function score(value) {
  return isNumber(value) ? Number(value.toPrecision(6)).toString() : UNKNOWN;
}

export function bytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(size) : plain.format(Number(size.toPrecision(3)))} ${units[unit]}`;
}

/** microseconds: 85 µs, 1.2 ms, 3.4 s. */
export function micros(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (value < 1000) return `${Number(value.toPrecision(3))} µs`;
  if (value < 1e6) return `${Number((value / 1e3).toPrecision(3))} ms`;
  return `${Number((value / 1e6).toPrecision(3))} s`;
}

export function millis(value) {
  return isNumber(value) ? micros(value * 1000) : UNKNOWN;
}

export function duration(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  const parts = [];
  let rest = Math.floor(seconds);
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0 && parts.length < 2) parts.push(`${amount} ${name}`);
  }
  return parts.join(" ") || "0 s";
}

/** A moment (ISO text or ms) in the reader's time zone; "never" when there was none. */
export function when(value, absent = "never") {
  if (value === null || value === undefined || value === "") return absent;
  const moment = new Date(value);
  if (Number.isNaN(moment.getTime())) return String(value);
  return moment.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(value) {
  const moment = new Date(value);
  return Number.isNaN(moment.getTime()) ? String(value) : moment.toLocaleTimeString("en-GB");
}

export function plural(amount, one, many = `${one}s`) {
  return `${count(amount)} ${amount === 1 ? one : many}`;
}

/** Any JSON value on one line, cut at `limit` characters. */
export function brief(value, limit = 80) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? String(value);
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}

export function pretty(value) {
  return JSON.stringify(value, null, 2);
}
