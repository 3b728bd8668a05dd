// API keys: for programs. A new key's secret is shown once, since the server keeps only its hash.

import { copyButton, fill, h } from "../dom.js";
import { when } from "../format.js";
import { askForm, check, confirm, dialog, Field, select, textInput } from "../forms.js";
import { badge, empty, heading, load, table } from "../parts.js";

const PERMISSIONS = [["read", "read and search"], ["write", "write vectors"], ["delete", "delete vectors"], ["admin", "administer"]];

export async function keys(page) {
  const box = h("div", {});
  let names = new Map();
  const again = () => load(page, box, async () => {
    const [answer, users] = await Promise.all([
      page.api.get("/v1/api-keys", { signal: page.signal }),
      page.isAdmin ? page.api.get("/v1/users", { signal: page.signal }) : null,
    ]);
    names = new Map((users?.users ?? [page.user]).map((user) => [user.user_id, user.username]));
    return answer.api_keys;
  }, (found) => keyTable(page, found, names, again));
  fill(page.main, heading("API keys", "A key lets a program act for a user, with no more rights than the user has.",
    h("button", { type: "button", class: "primary", onclick: () => createDialog(page, names, again) }, "Create key")), box);
  await again();
}

function keyTable(page, found, names, again) {
  if (!found.length) return empty("There are no API keys.", h("p", {}, "Create one for each program, so that each can be revoked by itself."));
  return table("API keys", [
    ["Key", (key) => [h("b", {}, key.description || "no description"), h("br"), h("code", { class: "quiet" }, `${key.key_prefix}…`)]],
    ["User", (key) => names.get(key.user_id) ?? key.user_id],
    ["May", (key) => (key.permissions?.length ? key.permissions.map((permission) => badge(permission)) : "all that its user may")],
    ["Status", (key) => badge(key.status, key.is_active ? "good" : "bad")],
    ["Created", (key) => when(key.created_at, "–")],
    ["Expires", (key) => when(key.expires_at)],
    ["Last used", (key) => when(key.last_used_at)],
    ["", (key) => (key.is_active ? h("button", { type: "button", class: "small danger-text", "aria-label": `Revoke ${key.description || key.key_prefix}`, onclick: () => confirm(
      "Revoke this key?", `Programs that use ${key.description || key.key_prefix} are refused from now on. This cannot be undone.`,
      { submit: "Revoke", act: async () => {
        await page.api.delete(`/v1/api-keys/${encodeURIComponent(key.key_id)}`);
        page.notice("The key was revoked.");
        await again();
      } }) }, "Revoke") : null), "right"],
  ], found);
}

function createDialog(page, names, done) {
  const description = new Field("What is it for?", textInput({ name: "description" }), { hint: "So that you know later what stops when you revoke it." });
  const user = names.size > 1 ? new Field("For user", select([...names], page.user.user_id, { name: "user" })) : null;
  const boxes = PERMISSIONS.map(([name, label]) => [name, check(label, { name: `may-${name}`, checked: name === "read" })]);
  const days = new Field("Valid for days", h("input", { type: "number", min: 0, max: 3650, value: "0", inputmode: "numeric" }), { hint: "0: until it is revoked." });
  askForm("Create an API key", [
    description.element, user?.element,
    h("fieldset", {}, h("legend", {}, "It may"), boxes.map(([, box]) => box.element), h("p", { class: "hint" }, "Nothing chosen: all that its user may.")),
    days.element,
  ], { submit: "Create", act: async () => {
    const body = {
      description: description.required("Say what the key is for."),
      permissions: boxes.filter(([, { box }]) => box.checked).map(([name]) => name),
      validity_days: days.number(0, 3650, { integer: true }) ?? 0,
    };
    if (user) body.user_id = user.input.value;
    const created = await page.api.post("/v1/api-keys", body);
    showSecret(created.api_key);
    await done();
  } });
}

function showSecret(secret) {
  const shown = dialog("The new API key",
    h("p", {}, "Copy it now: it is shown this once and cannot be shown again."),
    h("pre", { class: "code block secret", tabindex: "0" }, secret));
  shown.element.append(h("div", { class: "buttons" }, copyButton(secret, "Copy key"),
    h("button", { type: "button", class: "primary", onclick: shown.close }, "I have kept it")));
}
