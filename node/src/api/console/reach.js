// How others reach this peer, and what to do where they do not.

import { byId, count, describe, el, span } from "./page.js";
import { state, watch } from "./live.js";

export function begin(visible) {
  watch(["status", "peers", "view"], draw, visible);
}

function draw() {
  const { status, advice, statusAt } = state;
  if (!status) return;
  const connected = [...state.peers.values()].filter((peer) => peer.connected);
  const inbound = connected.filter((peer) => peer.direction === "inbound").length;
  describe(byId("reach-facts"), [
    ["peer", status.peer],
    ["did", status.did],
    ["network", status.network],
    ["listening", status.listening.join("\n") || "nowhere"],
    ["told to others", status.advertised.join("\n") || "nothing"],
    ["lookups", status.serves_lookups ? "served for others" : "only asked"],
    ["routing table", count(status.routing_table)],
    ["connected", `${count(connected.length)}, of whom ${count(inbound)} dialled us`],
  ]);
  list("reach-advice", advice.length ? advice : ["Nothing: this peer is well connected."]);
  const since = Date.now() - statusAt;
  const errors = status.dial_errors.map(
    (failed) => `${span(failed.seconds_ago * 1000 + since)} ago, ${failed.address ?? failed.peer ?? "?"}: ${failed.error}`,
  );
  list("reach-errors", errors.length ? errors : ["None."]);
}

function list(id, texts) {
  byId(id).replaceChildren(...texts.map((text) => el("li", {}, text)));
}
