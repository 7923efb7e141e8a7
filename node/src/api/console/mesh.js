// The mesh: who is there, how far away, and what they can do.

import { badge, byId, count, credits, describe, el, mark, millis, say, short, show } from "./page.js";
import { state, watch } from "./live.js";
import { draw as diagram } from "./diagram.js";
import { Rows } from "./rows.js";

/** Over how long tokens are counted for their rate, in milliseconds. */
const WINDOW = 3000;

let peers;
/** Tokens of each job, as they were last looked at; and how many more there were at each look. */
const seen = new Map();
const counted = [];

export function begin(visible) {
  peers = new Rows(byId("peers-table"), {
    label: "Peers",
    none: "Nobody is known yet. Start this peer with --bootstrap ADDR, or with --lan.",
    columns: [["Peer", ""], ["State", ""], ["Latency", "num"], ["Dialled", "later"], ["Offers", ""], ["Runs", "later"], ["Address", "later"]],
    key: (peer) => peer.peer,
    make: () => {
      const cells = [el("span", { class: "mono" }), badge(), ...Array.from({ length: 5 }, () => el("span"))];
      return { cells };
    },
    fill,
  });
  watch(["peers", "view"], () => peers.set(sorted()), visible);
  watch(["peers", "jobs", "status", "view"], overview, visible);
  // A rate falls when nothing comes, too.
  setInterval(() => visible() && !document.hidden && counted.length > 1 && overview(), 1000);
  new ResizeObserver(() => visible() && picture()).observe(byId("diagram"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", picture);
}

function sorted() {
  const far = (peer) => (peer.connected ? (peer.rtt_ms ?? 1e6) : 1e9);
  return [...state.peers.values()].sort((a, b) => far(a) - far(b) || (a.peer < b.peer ? -1 : 1));
}

function fill({ cells: [name, link, latency, dialled, offers, runs, address] }, peer) {
  say(name, short(peer.peer));
  mark(name, "title", peer.peer);
  show(link, peer.connected ? "connected" : "known");
  say(latency, millis(peer.rtt_ms));
  say(dialled, { inbound: "by them", outbound: "by us" }[peer.direction] ?? "–");
  const can = [...new Set(peer.capabilities)].join(", ");
  say(offers, can || "–");
  mark(offers, "title", can || null);
  say(runs, peer.agent_version ?? "–");
  say(address, peer.address ?? "–");
  mark(address, "title", peer.address);
}

function overview() {
  const all = [...state.peers.values()];
  const jobs = [...state.jobs.values()];
  let [earned, spent] = [0, 0];
  for (const { account } of all) [earned, spent] = [earned + account.earned, spent + account.spent];
  const held = jobs.filter((job) => job.state.awaiting !== undefined).length;
  const under = jobs.filter((job) => job.ended == null).length;
  describe(byId("mesh-tiles"), [
    ["connected", count(all.filter((peer) => peer.connected).length)],
    ["known", count(all.length)],
    ["jobs under way", count(under)],
    ["need approval", count(held)],
    ["tokens per second", count(rate())],
    ["balance", credits(earned - spent)],
  ]);
  picture();
}

/** Tokens per second of all jobs, over the last moments. */
function rate() {
  const at = performance.now();
  let more = 0;
  for (const [key, { tokens }] of state.jobs) {
    // What a job had when it was first seen came some other time.
    more += tokens - (seen.get(key) ?? tokens);
    seen.set(key, tokens);
  }
  for (const key of seen.keys()) if (!state.jobs.has(key)) seen.delete(key);
  counted.push([at, more]);
  while (at - counted[0][0] > WINDOW) counted.shift();
  const sum = counted.reduce((sum, [, more]) => sum + more, 0);
  return Math.max(0, Math.round((sum * 1000) / WINDOW));
}

function picture() {
  const busy = new Set();
  for (const job of state.jobs.values()) {
    if (job.ended != null) continue;
    busy.add(job.provider).add(job.requester);
  }
  diagram(byId("diagram"), state.status?.peer, [...state.peers.values()], busy);
}
