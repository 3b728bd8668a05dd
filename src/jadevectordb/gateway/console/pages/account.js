// The caller's own account: who one is signed in as, and changing the password.

import { fill, h } from "../dom.js";
import { when } from "../format.js";
import { Field, form } from "../forms.js";
import { card, heading } from "../parts.js";

export function account(page) {
  const { user } = page;
  fill(page.main,
    heading("Account", user.must_change_password ? "Your password was set by somebody else: choose your own to go on." : "Who you are signed in as."),
    card("You", h("dl", { class: "pairs" }, [
      ["User name", user.username], ["User id", h("code", {}, user.user_id)], ["E-mail", user.email || "–"],
      ["Roles", (user.roles ?? []).join(", ") || "–"], ["Last sign-in", when(user.last_login)],
    ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))),
    user.credential === "session" ? passwordForm(page) : null);
}

function passwordForm(page) {
  const password = (label, autocomplete) => new Field(label, h("input", { type: "password", autocomplete }));
  const old = password("Present password", "current-password");
  const fresh = password("New password", "new-password");
  const repeated = password("New password again", "new-password");
  return card("Change the password", form([old.element, fresh.element, repeated.element], { submit: "Change password", act: async () => {
    const oldPassword = old.input.value || old.fail("Enter your present password.");
    const newPassword = fresh.input.value || fresh.fail("Enter a new password.");
    if (repeated.input.value !== newPassword) repeated.fail("This is not the same as above.");
    try {
      await page.api.put(`/v1/users/${encodeURIComponent(page.user.user_id)}/password`, { old_password: oldPassword, new_password: newPassword }, { keep401: true });
    } catch (error) {
      if (error.status === 401) old.fail(error.message);
      throw error;
    }
    page.notice("The password was changed.");
    await page.identify();
  } }).element);
}
