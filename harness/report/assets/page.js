"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

/** An element with attributes (functions become listeners) and children. */
function h(tag, attrs = {}, ...children) {
  const svg = ["svg", "line", "circle", "text", "rect", "path", "g", "title"].includes(tag);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (typeof v === "function") e.addEventListener(k, v);
    else if (v !== null && v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}
/** What nobody sees before a click: unpacked once, in idle time or when it is first asked for. */
function packed(id) {
  let asked = null;
  const read = async () => {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  };
  return () => (asked ??= read());
}
const details = packed("details"), samples = packed("samples-data");
const short = (x) => (x === null || x === undefined ? "–" : Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(+x.toPrecision(4)));
const pText = (p) => (p === null || p === undefined ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
/** A factor or level as the table prints it. */
const named = (v) => (Object.hasOwn(D.text, v) ? D.text[v] : v ?? "");
const signed = (x) => (x > 0 ? "+" : "") + short(x);

/* ---- state ---- */
const state = { major: "level", sort: null, off: {}, offMetrics: new Set(), query: "", paired: false };
for (const f of Object.keys(D.factors)) state.off[f] = new Set();

/* ---- toolbar ---- */
function chip(text, isOn, toggle) {
  const b = h("button", { class: "chip", type: "button", title: text, "aria-pressed": String(isOn()), click: () => { toggle(); b.setAttribute("aria-pressed", String(isOn())); drawGrid(); } }, text);
  return b;
}
function drawTools() {
  const groups = [...D.rowFactors, ...D.columnFactors].map((f) =>
    h("fieldset", {}, h("legend", {}, named(f)), D.factors[f].map((v) =>
      chip(named(v), () => !state.off[f].has(v), () => (state.off[f].has(v) ? state.off[f].delete(v) : state.off[f].add(v))))));
  const metrics = D.metrics.length > 1 && h("fieldset", {}, h("legend", {}, "metrics"), D.metrics.map((m, i) =>
    chip(m.label, () => !state.offMetrics.has(i), () => (state.offMetrics.has(i) ? state.offMetrics.delete(i) : state.offMetrics.add(i)))));
  const turn = D.columnFactors.length > 0 && D.metrics.length > 1 && h("button", { class: "quiet", id: "turn", type: "button", click: () => { state.major = state.major === "level" ? "metric" : "level"; drawGrid(); } }, "Group columns by metric");
  const paired = D.cells.some((c) => c.paired && c.paired !== "-") && h("button", { class: "quiet", id: "paired", type: "button", "aria-pressed": "false", click: (e) => { state.paired = !state.paired; e.currentTarget.setAttribute("aria-pressed", String(state.paired)); e.currentTarget.textContent = state.paired ? "Show values" : "Show differences to the baseline"; drawGrid(); } }, "Show differences to the baseline");
  const search = h("input", { type: "search", id: "search", placeholder: "Filter rows", "aria-label": "Filter rows", input: (e) => { state.query = e.target.value.toLowerCase(); drawGrid(); } });
  $("tools").append(...[search, ...groups, metrics, turn, paired].filter(Boolean));
}

/* ---- the table ---- */
function visibleColumns() {
  let columns = D.columns.map((c, i) => ({ ...c, i })).filter((c) => !state.offMetrics.has(c.metric) && D.columnFactors.every((f, k) => !state.off[f].has(c.levels[k])));
  if (state.major === "metric") columns = columns.map((c, n) => [c, n]).sort((a, b) => a[0].metric - b[0].metric || a[1] - b[1]).map((x) => x[0]);
  return columns;
}
function visibleRows() {
  let rows = D.rows.map((r, i) => ({ ...r, i })).filter((r) =>
    D.rowFactors.every((f, k) => !state.off[f].has(r.levels[k])) && r.levels.map(named).join(" ").toLowerCase().includes(state.query));
  if (state.sort) {
    const key = (r) => { const c = D.cells[r.cells[state.sort.column]]; return c.mean ?? null; };
    rows.sort((a, b) => { const x = key(a), y = key(b); return x === null ? 1 : y === null ? -1 : (x - y) * state.sort.direction; });
  }
  return rows;
}
function heading(c) {
  const m = D.metrics[c.metric];
  const label = state.major === "level" || !D.columnFactors.length ? [m.label + m.arrow, m.unit && h("small", {}, m.unit)] : [c.levels.map(named).join(" · ")];
  const active = state.sort && state.sort.column === c.i;
  return h("th", { scope: "col", "aria-sort": active ? (state.sort.direction > 0 ? "ascending" : "descending") : null, class: c.edge ? "edge" : null },
    h("button", { class: "sort", type: "button", "data-column": c.i, title: m.name, click: () => sortBy(c.i, m.better) }, label, active ? (state.sort.direction > 0 ? " ▴" : " ▾") : ""));
}
function sortBy(column, better) {
  const first = better === "lower" ? 1 : -1;
  if (!state.sort || state.sort.column !== column) state.sort = { column, direction: first };
  else if (state.sort.direction === first) state.sort.direction = -first;
  else state.sort = null;
  drawGrid();
}
const spans = (c) => (state.major === "level" ? c.levels.map(named) : D.columnFactors.length ? [D.metrics[c.metric].label + D.metrics[c.metric].arrow] : []);
/** Head and body of the table of some columns. */
function gridOf(columns, rows) {
  const keys = columns.map(spans);
  columns.forEach((c, n) => { c.edge = n > 0 && keys[n].length > 0 && keys[n].join("\0") !== keys[n - 1].join("\0"); });
  const lines = [];
  for (let depth = 0; depth < (keys[0] || []).length; depth++) {
    const line = h("tr", {}, h("th", { class: "head" }));
    for (let n = 0; n < columns.length;) {
      let end = n + 1;
      while (end < columns.length && keys[end].slice(0, depth + 1).join("\0") === keys[n].slice(0, depth + 1).join("\0")) end++;
      line.append(h("th", { class: "span" + (n ? " edge" : ""), colspan: end - n, scope: "colgroup" }, h("span", {}, keys[n][depth])));
      n = end;
    }
    lines.push(line);
  }
  lines.push(h("tr", {}, h("th", { class: "head lead" }, h("div", { class: "labels" }, D.rowFactors.map((f) => h("span", {}, named(f))))), columns.map(heading)));
  let previous = [];
  const body = rows.map((r) => {
    const again = r.levels.map((v, k) => !state.sort && previous.slice(0, k + 1).join("\0") === r.levels.slice(0, k + 1).join("\0"));
    const starts = !state.sort && previous.length && D.group >= 0 && previous[D.group] !== r.levels[D.group];
    previous = r.levels;
    const shared = sharedNotes(r);
    return h("tr", { class: starts ? "starts" : null },
      h("th", { class: "head", scope: "row" }, h("div", { class: "labels" }, r.levels.map((v, k) => h("span", { class: again[k] && k < r.levels.length - 1 ? "again" : null }, named(v), k === r.levels.length - 1 ? marks(shared) : null)))),
      columns.map((c) => drawCell(r.cells[c.i], c.edge, shared)));
  });
  if (!rows.length || !columns.length) body.push(h("tr", {}, h("td", {}, D.metrics.length ? "Nothing fits these filters." : "No record holds a number.")));
  return [h("thead", {}, lines), h("tbody", {}, body)];
}
/** On paper a wide table becomes several, one below the other: no column is cut off. */
const PAPER = 9;
function blocks(columns) {
  const found = [];
  for (const c of columns) {
    const last = found.at(-1), same = last && spans(last[0]).join("\0") === spans(c).join("\0");
    if (last && (same || columns.length <= PAPER) && last.length < PAPER) last.push(c);
    else found.push([c]);
  }
  return found;
}
function drawGrid() {
  const columns = visibleColumns(), rows = visibleRows();
  const grid = $("grid");
  grid.replaceChildren(...gridOf(columns, rows));
  grid.classList.toggle("few", columns.length < 6);
  $("paper").replaceChildren(...(matchMedia("print").matches ? blocks(columns).map((block) => h("table", { class: "grid" }, gridOf(block, rows))) : []));
  const widths = D.rowFactors.map((f) => Math.max(...[f, ...D.factors[f]].map((v) => named(v).length)));
  document.querySelectorAll(".grid .labels").forEach((d) => [...d.children].forEach((s, k) => s.style.setProperty("--w", `${Math.min(widths[k], 22) * 0.58 + 0.5}em`)));
  if ($("turn")) $("turn").textContent = state.major === "level" ? "Group columns by metric" : "Group columns by " + D.columnFactors.map(named).join(", ");
}
/** Footnotes that every number of a row has: they stand at the row's name, once. */
function sharedNotes(row) {
  const cells = row.cells.map((i) => D.cells[i]).filter((c) => c.mean !== undefined);
  return cells.length < 2 ? [] : cells[0].notes.filter((n) => cells.every((c) => c.notes.includes(n)));
}
const marks = (notes) => (notes.length ? h("sup", { title: notes.map((n) => D.footnotes[n]).join("\n") }, notes.map((n) => n + 1).join(",")) : null);
function drawCell(index, edge, shared) {
  const c = D.cells[index];
  const notes = marks(c.notes.filter((n) => !shared.includes(n)));
  const shown = state.paired ? (c.paired || "-").match(/^(\S+)(?: (.*))?$/).slice(1) : [c.value, c.spread && "±" + c.spread];
  const inside = c.mean === undefined
    ? h("span", { class: c.why === "-" ? "mark" : "why" }, c.why, notes)
    : [h("span", { class: "value" }, h("span", { class: "number" }, shown[0]), h("span", { class: "mark" }, c.verdict === "baseline" ? "◆" : c.mark), notes), shown[1] && h("span", { class: "spread" }, shown[1])];
  const classes = [c.verdict, ["", "first", "second"][c.rank], c.verdict === "baseline" && "is-baseline", edge && "edge"].filter(Boolean).join(" ");
  return h("td", { class: classes }, h("button", { class: "cell", type: "button", "data-cell": index, pointerenter: (e) => e.pointerType === "mouse" && tip(e.currentTarget, c), pointerleave: hideTip, focus: (e) => e.currentTarget.matches(":focus-visible") && tip(e.currentTarget, c), blur: hideTip, click: () => open(index) }, inside));
}

/* ---- hover ---- */
const SAYS = {
  better: "better than the baseline", worse: "worse than the baseline", tie: "not distinguishable from the baseline",
  differs: "differs from the baseline; no direction is better",
  undecided: "undecided", secondary: "not decided on", untested: "not tested", baseline: "the baseline", missing: "no number",
};
function saying(c) {
  if (c.verdict === "missing") return c.missing.join("; ");
  const said = SAYS[c.verdict] + (c.about === "checkpoints" ? ", these checkpoints only" : "");
  return said[0].toUpperCase() + said.slice(1) + (c.reason ? ` (${c.reason})` : "") + ".";
}
/** A raw number as the table prints its metric: scaled, with its unit. */
function inUnits(metric, difference) {
  const m = D.metrics[metric] || { scale: 1, unit: "" }, unit = difference && m.unit === "%" ? "points" : m.unit;
  const of = (x, f = short) => (x === null || x === undefined ? "–" : f(x * m.scale));
  return { of, one: (x, f) => of(x, f) + (unit ? " " + unit : ""), two: (a, b) => `${of(a)} to ${of(b)}` };
}
function facts(c) {
  const rows = [], u = inUnits(c.metric), d = inUnits(c.metric, true);
  if (c.mean !== undefined) {
    rows.push(["Mean", u.one(c.mean)]);
    if (c.low !== null) rows.push([`95 % interval over ${c.basis}`, u.two(c.low, c.high)]);
    rows.push(["n", `${c.seeds} seed${c.seeds === 1 ? "" : "s"}` + (c.items ? `, ${c.items} items` : "")]);
    if (c.sd !== null) rows.push(["SD over seeds", d.one(c.sd)]);
  }
  if (c.difference !== undefined) {
    rows.push(["Difference to baseline", c.verdict === "baseline" ? "–" : d.one(c.difference, signed) + (c.dlow !== null ? ` (${d.two(c.dlow, c.dhigh)})` : "")]);
    if (c.p !== null) rows.push([`p, ${c.test}`, `${pText(c.p)}, adjusted for ${c.family}`]);
    if (c.detectable !== null) rows.push(["Detectable, 80 % power", d.one(c.detectable)]);
  }
  return rows;
}
function tip(at, c) {
  const box = $("tip");
  box.replaceChildren(h("dl", {}, facts(c).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])), h("p", { class: "said" }, saying(c)));
  box.classList.add("on");
  const r = at.getBoundingClientRect(), w = box.offsetWidth, t = box.offsetHeight;
  box.style.left = Math.max(8, Math.min(innerWidth - w - 8, r.left + r.width / 2 - w / 2)) + "px";
  box.style.top = (r.bottom + t + 12 < innerHeight ? r.bottom + 6 : Math.max(8, r.top - t - 6)) + "px";
}
function hideTip() { $("tip").classList.remove("on"); }

