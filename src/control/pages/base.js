// What both pages share: bounds, small helpers, and the sparkline. Names and contents are hostile: they only ever become
// textContent.

// Every bound of the pages.
export const LIMITS = {
  lines: 300, shownChars: 2000, nameChars: 64, userBytes: 128, rooms: 24, people: 24, pending: 256, bufferedBytes: 65536,
  symbols: 6, quotePoints: 60, reactors: 128, statPoints: 60, roomPages: 20, nodes: 64, roomsShown: 100, usersShown: 200,
  backoffBaseMs: 400, backoffCapMs: 20000, retryCapMs: 300000, welcomeMs: 10000, stableMs: 5000, presenceMs: 1000,
  ladderWaiting: 1000, ages: 20000, feedPending: 4, feedUpdates: 500, burstS: 12,
};

export const byTest = (name) => document.querySelector(`[data-test="${name}"]`);
export const clip = (s, max = LIMITS.nameChars) => (s.length > max ? s.slice(0, max) + "…" : s);
export const word = (v) => (typeof v === "string" ? v : "");
export const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
export const bytesOf = (s) => new TextEncoder().encode(s).length;
export const shown = (json) => (typeof json === "string" ? json : json === undefined ? "" : JSON.stringify(json));

export function el(tag, className = "", textContent = "") {
  return Object.assign(document.createElement(tag), { className, textContent });
}

export function svg(tag, attrs, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attrs) e.setAttribute(name, attrs[name]);
  e.append(...children);
  return e;
}

// A sparkline that draws an array of numbers; `floor` pins the lower edge, else it is the smallest value.
export function spark(floor) {
  const area = svg("path", { class: "area" }), trace = svg("path", { class: "trace" });
  const root = svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, area, trace);
  root.draw = (values, slots) => {
    if (values.length < 2) return;
    const low = floor ?? Math.min(...values), span = Math.max(...values) - low || 1;
    const step = 100 / (slots - 1), from = 100 - step * (values.length - 1);
    const d = values.map((v, i) => `${(from + i * step).toFixed(1)} ${(18.5 - ((v - low) / span) * 17).toFixed(2)}`).join("L");
    trace.setAttribute("d", "M" + d);
    area.setAttribute("d", `M${from.toFixed(1)} 20L${d}L100 20Z`);
  };
  return root;
}

export function keep(list, value, max) {
  list.push(value);
  if (list.length > max) list.shift();
}

export function compact(n, bytes) {
  const units = bytes ? [" B", " kB", " MB", " GB", " TB"] : ["", " k", " M", " G", " T"];
  let unit = 0;
  for (; n >= 999.5 && unit < units.length - 1; unit++) n /= 1000;
  return (unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(n >= 10 ? 1 : 2)) + units[unit];
}

export function duration(s) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = Math.max(0, parts.findIndex(([size]) => s >= size));
  return parts.slice(first, first + 2).map(([size, unit], i) => `${Math.floor((i === 0 ? s : s % parts[first][0]) / size)} ${unit}`).join(" ");
}
