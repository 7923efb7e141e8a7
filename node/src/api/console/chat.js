// A conversation: each turn a job with all that was said before it.

import { byId, count, credits, el, head, short } from "./page.js";
import { follow, models, pen } from "./ask.js";

/** Longest answer in tokens. */
const LONGEST = 512;

let said = [];
let running = null;
let empty;

export function begin() {
  empty = byId("chat-turns").firstElementChild;
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    turn();
  });
  byId("chat-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("chat-form").requestSubmit();
    }
  });
  byId("chat-stop").addEventListener("click", () => running?.abort());
  byId("chat-new").addEventListener("click", () => {
    running?.abort();
    said = [];
    byId("chat-turns").replaceChildren(empty);
    byId("chat-text").focus();
  });
}

export const open = models;

function add(who, kind) {
  empty.remove();
  const [text, about] = [el("div", { class: "text" }), el("p", { class: "about" })];
  const element = el("article", { class: `turn ${kind}` }, el("p", { class: "who" }, who), text, about);
  byId("chat-turns").append(element);
  element.scrollIntoView({ block: "end" });
  return { element, text, about };
}

async function turn() {
  const words = byId("chat-text").value.trim();
  if (!words || running) return;
  byId("chat-text").value = "";
  add("You", "asked").text.textContent = words;
  const messages = [...said, { role: "user", content: words }];
  const model = byId("chat-model").value.trim();
  const answer = add("Mesh", "answered");
  const write = pen(answer.text);
  const course = new AbortController();
  running = course;
  byId("chat-go").disabled = true;
  byId("chat-stop").hidden = false;
  try {
    const budget = Number(byId("chat-budget").value || 0);
    const request = { messages, max_tokens: LONGEST, budget, ...(model && { model }) };
    const news = (update) => tell(update, answer);
    const last = await follow(request, course.signal, { news, text: (piece) => follows(answer, () => write(piece)) });
    // What was said counts from here: a turn that failed can be said again.
    if (!course.signal.aborted) said = [...messages, { role: "assistant", content: last.text }];
  } catch (error) {
    answer.about.textContent = course.signal.aborted ? "stopped" : error.message;
  } finally {
    if (running === course) running = null;
    byId("chat-go").disabled = running !== null;
    byId("chat-stop").hidden = running === null;
  }
}

/** Keeps the end in sight of whoever is at the end. */
function follows(answer, write) {
  const turns = byId("chat-turns");
  const at = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 80;
  write();
  if (at) requestAnimationFrame(() => answer.element.scrollIntoView({ block: "end" }));
}

function tell(update, { about }) {
  if (update.event === "awaiting") about.textContent = "waits for approval, under Jobs";
  if (update.event === "started") {
    about.textContent = `${short(update.provider)}${update.model ? `, ${update.model}` : ""} …`;
  }
  if (update.event === "done") {
    const { usage, provider, receipt, cost } = update;
    about.textContent = `${short(provider)} · ${count(usage.completion_tokens)} tokens · ${credits(cost)} · receipt ${head(receipt)}`;
  }
}
