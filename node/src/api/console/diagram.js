// The mesh as a picture: this peer in the middle, others as far away as their last round trip took.
//
// The table beside it says the same in words, so here is nothing that only eyes could have.

import { mark, millis, short } from "./page.js";

/** Rings, in milliseconds; the last one is the edge. */
const RINGS = [1, 10, 100, 1000];
/** With more peers than this, names would cover each other. */
const MOST_NAMES = 36;

/** Below so many pixels to the side the rings' names would cover each other, too. */
const NARROW = 200;

/** From 0 in the middle to 1 at the edge, by the logarithm of the round trip. */
function distance(rtt) {
  const nearest = 0.1;
  const at = Math.log10(Math.max(rtt ?? 30, nearest) / nearest) / Math.log10(1000 / nearest);
  return 0.16 + 0.84 * Math.min(1, at);
}

/** Draws peers, and thicker lines to those in `busy`, a set of names. */
export function draw(canvas, me, peers, busy) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const brush = canvas.getContext("2d");
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  brush.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [x, y] = [width / 2, height / 2];
  const [wide, high] = [width / 2 - (width < 500 ? 34 : 60), height / 2 - 22];
  brush.font = `11px ${style.fontFamily}`;
  rings(brush, colour, [x, y, wide, high]);

  const connected = peers.filter((peer) => peer.connected).sort((a, b) => (a.peer < b.peer ? -1 : 1));
  const places = connected.map((peer, at) => {
    const angle = ((at + 0.5) / connected.length) * 2 * Math.PI - Math.PI / 2;
    const far = distance(peer.rtt_ms);
    return { peer, x: x + Math.cos(angle) * far * wide, y: y + Math.sin(angle) * far * high };
  });
  const line = connected.length > MOST_NAMES ? 1 : 2.5;
  for (const place of places) {
    const works = busy.has(place.peer.peer);
    brush.strokeStyle = colour(works ? "--accent" : "--line");
    brush.lineWidth = works ? line : 1;
    brush.beginPath();
    brush.moveTo(x, y);
    brush.lineTo(place.x, place.y);
    brush.stroke();
  }
  brush.textAlign = "center";
  for (const place of places) {
    dot(brush, colour, place, busy.has(place.peer.peer));
    if (connected.length > MOST_NAMES) continue;
    brush.fillStyle = colour("--ink");
    brush.fillText(short(place.peer.peer), place.x, place.y + (place.y < y ? -10 : 18));
  }
  brush.fillStyle = colour("--accent");
  circle(brush, x, y, 9);
  brush.fillStyle = colour("--panel");
  circle(brush, x, y, 3.5);
  const nearest = connected.reduce((least, peer) => Math.min(least, peer.rtt_ms ?? Infinity), Infinity);
  const near = nearest < Infinity ? `, the nearest ${millis(nearest)} away` : "";
  mark(canvas, "aria-label", `The mesh around ${short(me)}: ${connected.length} connected peers${near}`);
}

function rings(brush, colour, [x, y, wide, high]) {
  brush.lineWidth = 1;
  brush.setLineDash([2, 5]);
  brush.textAlign = "left";
  for (const ring of RINGS) {
    const far = distance(ring);
    brush.strokeStyle = colour("--line");
    brush.beginPath();
    brush.ellipse(x, y, far * wide, far * high, 0, 0, 2 * Math.PI);
    brush.stroke();
    brush.fillStyle = colour("--dim");
    if (wide >= NARROW) brush.fillText(ring < 1000 ? `${ring} ms` : "1 s", x + far * wide + 4, y + 4);
  }
  brush.setLineDash([]);
}

function dot(brush, colour, { peer, x, y }, works) {
  brush.fillStyle = colour(works ? "--accent" : peer.capabilities.length ? "--busy" : "--dim");
  circle(brush, x, y, peer.capabilities.length ? 5.5 : 4);
}

function circle(brush, x, y, radius) {
  brush.beginPath();
  brush.arc(x, y, radius, 0, 2 * Math.PI);
  brush.fill();
}