/* ---- one number ---- */
const levelsText = (where) => Object.values(where).map(named).join(" · ") || "all";
function open(index, keepHash) {
  hideTip();
  const c = D.cells[index], m = D.metrics[c.metric];
  const tabs = h("div", { class: "tabs", role: "tablist" }), place = h("div");
  const records = c.records.map((i) => D.records[i]);
  const choose = async (record) => {
    [...tabs.children].forEach((b) => b.setAttribute("aria-selected", String(b.dataset.record === record.id)));
    place.replaceChildren(...(await drawRecord(record, c)).flat(9).filter(Boolean));
  };
  const many = new Set(records.map((r) => levelsText(r.levels))).size > 1;
  records.forEach((r) => tabs.append(h("button", { type: "button", role: "tab", "data-record": r.id, click: () => choose(r) }, (many ? levelsText(r.levels) + ", " : "") + `seed ${r.seed}` + (r.status === "ok" ? "" : ` (${r.status})`))));
  show(levelsText(c.where), m.label + (m.unit ? `, ${m.unit}` : ""),
    c.mean === undefined ? h("p", {}, saying(c)) : h("div", { class: "big" }, c.value, c.spread ? h("span", {}, ` ±${c.spread}`) : ""),
    h("dl", { class: "stats" }, facts(c).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
      Object.keys(c.bySeed || {}).length ? [h("dt", {}, "By seed"), h("dd", {}, Object.entries(c.bySeed).map(([s, v]) => `${s}: ${inUnits(c.metric).of(v)}`).join("   "))] : []),
    c.mean === undefined ? null : h("p", { class: "notes" }, saying(c), c.notes.map((n) => [h("br"), `[${n + 1}] ${D.footnotes[n]}`])),
    forest(index), records.length ? [h("h3", {}, records.length > 1 ? "Records" : "Record"), tabs, place] : null);
  if (records.length) choose(records[0]);
  if (!keepHash) history.replaceState(null, "", "#cell=" + index);
}
function show(title, subtitle, ...content) {
  const panel = $("panel");
  panel.replaceChildren(h("div", { class: "bar" }, h("h2", {}, title, h("p", {}, subtitle)), h("button", { class: "quiet", type: "button", id: "close", click: () => panel.close() }, "Close")), h("div", { class: "inner" }, content));
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
}
$("panel").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
$("panel").addEventListener("click", (e) => { if (e.target === $("panel")) $("panel").close(); });

