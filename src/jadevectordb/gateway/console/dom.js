// Builds elements. Strings become text nodes or attribute values, never markup: metadata, ids and log lines come from
// strangers, so nothing in the console uses innerHTML, and the server's policy (trusted types) forbids it as well.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "indeterminate", "hidden", "open", "readOnly"]);
const LOCAL_LINK = /^(#|\/(?!\/))/;

/** An HTML element. props: attributes, properties, `on…` listeners; absent, null and false are left out. */
export function h(tag, props, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** An SVG element, the same way. */
export function svg(tag, props, ...children) {
  return furnish(document.createElementNS(SVG_NAMESPACE, tag), props, children);
}

function furnish(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style" || name === "innerHTML") throw new Error(`${name} is not set here: use a class, or text`);
    if (name === "href" && !LOCAL_LINK.test(value)) throw new Error(`not a link within this server: ${value}`);
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...content(children));
  return element;
}

/** Children as `append` takes them: lists are flattened, null and false dropped. */
export function content(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

let lastId = 0;

/** An id for tying labels, hints and errors to their inputs. */
export function freshId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** Show `children` instead of what `box` shows now. */
export function fill(box, ...children) {
  box.replaceChildren(...content(children));
  return box;
}

/** Copy text; the button says whether it worked. The clipboard needs https or localhost, so elsewhere the text is selected. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { type: "button", class: "small" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Could not copy: select the text and press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 2500);
  });
  return button;
}
