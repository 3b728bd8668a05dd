// Sign-in: a user's password, an API key, or, on a new server, the token that makes the first administrator. What signs in is
// kept for this browser tab only.

import { h, fill } from "../dom.js";
import { Field, form, textInput } from "../forms.js";

export function signIn(page) {
  const panel = h("div", {});
  const tabs = [["Password", byPassword], ["API key", byKey], ["First start", bySetup]].map(([label, draw], index) => {
    const radio = h("input", { type: "radio", name: "way", checked: index === 0, onchange: () => fill(panel, draw(page)) });
    return h("label", {}, radio, h("span", {}, label));
  });
  fill(page.main, h("div", { class: "sign-in card" },
    h("img", { src: "/console/icon.svg", alt: "", width: 44, height: 44 }),
    h("h1", { tabindex: "-1" }, "Sign in to JadeVectorDB"),
    page.reason ? h("p", { class: "problem", role: "status" }, page.reason) : null,
    h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, "Sign in with"), tabs),
    panel));
  fill(panel, byPassword(page));
}

function byPassword(page) {
  const name = new Field("User name or e-mail", textInput({ autocomplete: "username", name: "username" }));
  const password = new Field("Password", h("input", { type: "password", autocomplete: "current-password", name: "password" }));
  return form([name.element, password.element], { submit: "Sign in", act: async () => {
    name.required("Enter your user name or e-mail.");
    if (!password.input.value) password.fail("Enter your password.");
    await login(page, name.text, password.input.value);
  } }).element;
}

async function login(page, username, password) {
  const answer = await page.api.post("/v1/auth/login", { username, password }, { keep401: true });
  page.api.credential = answer.token;
  await page.identify();
}

function byKey(page) {
  const key = new Field("API key", h("input", { type: "password", autocomplete: "off", name: "api-key", spellcheck: "false" }),
    { hint: "It begins with jadevdb_." });
  return form([key.element], { submit: "Sign in", act: async () => {
    key.required("Enter an API key.");
    page.api.credential = key.text;
    try {
      await page.api.get("/v1/auth/me", { keep401: true });
    } catch (error) {
      page.api.credential = "";
      throw error;
    }
    await page.identify();
  } }).element;
}

function bySetup(page) {
  const token = new Field("Setup token", textInput({ name: "setup-token" }), { hint: "The server prints it when it starts without an administrator." });
  const name = new Field("User name", textInput({ autocomplete: "username", name: "username", value: "admin" }));
  const password = new Field("Password", h("input", { type: "password", autocomplete: "new-password", name: "password" }), { hint: "At least 8 characters." });
  return form([token.element, name.element, password.element], { submit: "Make the first administrator", act: async () => {
    const body = { token: token.required("Enter the setup token."), username: name.required("Choose a user name."), password: password.input.value || password.fail("Choose a password.") };
    await page.api.post("/v2/setup", body, { keep401: true });
    await login(page, body.username, body.password);
  } }).element;
}