/** The column of a number: intervals of the baseline and the rows around it, this one in colour. */
const NEAR = 24;
function forest(index) {
  const row = D.rows.find((r) => r.cells.includes(index));
  if (!row) return null;
  const column = row.cells.indexOf(index);
  const all = D.rows.map((r) => ({ r, c: D.cells[r.cells[column]] })).filter((x) => x.c.mean !== undefined);
  if (all.length < 2) return null;
  const me = all.findIndex((x) => x.r === row), first = Math.max(0, Math.min(me - NEAR / 2, all.length - NEAR)), near = all.slice(first, first + NEAR);
  const base = all.filter((x) => x.c.verdict === "baseline" && !near.includes(x));
  const shown = [...base, ...near];
  const ends = shown.flatMap(({ c }) => [c.low ?? c.mean, c.high ?? c.mean]);
  const lo = Math.min(...ends), hi = Math.max(...ends), span = hi - lo || 1, left = 190, width = 700, right = 60;
  const x = (v) => left + ((v - lo) / span) * (width - left - right);
  const svg = h("svg", { class: "forest", viewBox: `0 0 ${width} ${shown.length * 22 + 8}`, role: "img", "aria-label": "Rows of this column" });
  shown.forEach(({ r, c }, n) => {
    const y = n * 22 + 14, me = D.cells[index] === c, colour = me ? "var(--accent)" : c.verdict === "baseline" ? "var(--ink)" : "var(--faint)";
    svg.append(h("text", { x: 0, y: y + 4, class: me ? "me" : null }, r.levels.map(named).join(" · ").slice(0, 32)),
      h("line", { x1: left, x2: width - right, y1: y, y2: y, stroke: "var(--hair)" }),
      c.low !== null ? h("line", { x1: x(c.low), x2: x(c.high), y1: y, y2: y, stroke: colour, "stroke-width": me ? 2.5 : 1.5 }) : "",
      h("circle", { cx: x(c.mean), cy: y, r: me ? 4.5 : 3.5, fill: colour }), h("text", { x: width, y: y + 4, "text-anchor": "end", class: me ? "me" : null }, c.value));
  });
  return [svg, shown.length < all.length ? h("p", { class: "notes" }, `${shown.length} of ${all.length} rows.`) : null];
}

