// The frame of the page: which view is shown, whether the peer is there, and the token that it may want.

import { byId, mark, say, short } from "./page.js";
import { live, onTokenWanted, setToken, state, touch, watch } from "./live.js";
import * as ask from "./ask.js";
import * as chat from "./chat.js";
import * as jobs from "./jobs.js";
import * as market from "./market.js";
import * as mesh from "./mesh.js";
import * as models from "./models.js";
import * as plans from "./plans.js";
import * as reach from "./reach.js";
import * as receipts from "./receipts.js";

/** By name; `open` is called whenever one is shown. */
const VIEWS = { mesh, jobs, ask, chat, plans, receipts, market, balances: market.balances, models, reach };

let shown = null;

function turn() {
  const asked = location.hash.slice(1);
  const name = asked in VIEWS ? asked : (shown ?? "mesh");
  // The browser has gone to the section of that name; what stands above it belongs to it.
  scrollTo(0, 0);
  if (name === shown) return;
  const first = shown === null;
  shown = name;
  for (const view of Object.keys(VIEWS)) {
    byId(view).hidden = view !== name;
    mark(byId(`to-${view}`), "aria-current", view === name ? "page" : null);
  }
  const title = byId(name).querySelector("h1");
  document.title = `${title.textContent} · Llamesh`;
  byId(`to-${name}`).scrollIntoView({ block: "nearest", inline: "nearest" });
  VIEWS[name].open?.();
  touch("view");
  // Whoever listens hears where they are; on the first page they hear the page's title anyway.
  if (!first) title.focus();
}

for (const [name, view] of Object.entries(VIEWS)) view.begin(() => shown === name);

watch(["connected", "status"], () => {
  const { status, connected } = state;
  say(byId("peer"), status ? short(status.peer) : "…");
  say(byId("network"), status ? status.network : "…");
  say(byId("link-word"), connected ? "live" : "not connected");
  mark(byId("link"), "data-tone", connected ? "good" : "bad");
});

watch(["peers", "jobs", "plans"], () => {
  let connected = 0;
  for (const peer of state.peers.values()) connected += peer.connected;
  let busy = 0;
  let held = 0;
  for (const job of state.jobs.values()) {
    busy += job.ended == null;
    held += job.state.awaiting !== undefined;
  }
  say(byId("count-mesh"), connected ? String(connected) : "");
  say(byId("count-jobs"), busy ? String(busy) : "");
  mark(byId("count-jobs"), "data-tone", held ? "warn" : null);
  say(byId("count-plans"), state.plans.size ? String(state.plans.size) : "");
});

const dialog = byId("token-dialog");
onTokenWanted((why) => {
  say(byId("token-why"), why);
  if (!dialog.open) dialog.showModal();
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token");
  setToken(field.value.trim());
  field.value = "";
  dialog.close();
  VIEWS[shown].open?.();
});

addEventListener("hashchange", turn);
turn();
live.again();
