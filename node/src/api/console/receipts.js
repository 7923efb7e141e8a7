// What was done for this peer, and whether it was right.

import { badge, byId, count, credits, el, head, mark, say, short, show, span, tell } from "./page.js";
import { ask, file, now, state, watch } from "./live.js";
import { Rows } from "./rows.js";

let rows;
let seen = null;
let visible = () => false;
const verdicts = new Map();

export function begin(looked) {
  visible = looked;
  rows = new Rows(byId("receipts-table"), {
    label: "Receipts",
    none: "No receipt yet: each job that is done brings one.",
    columns: [
      ["Receipt", ""], ["By", ""], ["Capability", "later"], ["Tokens", "num later"], ["Cost", "num later"],
      ["Age", "num later"], ["Verdict", ""], ["Actions", "act"],
    ],
    key: (entry) => entry.receipt,
    make,
    fill,
  });
  // Receipts come with jobs that are done.
  watch(["jobs"], () => done() !== seen && open(), looked);
}

const done = () => [...state.jobs.entries()].filter(([, job]) => job.state === "done").map(([key]) => key).sort().join();

export async function open() {
  seen = done();
  try {
    const { receipts, of } = await ask("GET", "/control/receipts");
    rows.set(receipts);
    const shown = of > receipts.length ? ` The latest ${count(receipts.length)} of ${count(of)}.` : "";
    say(byId("receipts-hint"), `Verify checks both signatures and every commitment. Replay computes the answer again with the model.${shown}`);
  } catch (error) {
    if (visible()) tell(error.message);
  }
}

function make() {
  const row = {};
  const button = (text, act) => el("button", { type: "button", onclick: () => act(row.item) }, text);
  row.verify = button("Verify", (entry) => check(entry, false));
  row.replay = button("Replay", (entry) => check(entry, true));
  row.save = button("Save", save);
  row.save.classList.add("later");
  row.verdict = badge();
  row.texts = Array.from({ length: 6 }, () => el("span"));
  row.texts[0].classList.add("mono");
  row.cells = [...row.texts, row.verdict, el("span", { class: "actions" }, row.verify, row.replay, row.save)];
  return row;
}

function fill(row, { receipt, view, problem }) {
  const [name, by, capability, tokens, cost, age] = row.texts;
  say(name, head(receipt));
  mark(name, "title", receipt);
  say(by, short(view?.provider));
  say(capability, view?.capability ?? problem ?? "–");
  say(tokens, view ? count(view.answer_tokens) : "–");
  say(cost, view ? credits(view.cost) : "–");
  say(age, view ? span(now() - view.finished) : "–");
  const verdict = verdicts.get(receipt);
  show(row.verdict, problem ? "refuted" : (verdict?.verdict ?? "unchecked"));
  mark(row.verdict, "title", problem ?? verdict?.why);
  for (const [button, word] of [[row.verify, "Verify"], [row.replay, "Replay"], [row.save, "Save"]]) {
    mark(button, "aria-label", `${word} receipt ${head(receipt)}`);
  }
}

async function check({ receipt }, replay) {
  verdicts.set(receipt, { verdict: "checking" });
  rows.draw();
  try {
    const verdict = await ask("POST", `/control/receipts/${receipt}/verify?replay=${replay}`);
    verdicts.set(receipt, verdict);
    tell(`Receipt ${head(receipt)} is ${verdict.verdict}: ${verdict.why}`);
    say(byId("receipts-hint"), `${head(receipt)} is ${verdict.verdict}: ${verdict.why}.`);
  } catch (error) {
    verdicts.delete(receipt);
    tell(error.message);
    say(byId("receipts-hint"), error.message);
  }
  rows.draw();
}

/** Gives the reader the file. */
async function save({ receipt }) {
  try {
    const url = URL.createObjectURL(await file(`/control/receipts/${receipt}`));
    el("a", { href: url, download: `${receipt}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } catch (error) {
    tell(error.message);
  }
}