/* ---- one record ---- */
function copyable(text) {
  const b = h("button", { class: "quiet", type: "button", click: async () => { try { await navigator.clipboard.writeText(text); b.textContent = "Copied"; } catch { getSelection().selectAllChildren(b.previousSibling); b.textContent = "Selected"; } setTimeout(() => (b.textContent = "Copy"), 1500); } }, "Copy");
  return h("div", { class: "copy" }, h("pre", {}, text), b);
}
function table(rows, differs) {
  return h("table", { class: "kv" }, h("tbody", {}, rows.map(([k, v]) => h("tr", { class: differs && differs(k) ? "differs" : null }, h("td", {}, k), h("td", {}, typeof v === "object" && v !== null ? JSON.stringify(v) : String(v))))));
}
async function drawRecord(light, cell) {
  const all = await details(), record = { ...light, ...all.records[light.index] };
  const config = { ...all.config, ...record.config };
  for (const k of record.without) delete config[k];
  const own = Object.entries(record.config).concat(record.without.map((k) => [k, "(absent)"]));
  const provenance = all.provenance[record.provenance];
  return [
    record.status !== "ok" ? h("p", { class: "verdict refuted" }, record.reason) : null,
    h("h3", {}, "Reproduce"), copyable(record.command),
    h("h3", {}, "Where it comes from"),
    table([["cell", record.id], ...Object.entries(provenance), ["started", record.started], ["finished", record.finished]]),
    own.length ? [h("h3", {}, "Config, where it differs from most records"), table(own)] : null,
    h("details", {}, h("summary", {}, `Whole config (${Object.keys(config).length} keys)`), table(Object.entries(config), (k) => k in record.config)),
    h("details", {}, h("summary", {}, "Overrides"), h("pre", {}, record.overrides.join("\n"))),
    h("details", {}, h("summary", {}, "Measured facts"), table(Object.entries(record.facts))),
    h("details", {}, h("summary", {}, `Stages (${record.stages.length})`), table(record.stages.map(([name, key, how]) => [name, `${how}   ${key}`]))),
    drawSamples(await samples(), record, cell),
  ];
}
function drawSamples(found, record, cell) {
  const names = Object.keys(found).filter((n) => found[n].by[record.index]);
  if (!names.length) return null;
  const wanted = names.find((n) => D.metrics[cell.metric] && D.metrics[cell.metric].name.startsWith(n + ".")) || names[0];
  const base = D.records.find((r) => r.seed === record.seed && r.id !== record.id && Object.entries(D.baseline).every(([f, v]) => r.levels[f] === v)) || D.records.find((r) => r.id !== record.id && r.seed === record.seed) || D.records.find((r) => r.id !== record.id);
  const others = D.records.filter((r) => r.id !== record.id && found[wanted].by[r.index]);
  const task = h("select", { "aria-label": "Task", change: () => draw() }, names.map((n) => h("option", { value: n, selected: n === wanted }, n)));
  const other = h("select", { id: "other", "aria-label": "Compare with", change: () => draw() }, others.map((r) => h("option", { value: r.index, selected: base && r.index === base.index }, `${levelsText(r.levels)}, seed ${r.seed}`)));
  const place = h("div", { id: "pairs" });
  const side = (r, item, set) => {
    const answer = r && set.by[r.index] && set.by[r.index][item];
    const scores = answer ? Object.entries(answer.scores).map(([k, v]) => h("span", { class: v === 1 ? "right" : v === 0 ? "wrong" : null }, ` ${k} ${short(v)}`)) : [];
    return h("div", {}, h("h4", {}, h("b", {}, r ? levelsText(r.levels) : "–"), r ? `, seed ${r.seed}` : "", scores), answer && answer.answer !== null ? h("pre", {}, answer.answer) : h("p", { class: "notes" }, answer ? "no text kept" : "not scored"));
  };
  const draw = () => {
    const set = found[task.value], second = D.records[+other.value];
    place.replaceChildren(...set.items.map((item, i) => h("div", { class: "pair" }, h("h4", {}, `Item ${item.doc}`), h("pre", {}, item.prompt), item.target ? h("h4", { style: "margin-top:8px" }, "Target: " + item.target) : null, h("div", { class: "sides" }, side(record, i, set), side(second, i, set)))));
  };
  draw();
  return h("div", { id: "samples" }, h("h3", {}, "Samples, side by side"), h("div", { class: "row" }, task, others.length ? ["against", other] : null), place);
}

