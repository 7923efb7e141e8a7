// What is asked and offered around here, and who owes whom.

import { badge, byId, count, credits, describe, el, mark, say, short, show, span } from "./page.js";
import { now, state, watch } from "./live.js";
import { Rows } from "./rows.js";

const price = (price) => `${count(price.prompt)} + ${count(price.completion)}`;

/** A table whose rows are texts. */
export function texts(host, label, none, columns, key, told) {
  return new Rows(byId(host), {
    label,
    none,
    columns,
    key,
    make: () => ({ cells: columns.map(() => el("span")) }),
    fill: ({ cells }, item) => told(item).forEach((text, at) => say(cells[at], text)),
  });
}

export function begin(visible) {
  const asked = texts(
    "asked-table", "Asked", "Nobody asked for anything lately.",
    [["Heard", "num"], ["By", ""], ["Capability", ""], ["How", "later"], ["Bytes", "num later"], ["Tokens", "num"], ["At most, µcr per 1000", "num later"]],
    (entry) => entry.job + entry.requester,
    (entry) => [
      span(now() - entry.at), short(entry.requester), entry.capability, entry.announced ? "announced" : "asked us",
      count(entry.input_len), count(entry.max_tokens), entry.ceiling ? price(entry.ceiling) : "any",
    ],
  );
  const offered = texts(
    "offered-table", "Offered", "Nobody offered anything lately.",
    [["Heard", "num"], ["By", ""], ["For", "later"], ["Capability", "later"], ["Model", ""], ["Tokens/s", "num"], ["Queue", "num later"], ["µcr per 1000", "num later"]],
    (entry) => entry.job + entry.provider,
    (entry) => [
      span(now() - entry.at), short(entry.provider), short(entry.requester), entry.capability, entry.model ?? "–",
      count(entry.speed.decode), count(entry.queue), price(entry.price),
    ],
  );
  watch(["market", "view"], () => {
    asked.set([...state.market.asked].reverse());
    offered.set([...state.market.offered].reverse());
  }, visible);
  setInterval(() => visible() && !document.hidden && (asked.draw(), offered.draw()), 1000);
}

/** The view of what is owed. */
export const balances = {
  begin(visible) {
    const rows = new Rows(byId("balances-table"), {
      label: "Balances",
      none: "Nothing was ever owed, in either direction.",
      columns: [["Peer", ""], ["State", "later"], ["They owed us", "num"], ["We owed them", "num"], ["Balance", "num"], ["Evidence", "later"]],
      key: (peer) => peer.peer,
      make: () => ({ cells: [el("span", { class: "mono" }), badge(), ...Array.from({ length: 4 }, () => el("span"))] }),
      fill: ({ cells: [name, link, earned, spent, net, evidence] }, peer) => {
        say(name, short(peer.peer));
        mark(name, "title", peer.peer);
        show(link, peer.connected ? "connected" : "known");
        say(earned, credits(peer.account.earned));
        say(spent, credits(peer.account.spent));
        const balance = peer.account.earned - peer.account.spent;
        say(net, `${balance > 0 ? "+" : ""}${credits(balance)}`);
        say(evidence, peer.evidence.map(([fact, times]) => `${fact} ×${times}`).join(", ") || "–");
      },
    });
    watch(["peers", "view"], () => owed(rows), visible);
  },
};

function owed(rows) {
  const peers = [...state.peers.values()].filter(({ account, evidence }) => account.earned || account.spent || evidence.length);
  peers.sort((a, b) => b.account.earned + b.account.spent - a.account.earned - a.account.spent || (a.peer < b.peer ? -1 : 1));
  const sum = (part) => peers.reduce((sum, peer) => sum + peer.account[part], 0);
  const [earned, spent] = [sum("earned"), sum("spent")];
  describe(byId("balances-tiles"), [
    ["owed to you, ever", credits(earned)],
    ["owed by you, ever", credits(spent)],
    ["balance", credits(earned - spent)],
    ["peers in the books", count(peers.length)],
  ]);
  rows.set(peers);
}
