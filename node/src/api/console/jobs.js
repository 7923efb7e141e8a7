// Jobs as a tree: who does what for whom, what it costs, and what can be done about it.

import { badge, byId, count, credits, describe, el, head, mark, say, short, show, span, tell } from "./page.js";
import { ask, now, state, watch } from "./live.js";
import { Rows } from "./rows.js";

/** A list in circles, or deeper than any mandate, is cut. */
const DEEPEST = 32;

let rows;
let opened = null;

/** A job's state as one word, and what is to be said of it. */
export function standing(job) {
  if (job.state.awaiting !== undefined) return ["awaiting", `needs approval (${rule(job.state.awaiting)})`];
  if (job.state.failed !== undefined) return ["failed", job.state.failed];
  return [job.state, null];
}

const rule = (rule) => (typeof rule === "string" ? rule : JSON.stringify(rule));

export function begin(visible) {
  rows = new Rows(byId("jobs-table"), {
    label: "Jobs",
    none: "No job is under way, and none is remembered.",
    columns: [
      ["Job", ""], ["State", ""], ["Capability", "later"], ["Tokens", "num"], ["By", "later"], ["For", "later"],
      ["Cost of budget", "num later"], ["Age", "num later"], ["Actions", "act"],
    ],
    key: (line) => line.key,
    make,
    fill,
  });
  watch(["jobs", "view"], draw, visible);
  setInterval(() => visible() && !document.hidden && rows.draw(), 1000);
  byId("jobs-over").addEventListener("change", draw);
  byId("jobs-find").addEventListener("input", draw);
  byId("job-approve").addEventListener("click", () => act(opened, "approve"));
  byId("job-cancel").addEventListener("click", () => act(opened, "cancel"));
  watch(["jobs"], details, () => byId("job-dialog").open);
}

function draw() {
  rows.set(tree(listed()));
}

function listed() {
  const over = byId("jobs-over").checked;
  const wanted = byId("jobs-find").value.trim().toLowerCase();
  const found = [];
  for (const [key, job] of state.jobs) {
    if (job.ended != null && !over) continue;
    if (wanted && !text(job).includes(wanted)) continue;
    found.push({ key, job, depth: 0 });
  }
  return found;
}

const text = (job) =>
  `${job.job} ${job.capability} ${job.provider ?? ""} ${job.requester} ${standing(job).join(" ")}`.toLowerCase();

const rank = ({ job }) => (job.state.awaiting !== undefined ? 0 : job.ended == null ? 1 : 2);
const later = (a, b) => rank(a) - rank(b) || b.job.since - a.job.since || (a.key < b.key ? -1 : 1);

/** Parts below what they are parts of; what needs an answer first, then what runs, then the latest. */
export function tree(lines) {
  const known = new Set(lines.map((line) => line.job.job));
  const parts = new Map();
  const roots = [];
  for (const line of lines) {
    const { parent, job } = line.job;
    if (parent == null || parent === job || !known.has(parent)) roots.push(line);
    else parts.set(parent, [...(parts.get(parent) ?? []), line]);
  }
  const placed = [];
  const grow = (line, depth) => {
    placed.push({ ...line, depth });
    if (depth < DEEPEST) (parts.get(line.job.job) ?? []).sort(later).forEach((part) => grow(part, depth + 1));
    parts.delete(line.job.job);
  };
  roots.sort(later).forEach((root) => grow(root, 0));
  return placed;
}

function make() {
  const row = {};
  const name = el("button", { type: "button", class: "name mono", onclick: () => open(row.item) });
  const indent = el("span", { class: "indent", "aria-hidden": "true" });
  const approve = el("button", { type: "button", onclick: () => act(row.item.job, "approve") }, "Approve");
  const cancel = el("button", { type: "button", onclick: () => act(row.item.job, "cancel") }, "Cancel");
  const texts = Array.from({ length: 6 }, () => el("span"));
  texts[2].className = texts[3].className = "mono";
  const acts = el("span", { class: "actions" }, approve, cancel);
  const state = badge();
  row.cells = [el("span", {}, indent, name), state, ...texts, acts];
  return Object.assign(row, { name, indent, approve, cancel, texts, state });
}

const me = () => state.status?.peer;

function fill(row, { job, depth }) {
  const [capability, tokens, by, whom, cost, age] = row.texts;
  say(row.indent, depth ? `${"  ".repeat(depth - 1)}└ ` : "");
  say(row.name, head(job.job));
  mark(row.name, "aria-label", `Job ${head(job.job)}${depth ? `, part at depth ${depth}` : ""}, details`);
  const [word, detail] = standing(job);
  show(row.state, word, word === "failed" ? detail : null);
  mark(row.state, "title", detail);
  say(capability, job.capability);
  say(tokens, count(job.tokens));
  say(by, job.provider ? short(job.provider) : "nobody");
  say(whom, short(job.requester));
  say(cost, `${count(job.cost)} / ${count(job.budget)}`);
  say(age, span((job.ended ?? now()) - job.since));
  const [mine, held] = [me() === job.requester, job.state.awaiting !== undefined];
  row.approve.hidden = !held;
  row.cancel.hidden = job.ended != null || !mine;
  say(row.cancel, held ? "Refuse" : "Cancel");
  mark(row.approve, "aria-label", `Approve job ${head(job.job)}`);
  mark(row.cancel, "aria-label", `${held ? "Refuse" : "Cancel"} job ${head(job.job)}`);
}

/** Answers a job: `approve`, or `cancel`. */
export async function act(job, what) {
  if (!job) return;
  try {
    if (what === "approve") await ask("POST", `/control/jobs/${job.job}/approve`);
    else await ask("DELETE", `/control/jobs/${job.job}`);
    tell(`${what === "approve" ? "Approved" : "Cancelled"} job ${head(job.job)}`);
  } catch (error) {
    tell(error.message);
  }
}

function open({ job }) {
  opened = job;
  details();
  byId("job-dialog").showModal();
}

function details() {
  opened = state.jobs.get(`${opened.job}.${opened.since}`) ?? opened;
  const job = opened;
  show(byId("job-state"), ...standing(job));
  say(byId("job-title"), `Job ${head(job.job)}`);
  const pairs = [
    ["job", job.job],
    ["part of", job.parent ?? "nothing"],
    ["capability", job.capability],
    ["provider", job.provider ?? "nobody yet"],
    ["requester", job.requester],
    ["tokens", count(job.tokens)],
    ["taken over", `${job.takeovers} times`],
    ["cost", `${credits(job.cost)} of ${credits(job.budget)}`],
    ["began", new Date(job.since).toLocaleString()],
    ["took", span((job.ended ?? now()) - job.since)],
  ];
  describe(byId("job-facts"), pairs);
  byId("job-approve").hidden = job.state.awaiting === undefined;
  byId("job-cancel").hidden = job.ended != null || me() !== job.requester;
}