/* ---- records ---- */
let recordSort = null;
const numeric = (name) => (["seconds", "seed", "stages run"].includes(name) ? "n" : null);
function drawRecords() {
  const factors = Object.keys(D.factors);
  const columns = [...factors.map((f) => [named(f), (r) => named(r.levels[f])]), ["seed", (r) => r.seed], ["outcome", (r) => (r.status === "ok" ? "ok" : r.reason)], ["stages run", (r) => r.run], ["seconds", (r) => r.seconds], ["cell", (r) => r.id]];
  const rows = [...D.records];
  if (recordSort) rows.sort((a, b) => { const x = columns[recordSort[0]][1](a), y = columns[recordSort[0]][1](b); return (x < y ? -1 : x > y ? 1 : 0) * recordSort[1]; });
  $("records").replaceChildren(
    h("thead", {}, h("tr", {}, columns.map(([name], i) => h("th", { class: numeric(name), "aria-sort": recordSort && recordSort[0] === i ? (recordSort[1] > 0 ? "ascending" : "descending") : null }, h("button", { class: "sort", type: "button", click: () => { recordSort = recordSort && recordSort[0] === i ? [i, -recordSort[1]] : [i, 1]; drawRecords(); } }, name))))),
    h("tbody", {}, rows.map((r) => h("tr", { "data-record": r.id, tabindex: 0, keydown: (e) => e.key === "Enter" && openRecord(r), click: () => openRecord(r) }, columns.map(([name, of]) => h("td", { class: name === "cell" ? "hash" : numeric(name) }, String(of(r))))))));
}
async function openRecord(r) {
  show(levelsText(r.levels), `seed ${r.seed}`, h("h3", {}, "Metrics"), table(Object.entries(r.metrics).map(([k, v]) => [k, v === null ? "NaN" : short(v)])), await drawRecord(r, { metric: 0 }));
  history.replaceState(null, "", "#record=" + r.id);
}

