// Users: who has an account, what they may do, and changing that. For administrators.

import { fill, h } from "../dom.js";
import { when } from "../format.js";
import { askForm, check, confirm, Field, select, textInput } from "../forms.js";
import { badge, empty, heading, load, table } from "../parts.js";

const ROLES = [
  ["admin", "admin: everything"],
  ["developer", "developer: creates databases, reads and writes its own and granted ones"],
  ["user", "user: reads and searches its own and granted ones"],
];

export async function users(page) {
  const box = h("div", {});
  const again = () => load(page, box, () => page.api.get("/v1/users", { signal: page.signal }), (answer) => userTable(page, answer.users, again));
  fill(page.main, heading("Users", "Accounts of this server and their roles.",
    h("button", { type: "button", class: "primary", onclick: () => createDialog(page, again) }, "Create user")), box);
  await again();
}

function userTable(page, found, again) {
  if (!found.length) return empty("There are no accounts.", h("p", {}, "In open mode nobody needs one. Create the first before you open the server to others."));
  const path = (user) => `/v1/users/${encodeURIComponent(user.user_id)}`;
  const act = (label, onclick, kind = "") => h("button", { type: "button", class: `small ${kind}`, onclick }, label);
  return table("Users", [
    ["Name", (user) => [h("b", {}, user.username), user.user_id === page.user.user_id ? h("span", { class: "quiet" }, " (you)") : null]],
    ["E-mail", (user) => user.email || "–"],
    ["Roles", (user) => (user.roles ?? []).map((role) => badge(role))],
    ["Status", (user) => badge(user.status, user.is_active ? "good" : "bad")],
    ["Last sign-in", (user) => when(user.last_login)],
    ["", (user) => h("div", { class: "row-actions" },
      act("Change", () => editDialog(page, user, path(user), again)),
      act("Reset password", () => resetDialog(page, user, again)),
      act("Delete", () => confirm(`Delete ${user.username}?`, "The account, its sessions and its API keys are removed; databases it owns pass to you.",
        { word: user.username, submit: "Delete user", act: async () => {
          await page.api.delete(path(user));
          page.notice(`${user.username} was deleted.`);
          await again();
        } }), "danger-text")), "right"],
  ], found);
}

function roleChecks(chosen) {
  const boxes = ROLES.map(([role, label]) => [role, check(label, { checked: chosen.includes(role) })]);
  // Roles that this page does not offer stay as they are
  const others = chosen.filter((role) => !ROLES.some(([known]) => known === role));
  return {
    element: h("fieldset", {}, h("legend", {}, "Roles"), boxes.map(([, box]) => box.element)),
    read: () => [...boxes.filter(([, { box }]) => box.checked).map(([role]) => role), ...others],
  };
}

function newPassword(label) {
  return new Field(label, h("input", { type: "password", autocomplete: "new-password" }), { hint: "At least 8 characters." });
}

function createDialog(page, done) {
  const name = new Field("User name", textInput({ name: "new-username" }));
  const email = new Field("E-mail (optional)", h("input", { type: "email", autocomplete: "off" }));
  const password = newPassword("Password");
  const roles = roleChecks(["user"]);
  askForm("Create a user", [name.element, email.element, password.element, roles.element], { submit: "Create", act: async () => {
    const body = { username: name.required("Give a user name."), email: email.text, password: password.input.value || password.fail("Give a first password."), roles: roles.read() };
    await page.api.post("/v1/users", body);
    page.notice(`${body.username} can sign in now.`);
    await done();
  } });
}

function editDialog(page, user, path, done) {
  const email = new Field("E-mail", h("input", { type: "email", autocomplete: "off", value: user.email ?? "" }));
  const status = new Field("Status", select([["active", "active"], ["inactive", "inactive: cannot sign in"]], user.status, {}));
  const roles = roleChecks(user.roles ?? []);
  askForm(`Change ${user.username}`, [email.element, status.element, roles.element], { submit: "Save", act: async () => {
    const changes = {};
    if (email.text !== (user.email ?? "")) changes.email = email.text;
    if (status.input.value !== user.status) changes.status = status.input.value;
    if (roles.read().join() !== (user.roles ?? []).join()) changes.roles = roles.read();
    if (Object.keys(changes).length) await page.api.put(path, changes);
    page.notice("Saved.");
    await done();
  } });
}

function resetDialog(page, user, done) {
  const password = newPassword("New password");
  askForm(`Reset the password of ${user.username}`, [h("p", {}, "Their sessions end, and they must choose a password of their own when they sign in."), password.element],
    { submit: "Reset", danger: true, act: async () => {
      const body = { new_password: password.input.value || password.fail("Give a new password.") };
      await page.api.post(`/v1/admin/users/${encodeURIComponent(user.user_id)}/reset-password`, body);
      page.notice(`The password of ${user.username} was reset.`);
      await done();
    } });
}
