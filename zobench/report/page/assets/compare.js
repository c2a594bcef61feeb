// Rows of the table against one of them, seed by seed: the mean difference with a 95 % interval of Student's t.

class Comparison {
  constructor(section, state) {
    Object.assign(this, { section, state });
    this.rows = [...new Set(RUNS.filter((run) => run.status === "done" && run.row).map((run) => run.row))];
    section.hidden = this.rows.length < 2 || !SCORES.length;
    if (section.hidden) return;
    this.baseline = first(DATA.table.baseline, this.rows, "mezo", "mezo, full");
    this.metric = first(DATA.table.metric, SCORES);
    this.task = tasks[0];
    const select = (title, options, key) => el("label", { class: "field" }, title, el("select", { id: `compare-${key}`, onchange: (event) => { this[key] = event.target.value; this.draw(); } }, ...options.map((option) => el("option", { value: option, selected: option === this[key] }, option))));
    $(".controls", section).append(select("Against", this.rows, "baseline"), select("Metric", SCORES, "metric"), tasks.length > 1 ? select("Task", tasks, "task") : "",
      el("span", { class: "saves" }, csvSaver("compare", () => this.lines())));
  }

  // The selected runs of a row that have the metric, by seed.
  runs(row) {
    const mine = RUNS.filter((run) => run.row === row && run.selected && run.status === "done" && this.metric in run.numbers && (run.choices.task ?? "-") === this.task);
    return new Map(mine.map((run) => [run.seed, run]));
  }

  differences() {
    const reference = this.runs(this.baseline);
    return this.rows.filter((row) => row !== this.baseline).map((row) => {
      const mine = this.runs(row);
      const gaps = [...mine].filter(([seed]) => reference.has(seed)).map(([seed, run]) => run.numbers[this.metric] - reference.get(seed).numbers[this.metric]);
      const n = gaps.length;
      const middle = n ? gaps.reduce((a, b) => a + b, 0) / n : null;
      const std = n > 1 ? Math.sqrt(gaps.reduce((a, b) => a + (b - middle) ** 2, 0) / (n - 1)) : null;
      const half = n > 1 ? (DATA.t95[Math.min(n - 1, DATA.t95.length) - 1] * std) / Math.sqrt(n) : null;
      return { row, own: mean([...mine.values()], this.metric), n, middle, low: half === null ? null : middle - half, high: half === null ? null : middle + half, apart: this.apart([...mine.values()][0], [...reference.values()][0]) };
    }).sort((a, b) => compare([a.middle], [b.middle], !/loss$/.test(this.metric)));
  }

  // The settings in which two runs differ, as [key, one, other].
  apart(one, other) {
    if (!one || !other) return [];
    const keys = [...new Set([...Object.keys(one.config), ...Object.keys(other.config)])].filter((key) => !seedlike(key)).sort();
    return keys.map((key) => [key, value(one, key), value(other, key)]).filter(([, a, b]) => a !== b);
  }

  lines() {
    return [["task", "metric", "row", "baseline", "mean", "difference", "low", "high", "seeds"],
      ...this.differences().map((d) => [this.task, this.metric, d.row, this.baseline, d.own?.mean, d.middle, d.low, d.high, d.n])];
  }

  draw() {
    if (this.section.hidden) return;
    const found = this.differences();
    const ends = found.flatMap((d) => [d.low, d.high, d.middle, 0]);
    const axis = scale(...range(ends, { room: 0.05 }), 6, 174, false);
    const signed = (v) => (v === null ? "–" : (v > 0 ? "+" : "") + (SHARES.has(this.metric) ? (100 * v).toFixed(1) : String(Number(v.toPrecision(3)))).replace("-", "−"));
    const head = ["row", titled(this.metric), `minus ${this.baseline}`, "95 % interval", "", "seeds", "differs in"];
    const rows = found.map((d) => el("tr", {}, el("th", { scope: "row" }, d.row),
      el("td", { class: "figure" }, d.own ? written(this.metric, d.own) : "–"),
      el("td", { class: "figure mean" }, signed(d.middle)),
      el("td", { class: "figure" }, d.low === null ? "–" : `${signed(d.low)} to ${signed(d.high)}`),
      el("td", {}, this.bar(d, axis)), el("td", { class: "figure" }, String(d.n)),
      el("td", {}, d.apart.length ? lazy(plural(d.apart.length, "setting"), () => el("table", { class: "pairs" }, el("tbody", {}, ...d.apart.map(([key, a, b]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, `${a} instead of ${b}`)))))) : "–")));
    $(".wide", this.section).replaceChildren(el("table", { class: "results" }, el("thead", {}, el("tr", {}, ...head.map((text, i) => el("th", { scope: "col", class: i && i !== 4 && i !== 6 ? "figure" : null }, text)))), el("tbody", {}, ...rows)));
  }

  bar(d, axis) {
    if (d.middle === null) return "";
    const side = d.low === null || (d.low <= 0 && d.high >= 0) ? "" : "clear";
    return el("svg", { class: `interval ${side}`, viewBox: "0 0 180 16", width: 180, height: 16, "aria-hidden": "true" },
      el("line", { class: "zero", x1: axis.of(0), x2: axis.of(0), y1: 0, y2: 16 }),
      d.low === null ? null : el("line", { x1: axis.of(d.low), x2: axis.of(d.high), y1: 8, y2: 8 }), el("circle", { cx: axis.of(d.middle), cy: 8, r: 4 }));
  }
}
