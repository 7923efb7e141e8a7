// What all views share: elements made of text only, and how numbers, names and times are written.
//
// Nothing here takes markup. Text of the mesh is whatever strangers wrote; it goes into text nodes and nowhere else.

/** An element; properties beginning with `on` are listeners, others attributes. Children are elements or texts. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text if it is another one: what is equal is not laid out again. */
export function say(element, text) {
  if (element.said !== text) {
    element.textContent = text;
    element.said = text;
  }
}

/** Sets an attribute if it is another one; null takes it away. */
export function mark(element, name, value) {
  if (value == null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** The end of a peer's name, as the command line shows it. */
export const short = (peer) => (peer ? peer.slice(-6) : "–");
export const head = (digest) => (digest ? digest.slice(0, 8) : "–");

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number ?? 0);

/** Micro-credits. */
export const credits = (number) => `${count(number)} µcr`;

export function bytes(number) {
  if (number == null) return "–";
  if (number < 1e6) return `${(number / 1e3).toFixed(1)} kB`;
  return number < 1e9 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e9).toFixed(2)} GB`;
}

export function millis(number) {
  if (number == null) return "–";
  return number < 10 ? `${number.toFixed(1)} ms` : `${Math.round(number)} ms`;
}

/** How long, for people. */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

/** The few states that anything can be in: a sign, a word and a tone, so that colour never stands alone. */
const STATES = {
  awaiting: ["‖", "needs approval", "warn"],
  seeking: ["◌", "seeking", "busy"],
  running: ["●", "running", "busy"],
  done: ["✓", "done", "good"],
  failed: ["✕", "failed", "bad"],
  over: ["–", "over", "dim"],
  connected: ["●", "connected", "good"],
  known: ["○", "known", "dim"],
  open: ["◐", "open", "busy"],
  unreadable: ["?", "unreadable", "warn"],
  signed: ["✓", "signed", "good"],
  exact: ["✓", "exact", "good"],
  consistent: ["≈", "consistent", "good"],
  refuted: ["✕", "refuted", "bad"],
  unverifiable: ["?", "unverifiable", "warn"],
  checking: ["◌", "checking", "busy"],
  unchecked: ["–", "not checked", "dim"],
  here: ["✓", "here", "good"],
  absent: ["–", "not here", "dim"],
};

/** An element that shows a state. */
export function badge() {
  return el("span", { class: "badge" }, el("span", { class: "sign", "aria-hidden": "true" }), el("span"));
}

export function show(element, state, detail) {
  const [sign, word, tone] = STATES[state] ?? ["?", state, "dim"];
  say(element.firstChild, sign);
  say(element.lastChild, detail ?? word);
  mark(element, "data-tone", tone);
}

/** Puts pairs of a term and its text into a description list, in place. */
export function describe(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([term, text], at) => {
    let pair = list.children[at];
    if (!pair) list.append((pair = el("div", {}, el("dt"), el("dd"))));
    say(pair.firstChild, term);
    say(pair.lastChild, text);
  });
}

/** Tells what happened, once, to whoever listens rather than looks, too. */
export function tell(text) {
  byId("told").textContent = text;
}

/** Fills the choices of a field, in place. */
export function choices(list, values) {
  const wanted = values.join("\n");
  if (list.said === wanted) return;
  list.said = wanted;
  list.replaceChildren(...values.map((value) => el("option", { value })));
}
