// A table of any length of which only the visible rows exist.
//
// Rows are kept by key: one whose entry has changed is filled again in place, and nothing else is touched. The row that
// has the focus stays, wherever it has been scrolled to.

import { el, mark } from "./page.js";

/** Rows beyond the visible ones, so that scrolling does not show gaps. */
const MARGIN = 6;

export class Rows {
  /**
   * @param {HTMLElement} host
   * @param {{label: string, columns: [string, string][], make: () => object, fill: (row: object, item: object) => void,
   *   none: string, key: (item: object) => string}} shape  `columns` are titles and classes; `make` gives `cells`.
   */
  constructor(host, shape) {
    this.shape = shape;
    this.items = [];
    this.rows = new Map();
    this.pool = [];
    const titles = shape.columns.map(([title, kind]) => el("div", { role: "columnheader", class: kind }, title));
    this.header = el("div", { role: "row", class: "row header" }, ...titles);
    this.space = el("div", { role: "presentation", class: "space" });
    this.body = el("div", { role: "rowgroup", class: "body", tabindex: "0", "aria-label": `${shape.label}, rows` }, this.space);
    this.table = el(
      "div",
      { role: "table", "aria-label": shape.label, class: "table" },
      el("div", { role: "rowgroup", class: "titles" }, this.header),
      this.body,
    );
    this.none = el("p", { class: "none" }, shape.none);
    host.append(this.table, this.none);
    this.body.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(this.body);
    this.height = 34;
    this.room = 0;
    this.set([]);
  }

  /** Shows these entries, in this order. */
  set(items) {
    this.items = items;
    mark(this.table, "aria-rowcount", items.length + 1);
    this.none.hidden = items.length > 0;
    this.table.hidden = items.length === 0;
    this.draw();
  }

  measure() {
    const height = parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 34;
    this.room = this.body.clientHeight;
    this.height = height;
    this.draw();
  }

  soon() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const { items, height } = this;
    const total = `${items.length * height}px`;
    if (this.total !== total) this.space.style.height = this.total = total;
    const first = Math.max(0, Math.floor(this.body.scrollTop / height) - MARGIN);
    const last = Math.min(items.length, Math.ceil((this.body.scrollTop + (this.room || 600)) / height) + MARGIN);
    const wanted = new Map();
    for (let at = first; at < last; at++) wanted.set(this.shape.key(items[at]), at);
    const focused = this.space.contains(document.activeElement) ? document.activeElement.closest(".row") : null;
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      const at = row.element === focused ? items.findIndex((item) => this.shape.key(item) === key) : -1;
      if (at >= 0) {
        wanted.set(key, at);
        continue;
      }
      this.rows.delete(key);
      this.pool.push(row);
      row.element.remove();
    }
    let before = null;
    for (const [key, at] of wanted) before = this.place(key, at, before);
  }

  place(key, at, before) {
    let row = this.rows.get(key);
    if (!row) {
      row = this.pool.pop() ?? this.make();
      this.rows.set(key, row);
    }
    const after = before ? before.nextSibling : this.space.firstChild;
    if (row.element !== after && row.element !== before) this.space.insertBefore(row.element, after);
    if (row.at !== at || row.of !== this.height) {
      row.element.style.transform = `translateY(${at * this.height}px)`;
      mark(row.element, "aria-rowindex", at + 2);
      Object.assign(row, { at, of: this.height });
    }
    row.item = this.items[at];
    this.shape.fill(row, row.item);
    return row.element;
  }

  make() {
    const row = this.shape.make();
    const cells = row.cells.map((cell, at) => el("div", { role: "cell", class: this.shape.columns[at][1] }, cell));
    row.element = el("div", { role: "row", class: "row" }, ...cells);
    row.at = -1;
    return row;
  }
}
