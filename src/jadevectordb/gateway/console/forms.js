// Form parts: labelled fields that show an error where it happened, forms that run one action at a time, and dialogs.

import { content, fill, freshId, h } from "./dom.js";
import { lineOf, PlaceError, findPlace, parsePlaces } from "./json_places.js";

/** Thrown after a field has shown what is wrong with it; the form then stops quietly. */
export class FieldError extends Error {}

/** A label, an input, a hint and a place for its error, tied together for screen readers. */
export class Field {
  constructor(label, input, { hint = "", wide = false } = {}) {
    const id = input.id || freshId("field");
    input.id = id;
    this.input = input;
    this.error = h("div", { class: "field-error", id: `${id}-error`, role: "alert" });
    this.hint = h("p", { class: "hint", id: `${id}-hint` }, hint);
    input.setAttribute("aria-describedby", `${id}-error ${id}-hint`);
    this.element = h("div", { class: wide ? "field wide" : "field" },
      h("label", { for: id }, label), input, this.error, this.hint);
    input.addEventListener("input", () => this.clear());
  }

  get text() { return this.input.value.trim(); }

  /** Another hint. */
  say(hint) { fill(this.hint, hint); }

  clear() {
    this.input.removeAttribute("aria-invalid");
    fill(this.error);
  }

  /** Show what is wrong, go there, and stop the form. */
  fail(...message) {
    this.input.setAttribute("aria-invalid", "true");
    fill(this.error, ...message);
    this.input.focus();
    throw new FieldError();
  }

  required(what) {
    return this.text || this.fail(what);
  }

  /** The number in the field, or undefined when it is empty. */
  number(low, high, { integer = false } = {}) {
    if (this.text === "") return undefined;
    const value = Number(this.text);
    if (!Number.isFinite(value) || (integer && !Number.isInteger(value)) || value < low || value > high) {
      const kind = integer ? "a whole number" : "a number";
      this.fail(`This must be ${kind} from ${low} to ${high}.`);
    }
    return value;
  }
}

/** A text area for JSON that shows an error at its line and place. */
export class JsonField extends Field {
  constructor(label, { rows = 3, placeholder = "", hint = "", value = "" } = {}) {
    super(label, h("textarea", { class: "code", rows, placeholder, value, spellcheck: "false", autocomplete: "off" }), { hint, wide: true });
  }

  /** The value, or undefined when the field is empty. */
  read() {
    this.clear();
    if (!this.text) return undefined;
    try {
      return this.parse().value;
    } catch (error) {
      if (error instanceof PlaceError) this.mark(error.message, error.start, error.end);
      throw error;
    }
  }

  parse() { return parsePlaces(this.input.value); }

  /** Show a refusal that names its place as a path; without a known path, below the whole field. */
  failAt(path, message) {
    const [start, end] = findPlace(this.parse().places, path ?? "");
    if (!path) this.fail(message);
    this.mark(message, start, end);
  }

  mark(message, start, end) {
    const at = lineOf(this.input.value, start, end);
    const cut = Math.max(0, at.start - 40);
    this.input.setSelectionRange(start, Math.min(end, this.input.value.length));
    this.fail(
      h("p", {}, message),
      h("pre", { class: "place" },
        `line ${at.line}, column ${at.column}:  `,
        cut > 0 ? "…" : "", at.text.slice(cut, at.start), h("mark", {}, at.text.slice(at.start, at.end) || " "), at.text.slice(at.end, at.end + 60)),
    );
  }
}

export function textInput(props) {
  return h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", ...props });
}

/** options: [value, label] pairs or plain values. */
export function select(options, chosen, props) {
  return h("select", props, options.map((option) => {
    const [value, label] = Array.isArray(option) ? option : [option, option];
    return h("option", { value, selected: value === chosen }, label);
  }));
}

/** A check box with its label behind it. */
export function check(label, props) {
  const box = h("input", { type: "checkbox", ...props });
  return { box, element: h("label", { class: "check" }, box, h("span", {}, label)) };
}

/** A form whose submit runs `act` once at a time; errors that no field has shown appear above the buttons. */
export function form(parts, { submit, act, danger = false, extra = [] }) {
  const failure = h("div", { class: "form-failure" });
  const button = h("button", { type: "submit", class: danger ? "danger" : "primary" }, submit);
  const element = h("form", { novalidate: true }, parts, failure, h("div", { class: "buttons" }, button, extra));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    fill(failure);
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    try {
      await act();
    } catch (error) {
      if (!(error instanceof FieldError || error instanceof PlaceError || error.name === "AbortError")) fill(failure, problem(error));
    } finally {
      button.disabled = element.dataset.locked === "yes";
      button.removeAttribute("aria-busy");
    }
  });
  return { element, button, failure };
}

/** What went wrong, as a sentence in a box; with a button to try again when `retry` is given. */
export function problem(error, retry) {
  if (!(error instanceof Error) || !error.message) console.error(error);
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, error?.message || "Something unexpected happened in this page: reload it."),
    retry ? h("button", { type: "button", class: "small", onclick: retry }, "Try again") : null);
}

/** A modal dialog; `close()` takes it away. Escape closes it, focus returns to where it was. */
export function dialog(title, ...children) {
  const id = freshId("dialog");
  const element = h("dialog", { "aria-labelledby": id }, h("h2", { id }, title), content(children));
  const close = () => element.close();
  element.addEventListener("close", () => element.remove());
  document.body.append(element);
  element.showModal();
  return { element, close };
}

/** A dialog with a form: `act` runs when it is confirmed, the dialog closes when that worked. */
export function askForm(title, parts, { submit, act, danger }) {
  const cancel = h("button", { type: "button" }, "Cancel");
  const asked = form(parts, { submit, danger, extra: [cancel], act: async () => {
    const keep = await act();
    if (keep !== false) box.close();
  } });
  const box = dialog(title, asked.element);
  cancel.addEventListener("click", box.close);
  asked.element.querySelector("input:not([type=checkbox]), textarea, select")?.focus();
  return { ...asked, close: box.close };
}

/** Ask before something that cannot be undone. word: what must be typed to allow it; without one a click is enough. */
export function confirm(title, explanation, { word, submit, act }) {
  const typed = word === undefined ? null : new Field(h("span", {}, "To confirm, type its name: ", h("code", { class: "typed" }, word)), textInput({ name: "confirm" }));
  const asked = askForm(title, [h("p", {}, explanation), typed?.element], { submit, act, danger: true });
  if (!typed) return asked;
  const lock = () => {
    const locked = typed.input.value !== word;
    asked.element.dataset.locked = locked ? "yes" : "no";
    asked.button.disabled = locked;
  };
  typed.input.addEventListener("input", lock);
  lock();
  return asked;
}
