// The list of runs, what is in each, and the failures. Details are made when a run is opened.

const has = (key) => RUNS.some((run) => key in run.numbers);
const known = [...new Set(RUNS.flatMap((run) => Object.keys(run.numbers)))].sort();
const HEADLINES = [
  ...["test/", "dev/"].flatMap((part) => known.filter((key) => key.startsWith(part) && SHARES.has(key)).concat(known.filter((key) => key.startsWith(part) && !SHARES.has(key) && key !== `${part}loss`))),
  "dev/loss", "cost/forwards", "time/train_s", "memory/peak_gib",
].filter(has).slice(0, 6);
const SHORT = { "cost/forwards": "forwards", "time/train_s": "train s", "memory/peak_gib": "peak GiB" };
const heading = (key) => SHORT[key] ?? (unit(key) ? `${key} ${unit(key)}` : key);
const RANK = { failed: 0, diverged: 1, unfinished: 2, done: 3 };

class RunList {
  constructor(section, state, changed) {
    Object.assign(this, { section, state, changed, rows: new Map() });
    this.body = el("tbody");
    for (const run of RUNS) this.rows.set(run.id, this.row(run));
    const head = (name, figure, by) => el("th", { scope: "col", class: figure ? "figure" : null }, el("button", { type: "button", onclick: (event) => this.sort(event.currentTarget.parentNode, by, figure) }, name));
    const heads = [head("run", false, (run) => [run.label, run.seed]), head("status", false, (run) => [RANK[run.status] ?? 9]),
      ...HEADLINES.map((key) => head(heading(key), true, (run) => [run.numbers[key] ?? null]))];
    this.body.append(...[...this.rows.values()].map((row) => row.node));
    $(".list-head", section).append(csvSaver("runs", () => this.table()));
    $(".list", section).append(el("table", {}, el("thead", {}, el("tr", {}, ...heads, el("th", { scope: "col" }, "curve"))), this.body), (this.none = el("p", { class: "empty", hidden: true }, "No run matches the filter.")));
  }

  row(run) {
    const id = `run-${run.id}`;
    const open = el("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": `${id}-body`, onclick: () => this.toggle(run) },
      el("span", { class: "name" }, value(run, "run"), run.best ? el("span", { class: "star" }, tasks.length > 1 ? `best on dev of ${run.choices.task}` : "best on dev") : null));
    const eye = el("button", { type: "button", class: "eye", "aria-pressed": "true", "aria-label": `curve of ${value(run, "run")}`, onclick: () => this.hide(run) }, "shown");
    const curved = Object.keys(run.y).length > 0;
    const status = el("td", { class: "plain status" }, el("i", { class: `mark ${run.status}`, "aria-hidden": "true" }), run.status);
    const node = el("tr", { class: "run", id, "data-status": run.status }, el("th", { scope: "row" }, open), status,
      ...HEADLINES.map((key) => el("td", { class: "figure", "data-head": heading(key) }, key in run.numbers ? number(key, run.numbers[key]) : "–")),
      el("td", { class: "plain" }, curved ? eye : el("span", { class: "spread" }, "none")));
    return { run, node, open, eye, body: null };
  }

  // The runs that match the filter, as the lines of a CSV file.
  table() {
    const settings = [...new Set(RUNS.flatMap((run) => Object.keys(run.config)))].sort();
    const choices = Object.keys(RUNS[0].choices);
    const runs = RUNS.filter((run) => matches(run, this.state.filter));
    return [["folder", "id", "setting", "seed", "status", "selected", "best", ...choices, ...settings, ...known],
      ...runs.map((run) => [run.folder, run.id, run.setting, run.seed, run.status, run.selected, run.best, ...choices.map((key) => run.choices[key]), ...settings.map((key) => run.config[key]), ...known.map((key) => run.numbers[key])])];
  }

  hide(run) {
    if (!this.state.hidden.delete(run.id)) this.state.hidden.add(run.id);
    this.changed();
  }

  toggle(run, force) {
    const row = this.rows.get(run.id);
    const show = force ?? row.open.getAttribute("aria-expanded") === "false";
    row.open.setAttribute("aria-expanded", show);
    if (show && !row.body) {
      row.body = el("tr", { class: "body-row", id: `run-${run.id}-body` }, el("td", { class: "body", colspan: HEADLINES.length + 3 }, details(run)));
      row.node.after(row.body);
    }
    if (row.body) row.body.hidden = !show;
  }

  // Open a run from elsewhere on the page and go there.
  visit(run) {
    if (!matches(run, this.state.filter)) { this.state.filter = ""; this.changed(); }
    this.toggle(run, true);
    const row = this.rows.get(run.id);
    row.open.focus({ preventScroll: true });
    row.node.scrollIntoView({ block: "start" });
  }

  sort(head, by, figure) {
    const before = head.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : figure;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...this.rows.values()];
    rows.sort((a, b) => compare(by(a.run), by(b.run), descending));
    this.body.append(...rows.flatMap((row) => (row.body ? [row.node, row.body] : [row.node])));
  }

  // After a change of the filter or of what is hidden.
  update() {
    let count = 0;
    for (const { run, node, body, open, eye } of this.rows.values()) {
      const match = matches(run, this.state.filter);
      count += match;
      node.hidden = !match;
      if (body) body.hidden = !match || open.getAttribute("aria-expanded") === "false";
      const shown = !this.state.hidden.has(run.id);
      eye.setAttribute("aria-pressed", shown);
      eye.textContent = shown ? "shown" : "hidden";
    }
    this.none.hidden = count > 0;
    $(".count", this.section).textContent = count === RUNS.length ? plural(count, "run") : `${count} of ${plural(RUNS.length, "run")}`;
  }
}

