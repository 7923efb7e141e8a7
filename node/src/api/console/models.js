// Models: in the cache of this machine, on their way there, and on offer in the mesh.

import { badge, byId, bytes, count, el, head, mark, say, short, show, tell } from "./page.js";
import { ask, state, watch } from "./live.js";
import { texts } from "./market.js";
import { Rows } from "./rows.js";

let cached;
let offers;
const bars = new Map();

export function begin(visible) {
  cached = new Rows(byId("models-table"), {
    label: "Models in the cache",
    none: "No model is known.",
    columns: [["Model", ""], ["State", ""], ["Size", "num"], ["Digest", "later"], ["Actions", "act later"], ["From", "later"]],
    key: (entry) => entry.name,
    make,
    fill,
  });
  offers = texts(
    "offers-table", "Models on offer", "No model is on offer.",
    [["Model", ""], ["Digest", "later"], ["Capability", "later"], ["By", ""], ["Tokens/s", "num"], ["Context", "num"], ["µcr per 1000", "num later"]],
    (offer) => offer.key,
    ({ peer, agent }) => [
      agent.model?.name ?? agent.agent, head(agent.model?.digest), agent.capability, short(peer),
      count(agent.speed?.decode), count(agent.context), `${count(agent.price.prompt)} + ${count(agent.price.completion)}`,
    ],
  );
  byId("pull-form").addEventListener("submit", (event) => {
    event.preventDefault();
    pull(byId("pull-model").value.trim());
  });
  let under = 0;
  watch(["pulls", "view"], () => {
    draw();
    // A pull that has ended changes what is here.
    const goes = [...state.pulls.values()].filter((pull) => !pull.ended).length;
    if (goes < under) open();
    under = goes;
  }, visible);
}

export async function open() {
  try {
    cached.set(await ask("GET", "/control/models"));
    const found = await ask("GET", "/control/find");
    const all = found.flatMap(({ peer, profile }) => profile.agents.map((agent, at) => ({ key: `${peer} ${at}`, peer, agent })));
    offers.set(all);
  } catch (error) {
    tell(error.message);
  }
}

function make() {
  const row = { texts: Array.from({ length: 4 }, () => el("span")), here: badge() };
  row.fetch = el("button", { type: "button", onclick: () => pull(row.item.name) }, "Fetch");
  const [name, size, digest, from] = row.texts;
  row.cells = [name, row.here, size, digest, row.fetch, from];
  digest.classList.add("mono");
  return row;
}

function fill(row, entry) {
  const [name, size, digest, from] = row.texts;
  say(name, entry.name);
  show(row.here, entry.present ? "here" : "absent");
  say(size, bytes(entry.size));
  say(digest, head(entry.digest));
  say(from, entry.from.join(", ") || "–");
  mark(from, "title", entry.path);
  row.fetch.hidden = entry.present;
  mark(row.fetch, "aria-label", `Fetch ${entry.name}`);
}

async function pull(model) {
  try {
    await ask("POST", "/control/models/pull", { model });
    tell(`Fetching ${model}`);
  } catch (error) {
    tell(error.message);
    byId("pull-model").setCustomValidity(error.message);
    byId("pull-model").reportValidity();
    byId("pull-model").setCustomValidity("");
  }
}

function draw() {
  for (const [model, card] of bars) {
    if (state.pulls.has(model)) continue;
    card.element.remove();
    bars.delete(model);
  }
  for (const [model, pull] of state.pulls) {
    let card = bars.get(model);
    if (!card) {
      const [where, told, bar] = [badge(), el("p", { class: "hint num" }), el("progress", { "aria-label": `Fetching ${model}` })];
      const element = el("article", { class: "panel card" }, el("header", {}, el("h2", {}, model), where), told, bar);
      bars.set(model, (card = { element, where, told, bar }));
      byId("pulls").append(element);
    }
    const failed = pull.ended?.failed;
    show(card.where, pull.ended === "here" ? "here" : failed ? "failed" : "running", pull.ended ? null : "on its way");
    say(card.told, failed ?? (pull.of ? `${pull.what}: ${bytes(pull.done)} of ${bytes(pull.of)}` : pull.what));
    mark(card.bar, "max", pull.of ?? 1);
    mark(card.bar, "value", pull.ended ? (pull.of ?? 1) : pull.of ? pull.done : null);
    card.bar.hidden = pull.ended != null;
  }
}
