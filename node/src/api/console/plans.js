// Runs of plans, and how far each node is.

import { badge, byId, count, credits, describe, el, head, mark, say, show, span } from "./page.js";
import { now, state, watch } from "./live.js";

const cards = new Map();

export function begin(visible) {
  watch(["plans", "view"], draw, visible);
}

function draw() {
  const runs = [...state.plans.values()].sort((a, b) => b.touched - a.touched);
  byId("plans-none").hidden = runs.length > 0;
  for (const [run, card] of cards) {
    if (state.plans.has(run)) continue;
    card.element.remove();
    cards.delete(run);
  }
  const list = byId("plans-list");
  runs.forEach((run, at) => {
    let card = cards.get(run.run);
    if (!card) cards.set(run.run, (card = make(run.run)));
    if (list.children[at] !== card.element) list.insertBefore(card.element, list.children[at] ?? null);
    fill(card, run);
  });
}

function make(name) {
  const [title, where] = [el("h2"), badge()];
  const nodes = el("div", { class: "nodes" });
  const facts = el("dl", { class: "pairs" });
  const output = el("div", { class: "answer", tabindex: "0", role: "region", "aria-label": `Outcome of run ${name}` });
  const element = el("article", { class: "panel card" }, el("header", {}, title, where), nodes, facts, output);
  return { element, title, where, nodes, facts, output, named: new Map() };
}

function fill(card, run) {
  say(card.title, run.goal || `run ${run.run}`);
  show(card.where, run.state);
  for (const [name, node] of Object.entries(run.nodes)) {
    let kept = card.named.get(name);
    if (!kept) {
      const [label, told, bar] = [el("span", {}, name), el("span", { class: "num" }), el("progress", { "aria-label": `Node ${name}` })];
      kept = { told, bar };
      card.named.set(name, kept);
      card.nodes.append(el("div", { class: "node" }, label, told, bar));
    }
    const of = Math.max(node.of, 1);
    mark(kept.bar, "max", of);
    mark(kept.bar, "value", node.settled ? of : node.done);
    say(kept.told, node.settled ? "✓ settled" : node.of ? `${count(node.done)} of ${count(node.of)}` : "waits");
  }
  describe(card.facts, [
    ["run", run.run],
    ["jobs", `${count(run.outcomes)} with an outcome, ${count(run.failed)} of them failed`],
    ["spent", `${credits(run.spent)} of ${credits(run.budget)}`],
    ["last news", `${span(now() - run.touched)} ago`],
    ["receipts", run.receipts.slice(0, 8).map(head).join(", ") + (run.receipts.length > 8 ? ", …" : "") || "none"],
  ]);
  card.output.hidden = run.output == null;
  say(card.output, run.output ?? "");
}
