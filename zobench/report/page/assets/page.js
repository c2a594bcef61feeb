// The page: its state, the controls that change it, and what is drawn again when it changes.

const first = (preferred, there, ...others) => [preferred, ...others].find((key) => there.includes(key)) ?? there[0];
const tasks = [...new Set(RUNS.map((run) => run.choices.task ?? "-"))];
const state = {
  x: first(DATA.first.x, DATA.axes, "cost/forwards"),
  y: first(DATA.first.y, DATA.metrics, "dev/accuracy", "dev/loss", "train/loss"),
  group: DATA.groups[0] ?? "setting",
  task: tasks[0],
  mean: true, selected: true, smooth: 0, logX: false, logY: false, filter: "", hidden: new Set(),
};
const figure = $("figure.chart"), chart = new Chart(figure);
const legend = new Legend($("aside.legend"), state, changed);
const list = new RunList($("#runs"), state, changed);
const rates = new Rates($("#rates"), state), parallel = new Parallel($("#parallel"), state, list);
const comparison = new Comparison($("#compare"), state);
let waiting = false;

// Draw once per frame, however many changes there were.
function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; redraw(); rates.draw(); parallel.draw(); list.update(); });
}

function redraw() {
  if (!DATA.metrics.length) {
    $(".empty", figure).textContent = "No curves yet: no run has written a metric.";
    chart.draw([], state);
    return;
  }
  const eligible = RUNS.filter((run) => matches(run, state.filter) && (tasks.length < 2 || run.choices.task === state.task)
    && (!state.selected || run.selected) && state.y in run.y);
  const groups = new Map();
  for (const run of eligible) {
    const name = value(run, state.group);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(run);
  }
  const order = [...groups.keys()];
  const lines = makeLines(eligible.filter((run) => !state.hidden.has(run.id)), state);
  for (const line of lines) line.index = order.indexOf(line.group);
  $(".empty", figure).textContent = !eligible.length ? `No run with ${state.y} matches.`
    : lines.length ? "Nothing above zero to show on a logarithmic axis." : "All runs are hidden.";
  $("#choose-mean").disabled = state.group === "run";
  chart.groups = groups.size;
  chart.draw(lines, state);
  legend.draw(groups, lines);
  $(".reading").textContent = reading(lines);
}

// One sentence on what a line is.
function reading(lines) {
  if (!lines.length) return "";
  const parts = [state.mean && state.group !== "run" ? "A line is the mean over the finished seeds of one setting, its band one sample standard deviation." : "A line is one run."];
  if (lines.some((line) => line.broken)) parts.push("Dotted: not finished; a cross is where a run diverged.");
  if (state.smooth) parts.push(`Every run is smoothed by a moving average of weight ${state.smooth}.`);
  parts.push("The legend says where a line ends.");
  return parts.join(" ");
}

function segments(title, name, options, key) {
  const radios = options.map(([option, text]) => el("label", {}, el("input", { type: "radio", name, value: String(option), checked: String(state[key]) === String(option), onchange: () => { state[key] = option; changed(); } }), el("span", {}, text)));
  return el("fieldset", { class: "field whole", id: `choose-${key}` }, el("legend", {}, title), el("div", { class: "segments" }, ...radios));
}

function choice(title, options, key) {
  const select = el("select", { id: `choose-${key}`, onchange: (event) => { state[key] = event.target.value; changed(); } }, ...options.map((option) => el("option", { value: option, selected: option === state[key] }, option)));
  return el("label", { class: "field" }, title, select);
}

function tick(text, key) {
  return el("label", {}, el("input", { type: "checkbox", id: `tick-${key}`, checked: state[key], onchange: (event) => { state[key] = event.target.checked; changed(); } }), text);
}

function controls() {
  const amount = el("output", {}, "0");
  const slider = el("input", { type: "range", id: "smooth", min: 0, max: 0.98, step: 0.02, value: 0, oninput: (event) => { state.smooth = Number(event.target.value); amount.textContent = event.target.value; changed(); } });
  const several = RUNS.some((run) => !run.selected);
  $(".controls").append(
    choice("Metric", DATA.metrics, "y"),
    segments("Against", "x", DATA.axes.map((key) => [key, AXIS_NAMES[key][0]]), "x"),
    tasks.length > 1 ? choice("Task", tasks, "task") : "",
    choice("Group by", [...DATA.groups, "setting", "run"], "group"),
    segments("Lines", "mean", [[true, "mean over seeds"], [false, "single runs"]], "mean"),
    el("label", { class: "field" }, el("span", {}, "Smoothing ", amount), slider),
    el("div", { class: "ticks" }, tick("log y", "logY"), tick("log x", "logX"), several ? tick("only settings that dev selects", "selected") : ""),
    el("label", { class: "field whole" }, "Filter runs", el("input", { type: "search", placeholder: "mezo lr=0.001", autocomplete: "off", spellcheck: "false" })),
    el("span", { class: "saves" }, csvSaver("curves", () => chart.table()), svgSaver("curves", () => [chart.svg, legend.entries()])),
  );
}

// Sort a table of the page by a column: by the first number in a cell, or by its text.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => $("button", head).addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : column > 0;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => {
      const text = row.cells[column].textContent.trim();
      const leading = column ? Number.parseFloat(text) : Number.NaN;
      return [column ? (Number.isNaN(leading) ? null : leading) : text];
    };
    const rows = []; // with the lines that stand under a row
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("under") && rows.length) rows.at(-1)[1].push(row);
      else rows.push([key(row), [row]]);
    }
    rows.sort((a, b) => compare(a[0], b[0], descending));
    table.tBodies[0].append(...rows.flatMap(([, lines]) => lines));
  }));
}

// A section is named by its address, and a run by #run-ID, which opens it.
function visited() {
  const run = RUNS.find(({ id }) => location.hash === `#run-${id}`);
  if (run) list.visit(run);
}

if (DATA.metrics.length) controls();
else $("aside.legend").hidden = true;
drawFailures($("#failures"), list);
for (const section of document.querySelectorAll("main > section")) {
  $("h2", section).append(el("a", { class: "anchor", href: `#${section.id}`, "aria-label": "link to this section" }));
}
comparison.draw();
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
if ($("#table table")) $("#table").insertBefore(el("p", { class: "below saves" }, saver("CSV", "table.csv", "text/csv", () => DATA.csv)), $("#table .notes"));
// A mark in the table leads to a note that may be folded away.
for (const link of document.querySelectorAll("sup a")) {
  link.addEventListener("click", () => { for (let box = $(link.getAttribute("href")).closest("details"); box; box = box.parentNode.closest("details")) box.open = true; });
}
// On paper nothing can be opened.
addEventListener("beforeprint", () => { for (const box of document.querySelectorAll("details.notes, details.more-table")) box.open = true; });
// The filter above the chart and the one above the list are the same.
const filters = [...document.querySelectorAll("input[type=search]")];
for (const input of filters) {
  input.addEventListener("input", () => {
    state.filter = input.value.trim();
    for (const other of filters) if (other !== input) other.value = input.value;
    changed();
  });
}
new ResizeObserver(() => changed()).observe(figure);
addEventListener("hashchange", visited);
changed();
visited();
