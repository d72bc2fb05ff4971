"use strict";
const MUST_BE_ZERO = /stale_serves_total|corrupt_total|corrupt_blobs|corrupt_reads_total|panics_total/;
let before = new Map(), beforeAt = 0;
const el = (tag, text, name) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (name) e.className = name; return e; };
function amount(n) {
  if (!Number.isFinite(n)) return "-";
  if (Math.abs(n) >= 1e4) { const units = ["", " k", " M", " G", " T"]; let i = 0; while (Math.abs(n) >= 1e3 && i < 4) { n /= 1e3; i++; } return n.toFixed(n < 100 ? 1 : 0) + units[i]; }
  return Number.isInteger(n) ? String(n) : n.toPrecision(3);
}
function bytes(n) { const units = ["B", "KiB", "MiB", "GiB", "TiB"]; let i = 0; while (n >= 1024 && i < 4) { n /= 1024; i++; } return (i ? n.toFixed(1) : n) + " " + units[i]; }
function time(s) { if (s === null) return "-"; return s < 1e-3 ? amount(s * 1e6) + " \u00b5s" : s < 1 ? amount(s * 1e3) + " ms" : amount(s) + " s"; }
const keyOf = (tier, f) => tier + f.name + JSON.stringify(f.labels);
function shown(f, rate) {
  if (f.kind === "seconds") return f.value.count ? "p50 " + time(f.value.p50) + ", p99 " + time(f.value.p99) + ", " + amount(f.value.count) : "none yet";
  if (f.kind === "sizes") return f.value.count ? "p50 " + amount(f.value.p50) + ", p99 " + amount(f.value.p99) : "none yet";
  const n = /bytes/.test(f.name) ? bytes(f.value) : /seconds/.test(f.name) ? time(f.value) : amount(f.value);
  return rate ? n + " (" + amount(rate) + "/s)" : n;
}
function tile(into, what, value, good) { const d = el("div", what, "dim"); d.prepend(el("b", value, good === undefined ? "" : good ? "ok" : "no")); into.append(d); }
function draw(all, now) {
  const main = document.getElementById("tiers"), fresh = document.createDocumentFragment(), seen = new Map();
  document.getElementById("version").textContent = all.version;
  let ready = true;
  for (const t of all.tiers) {
    fresh.append(el("h2", t.tier === "global" ? "Global, the authority" : "Local, the node"));
    const big = el("div", undefined, "big"), table = el("table");
    for (const c of t.checks) { tile(big, c.ok ? c.name : c.name + ": " + c.why, c.ok ? "ok" : "no", c.ok); ready = ready && c.ok; }
    const reads = Object.fromEntries(t.figures.filter(f => f.name === "dstore_local_reads_total").map(f => [f.labels.tier, f.value]));
    if (reads.local + reads.global > 0) tile(big, "of reads from this node", (100 * reads.local / (reads.local + reads.global)).toFixed(1) + " %");
    tile(big, "revision", amount(t.revision));
    fresh.append(big);
    for (const f of t.figures) {
      const row = el("tr"), labels = Object.entries(f.labels).map(([k, v]) => k + "=" + v).join(" ");
      const key = keyOf(t.tier, f), old = before.get(key);
      const rate = f.kind === "counter" && old !== undefined && now > beforeAt ? (f.value - old) * 1000 / (now - beforeAt) : 0;
      if (f.kind === "counter") seen.set(key, f.value);
      const wrong = MUST_BE_ZERO.test(f.name) && f.value > 0;
      row.append(el("td", f.name.replace(/^dstore_(global|local)_/, "") + (labels ? " " + labels : ""), wrong ? "no" : ""), el("td", shown(f, rate), wrong ? "n no" : "n"), el("td", f.help, "h"));
      table.append(row);
    }
    fresh.append(table);
  }
  main.replaceChildren(fresh); before = seen; beforeAt = now;
  const state = document.getElementById("state"); state.textContent = ready ? "ready" : "not ready"; state.className = ready ? "ok" : "no";
}
async function ask() {
  try { const r = await fetch("/status.json", { cache: "no-store" }); if (!r.ok) throw new Error(await r.text()); draw(await r.json(), performance.now()); }
  catch (e) { const s = document.getElementById("state"); s.textContent = "no answer: " + e.message; s.className = "no"; }
  setTimeout(ask, 2000);
}
ask();
