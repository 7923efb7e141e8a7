// What the peer says: documents, streams of a job, and the one stream of all that changes.
//
// The live stream brings changes a few times a second; views are told in the next frame, at most once each frame, however
// much has come. A stream that breaks is begun again, and then everything is told anew.

const TOKEN = "llamesh-token";

export const state = {
  peers: new Map(),
  jobs: new Map(),
  plans: new Map(),
  pulls: new Map(),
  market: { asked: [], offered: [] },
  status: null,
  advice: [],
  /** The peer's clock less ours. */
  skew: 0,
  connected: false,
  /** When the status came; its ages count from there. */
  statusAt: 0,
};

/** The peer's time. */
export const now = () => Date.now() + state.skew;

const watchers = [];
const dirty = new Set();
let frame = 0;

/** Has `draw` called in a frame after any of `parts` has changed; `visible` says whether anybody looks. */
export function watch(parts, draw, visible = () => true) {
  watchers.push({ parts, draw, visible });
}

export function touch(...parts) {
  parts.forEach((part) => dirty.add(part));
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const changed = new Set(dirty);
    dirty.clear();
    for (const { parts, draw, visible } of watchers) {
      if (parts.some((part) => changed.has(part)) && visible()) draw();
    }
  });
}

/** What the peer answered that is no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let wanted = () => {};
/** Whoever asks the reader for a token. */
export function onTokenWanted(ask) {
  wanted = ask;
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
  live.again();
}

async function send(method, path, body, signal) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, headers, body: text, signal, cache: "no-store" });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const message = said.message ?? said.error?.message ?? `the peer answered ${response.status}`;
  if (response.status === 401 || said.error?.code === "owner_only") wanted(message);
  throw new Refused(response.status, message);
}

/** A document; null where there is none to read. */
export async function ask(method, path, body) {
  const response = await send(method, path, body);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** A file as it is. */
export async function file(path) {
  return (await send("GET", path)).blob();
}

/** The data of server-sent events, one document each. */
export async function* stream(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n"));
    }
  }
}

function change(map, changes) {
  if (!changes) return;
  for (const key of changes.gone) map.delete(key);
  for (const [key, value] of Object.entries(changes.set)) map.set(key, value);
}

const LISTS = ["peers", "jobs", "plans", "pulls"];

function apply(update) {
  if (update.now) state.skew = update.now - Date.now();
  if (update.whole) LISTS.forEach((list) => state[list].clear());
  for (const list of LISTS) {
    change(state[list], update[list]);
    if (update[list] || update.whole) touch(list);
  }
  if (update.status) {
    Object.assign(state, { status: update.status, advice: update.advice ?? [], statusAt: Date.now() });
    touch("status");
  }
  if (update.market) {
    state.market = update.market;
    touch("market");
  }
}

/** The live stream, for as long as the page is open. */
export const live = {
  stop: null,
  again() {
    this.stop?.abort();
    this.stop = new AbortController();
    follow(this.stop.signal);
  },
};

/** Shortest and longest pause before a broken stream is begun again, in milliseconds. */
const PAUSE = [250, 5000];

async function follow(signal) {
  let pause = PAUSE[0];
  while (!signal.aborted) {
    try {
      for await (const update of stream("GET", "/control/live", undefined, signal)) {
        pause = PAUSE[0];
        connected(true);
        apply(update);
      }
    } catch (error) {
      if (signal.aborted) return;
      // Without a token another try would only be refused again; the reader's answer begins it.
      if (error.status === 401 || error.status === 403) return connected(false);
    }
    connected(false);
    await new Promise((later) => setTimeout(later, pause));
    pause = Math.min(2 * pause, PAUSE[1]);
  }
}

function connected(is) {
  if (state.connected !== is) {
    state.connected = is;
    touch("connected");
  }
}
