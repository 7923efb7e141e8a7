// What anybody must be able to use, as far as a program can tell: returns a list of what is wrong with what is shown.
const wrong = [];
const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const name = (element) => `<${element.tagName.toLowerCase()}${element.id ? ` id=${element.id}` : ""} class="${element.className}">`;
const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);

// The page itself.
if (!document.documentElement.lang) wrong.push("no language");
if (!document.title) wrong.push("no title");
for (const landmark of ["main", "nav", "header"]) {
  if (all(landmark).length < 1) wrong.push(`no <${landmark}>`);
}
if (all("main").length !== 1) wrong.push("not exactly one <main>");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => wrong.push(`the id ${id} stands twice`));
for (const attribute of ["aria-labelledby", "for", "list", "aria-controls", "aria-describedby"]) {
  for (const element of document.querySelectorAll(`[${attribute}]`)) {
    const missing = element.getAttribute(attribute).split(" ").filter((id) => !document.getElementById(id));
    if (missing.length) wrong.push(`${name(element)}: ${attribute} names ${missing}, which is nowhere`);
  }
}

// Headings: one first, and none skipped.
const levels = all("h1, h2, h3, h4").filter((heading) => !heading.closest("dialog")).map((heading) => Number(heading.tagName[1]));
if (levels.filter((level) => level === 1).length !== 1) wrong.push(`headings of the first level: ${levels}`);
levels.forEach((level, at) => at && level > levels[at - 1] + 1 && wrong.push(`headings skip a level: ${levels}`));

// Everything that can be used has a name, a size, and its place in the order of the page.
const named = (element) =>
  element.getAttribute("aria-label")?.trim() ||
  element.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id)?.textContent).join(" ").trim() ||
  [...(element.labels ?? [])].map((label) => label.textContent).join(" ").trim() ||
  (element.matches("input, textarea, select") ? "" : element.textContent.trim());
for (const element of all("a[href], button, input, textarea, select, [tabindex], [role=img], [role=table], [role=region], progress")) {
  if (element.matches("main, h1")) continue;
  if (!named(element)) wrong.push(`${name(element)} has no name`);
  if (element.tabIndex > 0) wrong.push(`${name(element)} jumps the queue`);
  const box = element.getBoundingClientRect();
  if (element.matches("button, input, textarea") && Math.min(box.width, box.height) < 15.5) wrong.push(`${name(element)} is ${box.width}×${box.height}`);
}
for (const image of all("img")) if (!image.hasAttribute("alt")) wrong.push(`${name(image)} has no alt`);
for (const element of all("[aria-hidden=true]")) {
  if (element.querySelector("a, button, input, [tabindex]")) wrong.push(`${name(element)} hides what can be used`);
}

// Roles stand where they belong.
const above = { row: "rowgroup", cell: "row", columnheader: "row", rowgroup: "table" };
for (const [role, parent] of Object.entries(above)) {
  for (const element of all(`[role=${role}]`)) {
    let at = element.parentElement;
    while (at?.getAttribute("role") === "presentation") at = at.parentElement;
    if (at?.getAttribute("role") !== parent) wrong.push(`${name(element)}: a ${role} outside of a ${parent}`);
  }
}

// Contrast of every text with what is behind it. A browser writes colours as rgb(r, g, b) or rgba(r, g, b, a).
const colour = (text) => {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return { r, g, b, a };
};
const over = (top, under) => ({
  r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a), b: top.b * top.a + under.b * (1 - top.a), a: 1,
});
const behind = (element) => {
  const stack = [];
  for (let at = element; at; at = at.parentElement) stack.push(colour(getComputedStyle(at).backgroundColor));
  return stack.reverse().reduce((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
};
const light = ({ r, g, b }) => {
  const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const low = new Set();
for (let text = texts.nextNode(); text; text = texts.nextNode()) {
  const element = text.parentElement;
  if (!text.data.trim() || !shown(element) || element.closest(".skip, .unseen, script, noscript, datalist, :disabled")) continue;
  const found = contrast(over(colour(getComputedStyle(element).color), behind(element)), behind(element));
  if (found < 4.5) low.add(`${name(element)} “${text.data.trim().slice(0, 20)}”: contrast ${found.toFixed(2)}`);
}
wrong.push(...low);

// Nothing is wider than the screen.
if (document.documentElement.scrollWidth > innerWidth) wrong.push(`${document.documentElement.scrollWidth} pixels wide on a screen of ${innerWidth}`);
return wrong;
