// The console's frame: who is signed in, which page the address asks for, and the navigation around it.
//
// A page is `show(page)`: it fills `page.main` and stops whatever it keeps running when `page.signal` aborts.

import { Api } from "./api.js";
import { fill, h } from "./dom.js";
import { problem } from "./forms.js";
import { History } from "./history.js";
import { heading } from "./parts.js";
import { account } from "./pages/account.js";
import { database } from "./pages/database.js";
import { databases } from "./pages/databases.js";
import { keys } from "./pages/keys.js";
import { logs } from "./pages/logs.js";
import { overview } from "./pages/overview.js";
import { search } from "./pages/search.js";
import { signIn } from "./pages/sign_in.js";
import { slow } from "./pages/slow.js";
import { users } from "./pages/users.js";
import { vectors } from "./pages/vectors.js";

// path, title in the navigation, page, who sees it there
const PAGES = [
  ["", "Overview", overview, "all"],
  ["databases", "Databases", databases, "all"],
  ["databases/:db", "", database, "nobody"],
  ["search", "Search", search, "all"],
  ["vectors", "Vectors", vectors, "all"],
  ["logs", "Logs", logs, "admin"],
  ["slow", "Slow queries", slow, "admin"],
  ["users", "Users", users, "admin"],
  ["keys", "API keys", keys, "all"],
  ["account", "Account", account, "all"],
];

const find = (id) => document.getElementById(id);

class Console {
  constructor() {
    this.api = new Api();
    this.history = new History();
    this.user = null;
    this.running = new AbortController();
    this.api.onSignedOut = (error) => this.signedOut(error);
  }

  async start() {
    addEventListener("hashchange", () => { if (location.hash.startsWith("#/") || !location.hash) this.show(); });
    find("skip").addEventListener("click", () => find("main").focus());
    await this.identify();
  }

  /** Ask the server who we are: a stored credential may have ended, and an open server needs none. */
  async identify() {
    const held = this.api.credential;
    try {
      this.user = await this.api.get("/v1/auth/me", { keep401: true });
    } catch (error) {
      if (error.status === 401) return this.signedOut(held ? error : null);
      return fill(find("main"), problem(error, () => this.identify()));
    }
    return this.show();
  }

  get isAdmin() { return (this.user?.roles ?? []).includes("admin"); }

  signedOut(error) {
    if (error?.code === "PASSWORD_CHANGE_REQUIRED") {
      if (this.user) this.user.must_change_password = true;
      this.show();
      return;
    }
    this.api.credential = "";
    this.user = null;
    this.draw(signIn, { reason: error ? "Your sign-in has ended or is not valid any more. Sign in again to go on." : "" });
  }

  async signOut() {
    // The credential goes first: whatever the server says, this tab forgets it
    const leaving = this.api.post("/v1/auth/logout", {}, { keep401: true }).catch(() => {});
    this.api.credential = "";
    this.api.sessions.clear();
    await leaving;
    await this.identify();
  }

  show() {
    if (!this.user) return;
    if (this.user.must_change_password && location.hash !== "#/account") {
      location.hash = "#/account"; // nothing else is allowed before; the change of address shows it
      return;
    }
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    for (const [pattern, title, page] of PAGES) {
      const params = match(pattern, path);
      if (params) return void this.draw(page, { path, title, params, query: new URLSearchParams(query) });
    }
    this.draw((page) => fill(page.main, heading("No such page", `The console has no page "${path}": choose one from the navigation.`)), { path });
  }

  draw(page, place) {
    this.running.abort();
    this.running = new AbortController();
    this.navigation(place.path);
    const main = find("main");
    fill(main);
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
    const about = {
      ...place, main, api: this.api, user: this.user, isAdmin: this.isAdmin, history: this.history, signal: this.running.signal,
      go: (hash) => { if (location.hash === hash) this.show(); else location.hash = hash; },
      notice, identify: () => this.identify(), signOut: () => this.signOut(),
    };
    Promise.resolve(page(about)).catch((error) => {
      if (!about.signal.aborted) fill(main, problem(error, () => this.show()));
    });
    const title = main.querySelector("h1");
    document.title = `${title?.textContent ?? "Console"} · JadeVectorDB`;
    title?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  navigation(path) {
    find("side").hidden = !this.user;
    find("frame").classList.toggle("alone", !this.user);
    if (!this.user) return;
    const first = (path ?? "").split("/")[0];
    const seen = PAGES.filter(([, , , who]) => who === "all" || (who === "admin" && this.isAdmin));
    fill(find("nav"), h("ul", {}, seen.map(([pattern, title]) =>
      h("li", {}, h("a", { href: `#/${pattern}`, "aria-current": pattern === first ? "page" : null }, title)))));
    const open = this.user.credential === "open";
    fill(find("who"),
      h("p", {}, h("b", {}, this.user.username), h("br"), h("small", {}, open ? "open mode: no sign-in needed" : (this.user.roles ?? []).join(", "))),
      open ? null : h("button", { type: "button", class: "small", onclick: () => this.signOut() }, "Sign out"),
      h("a", { href: "/docs" }, "API reference"));
  }
}

function match(pattern, path) {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return null;
  const params = {};
  for (const [i, part] of wanted.entries()) {
    if (part.startsWith(":")) {
      try {
        params[part.slice(1)] = decodeURIComponent(given[i]);
      } catch {
        return null;
      }
    } else if (part !== given[i]) return null;
  }
  return params;
}

/** Say in passing that something was done; it goes away by itself. */
function notice(text) {
  const line = h("p", { class: "notice" }, text);
  find("notices").append(line);
  setTimeout(() => line.remove(), 6000);
}

void new Console().start();