// Numbers by size, words by letter; what is missing comes last in both directions.
function compare(a, b, descending) {
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    if (a[i] === null || b[i] === null) return a[i] === null ? 1 : -1;
    const sign = typeof a[i] === "number" ? a[i] - b[i] : a[i].localeCompare(b[i], "en", { numeric: true });
    if (sign) return descending ? -sign : sign;
  }
  return 0;
}

function pairs(content, write = (_, v) => plain(v)) {
  const keys = Object.keys(content);
  return el("table", { class: "pairs" }, el("tbody", {}, ...keys.map((key) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, write(key, content[key]))))));
}

function details(run) {
  const pane = (title, content, across = false) => el("div", { class: across ? "across" : null }, el("h3", {}, title), content);
  const panes = [];
  if (run.reason) panes.push(pane(run.status, el("p", {}, run.reason), true));
  if (run.log) panes.push(pane("End of stderr.log", el("pre", { class: "log", tabindex: 0 }, run.log), true));
  const own = Object.keys(run.config).length;
  const all = { ...DATA.settings, ...run.config };
  const rest = lazy(`All ${Object.keys(all).length} settings`, () => pairs(Object.fromEntries(Object.entries(all).sort())));
  panes.push(pane("Settings that differ between runs", el("div", {}, own ? pairs(run.config) : el("p", {}, "None: all runs have the same settings."), rest)));
  const facts = { folder: run.folder, "first written": run.begun && `${run.begun} UTC`, "last written": run.ended && `${run.ended} UTC`, ...DATA.environment, ...run.environment };
  const numbers = Object.keys(run.numbers).length ? pairs(run.numbers, (key, v) => number(key, v) + (unit(key) ? ` ${unit(key)}` : "")) : el("p", {}, "None: the run has no result.");
  const link = el("p", {}, el("a", { href: `#run-${run.id}` }, "Link to this run"));
  panes.push(el("div", {}, el("h3", {}, "Results"), numbers, lazy("Choices", () => pairs(run.choices)), lazy("Environment", () => pairs(facts)), link));
  return el("div", { class: "panes" }, ...panes);
}

// A closed box whose content is made when it is first opened.
function lazy(title, make) {
  const box = el("details", {}, el("summary", {}, title));
  box.addEventListener("toggle", () => box.open && box.children.length === 1 && box.append(make()));
  return box;
}

// What did not end well, alike ones together, each with the end of a log.
function drawFailures(section, list) {
  const alike = new Map();
  for (const run of RUNS) {
    if (run.status === "done") continue;
    const key = `${run.status}\n${run.reason}`;
    if (!alike.has(key)) alike.set(key, []);
    alike.get(key).push(run);
  }
  const groups = [...alike.values()].sort((a, b) => (RANK[a[0].status] ?? 9) - (RANK[b[0].status] ?? 9));
  section.hidden = !groups.length;
  const waiting = groups.some((runs) => runs[0].status === "unfinished");
  const lost = groups.some((runs) => runs[0].status !== "unfinished");
  $("h2", section).textContent = [lost && "failures", waiting && "unfinished runs"].filter(Boolean).join(" and ").replace(/^./, (c) => c.toUpperCase());
  for (const runs of groups) {
    const { status, reason } = runs[0];
    const link = (run) => el("button", { type: "button", onclick: () => list.visit(run) }, value(run, "run"));
    const who = runs.slice(0, 6).flatMap((run, i) => (i ? ["; ", link(run)] : [link(run)]));
    const logged = runs.find((run) => run.log);
    $("ul", section).append(el("li", { class: status },
      el("p", { class: "why" }, el("i", { class: `mark ${status}`, "aria-hidden": "true" }), `${status}${reason ? `: ${reason}` : ""}`),
      el("p", { class: "who" }, runs.length > 1 ? `${runs.length} runs: ` : "", ...who, runs.length > 6 ? ` and ${runs.length - 6} more` : ""),
      logged ? lazy(runs.length > 1 ? `End of the log of ${value(logged, "run")}` : "End of the log", () => el("pre", { class: "log", tabindex: 0 }, logged.log)) : null));
  }
}