/* ---- any two metrics against each other ---- */
function drawScatter() {
  const names = [...new Set(D.records.flatMap((r) => Object.keys(r.metrics)))];
  if (names.length < 2 || D.records.length < 2) return;
  const shown = D.metrics.map((m) => m.name).filter((n) => names.includes(n));
  const known = (n) => D.metrics.find((m) => m.name === n) || { label: n, unit: "", scale: 1 };
  const label = (n) => known(n).label + (known(n).unit ? ` (${known(n).unit})` : "");
  const pick = (id, text, value) => h("select", { id, "aria-label": text, change: () => draw() }, [...new Set([...shown, ...names])].map((n) => h("option", { value: n, selected: n === value }, label(n))));
  const first = shown[0] || names[0], up = pick("up", "Vertical axis", first), across = pick("across", "Horizontal axis", shown[1] || names.find((n) => n !== first));
  const place = h("div", { class: "plot" });
  const spread = (values) => ({ mean: values.reduce((a, b) => a + b) / values.length, low: Math.min(...values), high: Math.max(...values) });
  const draw = () => {
    const axes = [across.value, up.value], groups = new Map();
    for (const r of D.records) {
      const at = axes.map((n) => r.metrics[n]);
      if (at.some((v) => v === null || v === undefined)) continue;
      const who = JSON.stringify(r.levels);
      groups.set(who, [...(groups.get(who) || []), at.map((v, k) => v * known(axes[k]).scale)]);
    }
    const points = [...groups].map(([who, all]) => ({ name: levelsText(JSON.parse(who)), at: [0, 1].map((k) => spread(all.map((p) => p[k]))) }));
    const W = 1000, H = 420, left = 80, right = 20, top = 24, bottom = 46;
    const axis = (k, from, to) => {
      const ends = spread(points.flatMap((p) => [p.at[k].low, p.at[k].high])), pad = (ends.high - ends.low || Math.abs(ends.high) || 1) * 0.05, lo = ends.low - pad, hi = ends.high + pad;
      return { ticks: [0, 1, 2, 3, 4].map((i) => lo + (i / 4) * (hi - lo)), of: (v) => from + ((v - lo) / (hi - lo)) * (to - from) };
    };
    if (!points.length) return place.replaceChildren(h("p", { class: "notes" }, "No record has both."));
    const x = axis(0, left, W - right), y = axis(1, H - bottom, top);
    const svg = h("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${label(axes[1])} against ${label(axes[0])}` },
      x.ticks.map((v) => [h("line", { x1: x.of(v), x2: x.of(v), y1: top, y2: H - bottom, stroke: "var(--hair)" }), h("text", { x: x.of(v), y: H - bottom + 16, "text-anchor": "middle" }, short(v))]),
      y.ticks.map((v) => [h("line", { x1: left, x2: W - right, y1: y.of(v), y2: y.of(v), stroke: "var(--hair)" }), h("text", { x: left - 8, y: y.of(v) + 4, "text-anchor": "end" }, short(v))]),
      h("text", { x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle", class: "me" }, label(axes[0])), h("text", { x: 4, y: 12, class: "me" }, label(axes[1])));
    for (const { name, at: [a, b] } of points) {
      const px = x.of(a.mean), py = y.of(b.mean), line = { stroke: "var(--accent)", opacity: 0.5 };
      svg.append(h("g", { class: "point", tabindex: 0 }, h("title", {}, `${name}: ${short(a.mean)}, ${short(b.mean)}`),
        h("line", { x1: x.of(a.low), x2: x.of(a.high), y1: py, y2: py, ...line }), h("line", { x1: px, x2: px, y1: y.of(b.low), y2: y.of(b.high), ...line }),
        h("circle", { cx: px, cy: py, r: 5, fill: "var(--accent)" }), points.length <= 20 && h("text", { x: px + 7, y: py - 6 }, name)));
    }
    place.replaceChildren(svg);
  };
  draw();
  $("scatter").append(h("h2", {}, "Any two metrics"), h("div", { class: "row" }, up, "against", across), place, h("p", { class: "notes" }, "A point is the mean of a configuration over its seeds, its lines their range; the pointer names it."));
}

/* ---- theme ---- */
function theme(next) {
  document.documentElement.dataset.theme = next;
  $("theme").textContent = next === "dark" ? "Light" : "Dark";
}
$("theme").addEventListener("click", () => theme($("theme").textContent === "Dark" ? "dark" : "light"));
if (matchMedia("(prefers-color-scheme: dark)").matches) $("theme").textContent = "Light";

matchMedia("print").addEventListener("change", drawGrid);
drawTools(); drawGrid(); drawRecords(); drawScatter();
(window.requestIdleCallback || setTimeout)(() => { details(); samples(); });
const [kind, value] = location.hash.slice(1).split("=");
if (kind === "cell" && D.cells[+value]) open(+value, true);
if (kind === "record") { const r = D.records.find((x) => x.id === value); if (r) openRecord(r); }
