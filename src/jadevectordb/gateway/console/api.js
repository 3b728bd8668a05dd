// The console's line to the server: one place that adds the credential, waits no longer than it should, and turns every
// way a request can fail into one sentence a person can act on.

import { parseExact } from "./json_places.js";

const CREDENTIAL = "jade.credential";
const TIMEOUT_MS = 30_000;

/** A failed call. message: a sentence for people. status: 0 when no answer came. code, details: as the server sent them. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", details = {} } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

export class Api {
  constructor() {
    this.sessions = new Map(); // database -> newest session text: reads then see the console's own writes
    this.onSignedOut = () => {};
  }

  /** The session token or API key, kept for this browser tab only. */
  get credential() {
    try {
      return sessionStorage.getItem(CREDENTIAL) ?? "";
    } catch {
      return this.held ?? ""; // storage is switched off: remember it as long as the page lives
    }
  }

  set credential(value) {
    this.held = value;
    try {
      if (value) sessionStorage.setItem(CREDENTIAL, value);
      else sessionStorage.removeItem(CREDENTIAL);
    } catch { /* held above */ }
  }

  get(path, options) { return this.call("GET", path, undefined, options); }
  post(path, body, options) { return this.call("POST", path, body ?? {}, options); }
  put(path, body, options) { return this.call("PUT", path, body ?? {}, options); }
  patch(path, body, options) { return this.call("PATCH", path, body ?? {}, options); }
  delete(path, options) { return this.call("DELETE", path, undefined, options); }

  /** The decoded JSON answer. options: query, signal (gives up), timeoutMs, text (answer as text), keep401 (a 401 is just an error). */
  async call(method, path, body, options = {}) {
    const response = await this.send(method, path, body, options);
    const text = await response.text().catch(() => {
      throw new ApiError("The server broke off its answer. Try again.", { status: response.status });
    });
    if (response.ok && options.text) return text;
    let answer;
    try {
      answer = parseExact(text);
    } catch {
      throw new ApiError(
        `The answer (HTTP ${response.status}) is not JSON: is there a proxy between this page and the server?`,
        { status: response.status },
      );
    }
    if (!response.ok) throw this.failure(response, answer, options);
    this.remember(path, answer);
    return answer;
  }

  /** The raw response, whatever its status; ApiError when there is none. */
  async send(method, path, body, { query, signal, timeoutMs = TIMEOUT_MS } = {}) {
    const timeout = AbortSignal.timeout(timeoutMs);
    const headers = {};
    if (this.credential) headers.Authorization = `Bearer ${this.credential}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const session = this.sessions.get(databaseOf(path));
    if (session) headers["X-Jade-Session"] = session;
    try {
      return await fetch(path + queryText(query), {
        method,
        headers,
        body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        credentials: "omit", // no cookies, and no password dialog of the browser's own
        cache: "no-store",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      if (timeout.aborted) {
        throw new ApiError(`The server did not answer within ${timeoutMs / 1000} s. It may be busy: try again.`);
      }
      throw new ApiError(`The server at ${location.host} cannot be reached. Is it running? Check with: jade health`);
    }
  }

  failure(response, answer, { keep401 }) {
    const wait = response.headers.get("Retry-After");
    const sentence = answer?.message || `The server refused with HTTP ${response.status} and gave no reason.`;
    const error = new ApiError(wait ? `${sentence} Try again in ${wait} s.` : sentence, {
      status: response.status,
      code: answer?.code || answer?.error || "",
      details: answer?.details ?? {},
    });
    if ((response.status === 401 && !keep401) || error.code === "PASSWORD_CHANGE_REQUIRED") this.onSignedOut(error);
    return error;
  }

  remember(path, answer) {
    if (typeof answer?.session === "string" && databaseOf(path)) this.sessions.set(databaseOf(path), answer.session);
  }
}

/** The path of a database of the native API, or of something in it. */
export function databasePath(db, rest = "") {
  return `/v2/databases/${encodeURIComponent(db)}${rest}`;
}

function databaseOf(path) {
  return /^\/v2\/databases\/([^/?]+)/.exec(path)?.[1] ?? "";
}

function queryText(query) {
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}
