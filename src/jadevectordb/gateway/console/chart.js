// A small line chart over time in SVG: as many series as its legend names, a grid that fits, and the values under the pointer.

import { fill, h, svg } from "./dom.js";
import { clock } from "./format.js";

const HEIGHT = 150;
const LEFT = 52;
const BOTTOM = 20;
const TOP = 8;
const RIGHT = 8;
const WINDOW_MS = 5 * 60_000;
const GAP_MS = 7_000; // no line across a longer silence

export class Chart {
  /** series: [[key in a sample, name]]. format: a value for people. ceiling: the least upper end of the scale. binary: of bytes. */
  constructor(title, series, { format, ceiling = 0, note = "", binary = false }) {
    Object.assign(this, { title, series, format, ceiling, binary, samples: [], cursor: null, now: 0, width: 420 });
    this.legend = h("ul", { class: "legend" });
    this.moment = h("span", { class: "quiet" });
    this.plot = svg("svg", { class: "plot", height: HEIGHT, role: "img", tabindex: "0" });
    this.element = h("section", { class: "card chart" },
      h("header", {}, h("h2", {}, title), this.moment), this.plot, this.legend, note ? h("p", { class: "hint" }, note) : null);
    this.plot.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    this.plot.addEventListener("keydown", (event) => this.step(event));
    this.plot.addEventListener("blur", () => this.point(null));
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width > 0 && width !== this.width) {
        this.width = width;
        this.draw();
      }
    }).observe(this.plot);
  }

  update(samples, now) {
    this.now = now;
    this.samples = samples.filter((sample) => sample.at >= now - WINDOW_MS);
    if (this.cursor && !this.samples.includes(this.cursor)) this.cursor = null;
    this.draw();
  }

  x(at) { return LEFT + (1 - (this.now - at) / WINDOW_MS) * (this.width - LEFT - RIGHT); }

  point(offset) {
    if (offset === null) this.cursor = null;
    else this.cursor = this.samples.reduce((best, sample) =>
      !best || Math.abs(this.x(sample.at) - offset) < Math.abs(this.x(best.at) - offset) ? sample : best, null);
    this.draw();
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.samples.length) return;
    event.preventDefault();
    const from = this.cursor ? this.samples.indexOf(this.cursor) : this.samples.length;
    this.cursor = this.samples[Math.min(this.samples.length - 1, Math.max(0, from + move))];
    this.draw();
  }

  draw() {
    const values = this.samples.flatMap((sample) => this.series.map(([key]) => sample[key]).filter(isNumber));
    const { top, steps } = scale(Math.max(this.ceiling, ...values, 0), this.binary);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const shown = this.cursor ?? this.samples.at(-1);
    const parts = steps.map((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "axis", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.format(value)),
    ]);
    const minutes = this.width < 420 ? [5, 3, 0] : [5, 4, 3, 2, 1, 0];
    parts.push(minutes.map((ago) => svg("text", { class: "axis", x: this.x(this.now - ago * 60_000), y: HEIGHT - 4, "text-anchor": { 5: "start", 0: "end" }[ago] ?? "middle" },
      ago ? `−${ago} min` : "now")));
    this.series.forEach(([key], index) => {
      const runs = this.runs(key, y);
      if (this.series.length === 1) parts.push(runs.map((run) => svg("path", { class: "area", d: `${line(run)}L${run.at(-1)[0]} ${y(0)}L${run[0][0]} ${y(0)}Z` })));
      parts.push(runs.map((run) => svg("path", { class: `line series-${index + 1}`, d: run.length === 1 ? `${line(run)}h0.01` : line(run) })));
    });
    if (this.cursor) parts.push(svg("line", { class: "cursor", x1: this.x(this.cursor.at), x2: this.x(this.cursor.at), y1: TOP, y2: HEIGHT - BOTTOM }));
    if (!values.length) parts.push(svg("text", { class: "axis", x: LEFT + (this.width - LEFT) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing measured yet"));
    this.plot.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    fill(this.plot, parts);
    this.tell(shown);
  }

  /** Stretches of neighbouring measurements: [[x, y], …] each. */
  runs(key, y) {
    const runs = [];
    let last = null;
    for (const sample of this.samples) {
      if (!isNumber(sample[key])) {
        last = null;
        continue;
      }
      if (last === null || sample.at - last > GAP_MS) runs.push([]);
      runs.at(-1).push([round(this.x(sample.at)), round(y(sample[key]))]);
      last = sample.at;
    }
    return runs;
  }

  tell(shown) {
    const said = this.series.map(([key, name]) => [name, isNumber(shown?.[key]) ? this.format(shown[key]) : "–"]);
    fill(this.legend, said.map(([name, value], index) =>
      h("li", {}, h("span", { class: `swatch series-${index + 1}` }), `${name} `, h("b", {}, value))));
    fill(this.moment, this.cursor ? `at ${clock(this.cursor.at)}` : "now");
    this.plot.setAttribute("aria-label", `${this.title}, last 5 minutes. ${said.map(([name, value]) => `${name}: ${value}`).join(", ")}. Arrow keys move through time.`);
  }
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const round = (value) => Math.round(value * 10) / 10;
const line = (run) => run.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");

/** Round grid lines from 0 to a little above the largest value; binary: round in KiB, MiB, GiB. */
export function scale(largest, binary = false) {
  const rough = (largest || 1) / 3;
  const unit = binary ? 1024 ** Math.max(0, Math.floor(Math.log2(rough) / 10)) : 1;
  const magnitude = unit * 10 ** Math.floor(Math.log10(rough / unit));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((size) => size >= rough);
  const lines = Math.max(1, Math.ceil((largest || 1) / step - 1e-9));
  return { top: lines * step, steps: Array.from({ length: lines + 1 }, (_, i) => Number((i * step).toPrecision(6))) };
}
