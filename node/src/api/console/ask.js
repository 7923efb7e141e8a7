// One job from here: its answer as it streams, and its receipt.

import { byId, choices, count, credits, describe, head, say, short, show } from "./page.js";
import { ask, state, stream, watch } from "./live.js";

let running = null;
let receipt = null;
let job = null;

export function begin(visible) {
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("ask-stop").addEventListener("click", () => running?.abort());
  byId("ask-verify").addEventListener("click", () => check(receipt, byId("ask-verdict")));
  byId("ask-approve").addEventListener("click", () => ask("POST", `/control/jobs/${job}/approve`).catch(refused));
  watch(["peers", "view"], offers, visible);
}

export const open = models;

/** What can be asked for, to choose from. */
function offers() {
  const all = [...state.peers.values()].flatMap((peer) => peer.capabilities);
  choices(byId("capabilities"), [...new Set(["text.generation", ...all])].sort());
}

/** The names of models on offer, to choose from. */
export async function models() {
  try {
    const found = await ask("GET", "/control/find");
    const names = found.flatMap(({ profile }) => profile.agents.map((agent) => agent.model?.name));
    choices(byId("models-on-offer"), [...new Set(names.filter(Boolean))].sort());
  } catch {
    // The field takes any name without choices, too.
  }
}

function request() {
  const number = (id) => Number(byId(id).value || 0);
  const [capability, model] = [byId("ask-capability").value.trim(), byId("ask-model").value.trim()];
  return {
    prompt: byId("ask-prompt").value,
    ...(capability && { capability }),
    ...(model && { model }),
    max_tokens: number("ask-tokens"),
    temperature: number("ask-temperature"),
    seed: number("ask-seed"),
    budget: number("ask-budget"),
    auction: byId("ask-auction").checked,
    approval: byId("ask-held").checked ? ["depth:0"] : [],
  };
}

async function submit() {
  running?.abort();
  const course = new AbortController();
  running = course;
  begun();
  try {
    await follow(request(), course.signal, { news, text: pen(byId("ask-answer")) });
  } catch (error) {
    if (running !== course) return;
    refused(course.signal.aborted ? new Error("You cancelled it, and everything on its behalf.") : error);
  } finally {
    if (running === course) over();
  }
}

/** Follows a job to its end; `text` gets pieces of the answer, `news` everything. Returns the last update. */
export async function follow(request, signal, { news, text }) {
  let last = null;
  for await (const update of stream("POST", "/control/jobs", request, signal)) {
    if (update.event === "token") text(update.text);
    last = update;
    news(update);
  }
  if (last?.event === "done") return last;
  throw new Error(last?.event === "failed" ? last.message : "the peer broke off; submit it again");
}

/** Whoever writes into an element: pieces of one frame at once. */
export function pen(element) {
  let [waiting, frame] = ["", 0];
  return (piece) => {
    waiting += piece;
    frame ||= requestAnimationFrame(() => {
      const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
      element.append(waiting);
      [waiting, frame] = ["", 0];
      if (follows) element.scrollTop = element.scrollHeight;
    });
  };
}

function begun() {
  [job, receipt] = [null, null];
  byId("ask-course").hidden = false;
  byId("ask-answer").replaceChildren();
  describe(byId("ask-facts"), []);
  say(byId("ask-verdict"), "");
  say(byId("ask-news"), "");
  byId("ask-verify").hidden = true;
  byId("ask-stop").hidden = false;
  show(byId("ask-state"), "seeking");
}

function over() {
  byId("ask-stop").hidden = true;
  byId("ask-approve").hidden = true;
  running = null;
}

function refused(error) {
  show(byId("ask-state"), "failed");
  say(byId("ask-news"), error.message);
}

let bids = 0;
let tokens = 0;
let since = 0;

function news(update) {
  byId("ask-approve").hidden = update.event !== "awaiting";
  switch (update.event) {
    case "awaiting":
      job = update.job;
      show(byId("ask-state"), "awaiting");
      return say(byId("ask-news"), "Nobody hears of it before it is approved, here or under Jobs.");
    case "bid":
      bids += 1;
      return say(byId("ask-news"), `${count(bids)} bids; the last from ${short(update.provider)} at ${count(update.price)} µcr per 1000 tokens`);
    case "progress":
      return say(byId("ask-news"), `The prompt is being read: ${count(update.done)} of ${count(update.of)} tokens`);
    case "started":
      [bids, tokens, since] = [0, update.tokens ?? 0, performance.now()];
      show(byId("ask-state"), "running");
      return say(byId("ask-news"), `${short(update.provider)} works on it${update.model ? ` with ${update.model}` : ""}`);
    case "token":
      tokens += 1;
      return;
    case "done":
      return done(update);
  }
}

function done(update) {
  receipt = update.receipt;
  show(byId("ask-state"), "done");
  say(byId("ask-news"), `Done: ${count(update.usage.completion_tokens)} tokens by ${short(update.provider)}`);
  const seconds = (performance.now() - since) / 1000;
  describe(byId("ask-facts"), [
    ["receipt", update.receipt],
    ["provider", update.provider],
    ["tokens", `${count(update.usage.prompt_tokens)} read, ${count(update.usage.completion_tokens)} written`],
    ["speed", `${(tokens / Math.max(seconds, 0.001)).toFixed(1)} tokens per second, as it came here`],
    ["cost", credits(update.cost)],
  ]);
  byId("ask-verify").hidden = !update.receipt_file;
}

/** Checks a receipt and says what was found. */
export async function check(receipt, where, replay = false) {
  say(where, "Checking …");
  try {
    const verdict = await ask("POST", `/control/receipts/${receipt}/verify?replay=${replay}`);
    say(where, `${head(receipt)} is ${verdict.verdict}: ${verdict.why}`);
    return verdict;
  } catch (error) {
    say(where, error.message);
    return null;
  }
}
