// A JSON reader that knows where everything stands, so that an error can be shown at its place: both what is no JSON,
// and what is JSON but refused by the server, which names the place as a path ("$or[1].year.$gte").

const NUMBER = /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const DEPTH_MAX = 200;

/** What is wrong with a text and where: start and end are offsets into it. */
export class PlaceError extends Error {
  constructor(message, start, end) {
    super(message);
    this.start = start;
    this.end = Math.max(end ?? start + 1, start + 1);
  }
}

/** A number as JSON writes it. An integer too large for a JavaScript number is kept as its digits, so that it comes out as it went in. */
export function exactNumber(source) {
  const value = Number(source);
  return Number.isInteger(value) && !Number.isSafeInteger(value) && JSON.rawJSON ? JSON.rawJSON(source) : value;
}

/** JSON.parse that keeps every integer exact. */
export function parseExact(text) {
  return JSON.parse(text, (key, value, context) => (typeof value === "number" && context?.source ? exactNumber(context.source) : value));
}

/** {value, places}: the value as parseExact gives it; places: path -> [start, end] of the value or of its key. */
export function parsePlaces(text) {
  return new Reader(text).whole();
}

/** The place a server means, or the nearest one around it: [start, end]. */
export function findPlace(places, path) {
  for (let at = path; at; at = at.slice(0, Math.max(at.lastIndexOf("."), at.lastIndexOf("["), 0))) {
    if (places.has(at)) return places.get(at);
  }
  return places.get("") ?? [0, 0];
}

/** {line, column, text, start, end}: the line a place is on, both counted from 1, start and end within that line. */
export function lineOf(text, start, end) {
  const from = text.lastIndexOf("\n", start - 1) + 1;
  const stop = text.indexOf("\n", start);
  const line = text.slice(from, stop < 0 ? text.length : stop);
  const number = text.slice(0, from).split("\n").length;
  return { line: number, column: start - from + 1, text: line, start: start - from, end: Math.min(end - from, line.length) };
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.depth = 0;
    this.places = new Map();
  }

  whole() {
    this.space();
    const value = this.value("");
    this.space();
    if (this.at < this.text.length) this.fail("There is more text after the end of the JSON value.", this.text.length);
    return { value, places: this.places };
  }

  value(path) {
    const start = this.at;
    const next = this.text[this.at];
    let value;
    if (next === "{") value = this.deeper(() => this.object(path));
    else if (next === "[") value = this.deeper(() => this.array(path));
    else if (next === '"') value = this.string();
    else value = this.word();
    // An operator or a field is pointed at where its name stands; `object` has noted that already
    if (!this.places.has(path)) this.places.set(path, [start, this.at]);
    return value;
  }

  deeper(read) {
    this.depth += 1;
    if (this.depth > DEPTH_MAX) this.fail("This is nested too deep.");
    const value = read();
    this.depth -= 1;
    return value;
  }

  object(path) {
    const value = {};
    this.at += 1;
    this.space();
    if (this.take("}")) return value;
    for (;;) {
      const start = this.at;
      if (this.text[this.at] !== '"') this.fail(this.at < this.text.length
        ? 'A key in double quotes is expected here, such as "pos".' : "The object is not closed: a } is missing.");
      const key = this.string();
      const inner = path ? `${path}.${key}` : key;
      this.places.set(inner, [start, this.at]);
      this.space();
      if (!this.take(":")) this.fail(`A colon is expected after the key "${key}".`);
      this.space();
      const member = this.value(inner);
      Object.defineProperty(value, key, { value: member, enumerable: true, writable: true, configurable: true });
      this.space();
      if (this.take("}")) return value;
      this.comma("}", "object");
    }
  }

  array(path) {
    const value = [];
    this.at += 1;
    this.space();
    if (this.take("]")) return value;
    for (;;) {
      value.push(this.value(`${path}[${value.length}]`));
      this.space();
      if (this.take("]")) return value;
      this.comma("]", "list");
    }
  }

  comma(end, kind) {
    if (!this.take(",")) {
      this.fail(this.at < this.text.length ? `A comma or ${end} is expected here.` : `The ${kind} is not closed: a ${end} is missing.`);
    }
    const comma = this.at - 1;
    this.space();
    if (this.text[this.at] === end) throw new PlaceError(`There is a comma too many before the ${end}.`, comma);
  }

  string() {
    const start = this.at;
    for (let i = start + 1; i < this.text.length && this.text[i] !== "\n"; i += this.text[i] === "\\" ? 2 : 1) {
      if (this.text[i] !== '"') continue;
      this.at = i + 1;
      try {
        return JSON.parse(this.text.slice(start, this.at));
      } catch {
        throw new PlaceError("This string has an escape or a control character that JSON does not allow.", start, this.at);
      }
    }
    const line = this.text.indexOf("\n", start);
    throw new PlaceError("The string is not closed: a double quote is missing.", start, line < 0 ? this.text.length : line);
  }

  word() {
    for (const [word, value] of [["true", true], ["false", false], ["null", null]]) {
      if (this.text.startsWith(word, this.at) && !/\w/.test(this.text[this.at + word.length] ?? "")) {
        this.at += word.length;
        return value;
      }
    }
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    const end = this.at + (found?.[0].length ?? 0);
    if (found && !/[\w.+-]/.test(this.text[end] ?? "")) {
      this.at = end;
      return exactNumber(found[0]);
    }
    return this.unknown();
  }

  unknown() {
    if (this.at >= this.text.length) this.fail("A value is missing: the text ends here.");
    const rest = /^[^\s,\]}:]+/.exec(this.text.slice(this.at))?.[0] ?? this.text[this.at];
    const hints = { True: "write true", False: "write false", None: "write null", NaN: "JSON has no NaN", nan: "JSON has no NaN" };
    const why = hints[rest] ?? (rest.startsWith("'") ? "strings stand in double quotes"
      : /^[A-Za-z_]/.test(rest) ? "text stands in double quotes" : "a value is expected");
    return this.fail(`This is no JSON value: ${why}.`, this.at + rest.length);
  }

  take(character) {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  space() {
    SPACE.lastIndex = this.at;
    this.at += SPACE.exec(this.text)[0].length;
  }

  fail(message, end) {
    throw new PlaceError(message, this.at, end);
  }
}
