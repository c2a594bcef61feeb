// A metric of the results against a setting that is a number, such as the learning rate: a panel per task.

const setting = (run, key) => (key in run.config ? run.config[key] : DATA.settings[key]);
const seedlike = (key) => /(^|\.)seed$/.test(key);
const TUNED = [...new Set(RUNS.flatMap((run) => Object.keys(run.config)))].filter((key) => {
  const found = RUNS.map((run) => setting(run, key)).filter((v) => v !== undefined);
  return !seedlike(key) && found.every((v) => typeof v === "number") && new Set(found).size > 1;
}).sort();
const SCORES = known.filter((key) => /^(dev|test)\//.test(key));
const PRESENT = [...new Set(RUNS.map((run) => value(run, DATA.groups[0] ?? "setting")))]; // colours of the first choice
const shade = (run) => PRESENT.indexOf(value(run, DATA.groups[0] ?? "setting"));
const keys = () => el("ul", { class: "keys" }, ...PRESENT.map((name, i) => el("li", {}, swatch(i), name)));
const shades = () => PRESENT.map((name, i) => [name, colour(i), dash(i)]);

// Runs of one setting and task, with the mean of a number over those that have it.
function bundles(runs) {
  const found = new Map();
  for (const run of runs) {
    const key = `${run.setting}\n${run.choices.task}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(run);
  }
  return [...found.values()];
}

function mean(runs, key) {
  const values = runs.filter((run) => run.status === "done" && key in run.numbers).map((run) => run.numbers[key]);
  if (!values.length) return null;
  const middle = values.reduce((a, b) => a + b, 0) / values.length;
  const std = values.length > 1 ? Math.sqrt(values.reduce((a, b) => a + (b - middle) ** 2, 0) / (values.length - 1)) : null;
  return { mean: middle, std, n: values.length };
}

const written = (key, { mean: middle, std }) => number(key, middle) + (std === null ? "" : ` ± ${number(key, std)}`);

// What tells a run from the others, for tooltips.
function telling(runs, ...more) {
  const keys = [...new Set([...DATA.groups, ...more])];
  const seeds = [...new Set(runs.map((run) => run.seed))].sort((a, b) => a - b);
  const rows = [...keys.map((key) => [key, value(runs[0], key)]), [seeds.length > 1 ? "seeds" : "seed", seeds.join(", ")]];
  return el("dl", { class: "telling" }, ...rows.map(([key, text]) => el("div", {}, el("dt", {}, key), el("dd", {}, text))));
}

// A box near a point of a figure; content: its nodes.
function showTip(tip, figure, x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  tip.style.left = `${x + 14 + tip.offsetWidth <= figure.clientWidth ? x + 14 : Math.max(0, x - 14 - tip.offsetWidth)}px`;
  tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, figure.clientHeight - tip.offsetHeight))}px`;
}

class Rates {
  constructor(section, state) {
    Object.assign(this, { section, state });
    section.hidden = !TUNED.length || !SCORES.length;
    if (section.hidden) return;
    this.x = first("optimizer.lr", TUNED);
    this.y = first("dev/accuracy", SCORES, "dev/loss");
    const select = (title, options, key) => el("label", { class: "field" }, title, el("select", { id: `rates-${key}`, onchange: (event) => { this[key] = event.target.value; this.draw(); } }, ...options.map((option) => el("option", { value: option, selected: option === this[key] }, option))));
    $(".controls", section).append(select("Metric", SCORES, "y"), select("Against", TUNED, "x"),
      el("span", { class: "saves" }, csvSaver("settings", () => this.lines())));
    section.insertBefore(keys(), $(".panels", section));
  }

  lines() {
    const all = RUNS.filter((run) => this.x in run.config || this.x in DATA.settings);
    return [["task", ...DATA.groups, "seed", "status", this.x, this.y], ...all.map((run) => [run.choices.task, ...DATA.groups.map((key) => value(run, key)), run.seed, run.status, setting(run, this.x), run.numbers[this.y]])];
  }

  draw() {
    if (this.section.hidden) return;
    const shown = RUNS.filter((run) => matches(run, this.state.filter) && !this.state.hidden.has(run.id) && typeof setting(run, this.x) === "number");
    const panels = tasks.map((task) => [task, shown.filter((run) => (run.choices.task ?? "-") === task)]).filter(([, runs]) => runs.length);
    const place = $(".panels", this.section);
    const figures = panels.map(([task]) => {
      const figure = el("figure", { class: "panel" }, el("figcaption", {}, el("span", {}, tasks.length > 1 ? task : titled(this.y)), svgSaver(`settings-${task}`, () => [$(":scope > svg", figure), shades()])));
      return figure;
    });
    place.replaceChildren(...figures);  // all of them before the first is drawn: a panel's width depends on their number
    panels.forEach(([task, runs], i) => this.panel(figures[i], task, runs));
    if (!panels.length) place.append(el("p", { class: "empty" }, "No run matches."));
  }

  panel(figure, task, runs) {
    const { x: xKey, y: yKey } = this;
    const ended = (some) => some.some((run) => run.status === "diverged");
    const points = bundles(runs).map((some) => ({ runs: some, x: setting(some[0], xKey), found: mean(some, yKey) })).filter((point) => point.found || ended(point.runs));
    const good = points.filter((point) => point.found);
    const [width, height] = [figure.clientWidth, 240];
    const positive = points.every((point) => point.x > 0);
    const logX = positive && Math.max(...points.map((p) => p.x)) / Math.min(...points.map((p) => p.x)) >= 8;
    const spans = good.flatMap(({ found }) => [found.mean - (found.std ?? 0), found.mean + (found.std ?? 0)]);
    if (!spans.length) { figure.append(el("p", { class: "empty" }, `No finished run has ${yKey}.`)); return; }
    const frame = { left: 46, right: width - 12, top: 8, bottom: height - 40 };
    const across = scale(...range(points.map((p) => p.x), { log: logX, room: 0.06 }), frame.left, frame.right, logX);
    const up = scale(...range(spans, { share: SHARES.has(yKey), room: 0.08 }), frame.bottom, frame.top, false);
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${titled(yKey)} against ${xKey}${tasks.length > 1 ? `, ${task}` : ""}: ${plural(good.length, "setting")}` });
    const grid = el("g", { class: "grid" });
    for (const v of ticks(up.low, up.high, 5, false)) grid.append(el("line", { x1: frame.left, x2: frame.right, y1: up.of(v), y2: up.of(v) }), el("text", { x: frame.left - 8, y: up.of(v) + 4, "text-anchor": "end" }, tickText(yKey, v)));
    for (const v of ticks(across.low, across.high, Math.max(3, Math.floor(width / 90)), logX)) grid.append(el("line", { class: "base", x1: across.of(v), x2: across.of(v), y1: frame.bottom, y2: frame.bottom + 5 }), el("text", { x: across.of(v), y: frame.bottom + 18, "text-anchor": "middle" }, String(v)));
    grid.append(el("line", { class: "base", x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom }), el("text", { class: "x-title", x: (frame.left + frame.right) / 2, y: frame.bottom + 36, "text-anchor": "middle" }, xKey));
    svg.append(grid);
    // A line connects settings that differ in nothing but x.
    const lines = new Map();
    for (const point of good) {
      const rest = Object.entries(point.runs[0].config).filter(([key]) => key !== xKey && !seedlike(key));
      const key = JSON.stringify([point.runs[0].choices, rest]);
      if (!lines.has(key)) lines.set(key, []);
      lines.get(key).push(point);
    }
    for (const line of lines.values()) {
      line.sort((a, b) => a.x - b.x);
      const index = shade(line[0].runs[0]);
      const style = `stroke: ${colour(index)}`;
      svg.append(el("path", { class: "line", d: `M${line.map((p) => `${across.of(p.x).toFixed(1)},${up.of(p.found.mean).toFixed(1)}`).join("L")}`, style, "stroke-dasharray": dash(index) || null }));
      for (const { runs: some, x, found } of line) {
        const [cx, cy] = [across.of(x), up.of(found.mean)];
        if (found.std) svg.append(el("line", { class: "spread-bar", x1: cx, x2: cx, y1: up.of(found.mean - found.std), y2: up.of(found.mean + found.std), style }));
        svg.append(el("circle", { class: "dot", cx, cy, r: 3.5, style: `fill: ${colour(index)}`, "data-runs": some.map((run) => run.id).join(" ") }));
        if (some.some((run) => run.selected) && good.length > 1) svg.append(el("circle", { class: "ring", cx, cy, r: 7, style: `${style}; fill: none` }));
      }
    }
    for (const { runs: some, x } of points) {
      if (!ended(some)) continue;
      svg.append(el("path", { class: "line", d: `M${across.of(x) - 4},${frame.bottom - 10}l8,8m0,-8l-8,8`, style: `stroke: ${colour(shade(some[0]))}` }));
    }
    const tip = el("div", { class: "tip", hidden: true });
    figure.append(svg, tip);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const far = (p) => Math.hypot(across.of(p.x) - px, up.of(p.found.mean) - py);
      const near = good.reduce((a, b) => (far(b) < far(a) ? b : a));
      const title = `${yKey} ${written(yKey, near.found)} (${near.found.n})`;
      showTip(tip, figure, across.of(near.x), box.top - figure.getBoundingClientRect().top + up.of(near.found.mean), el("p", {}, title), telling(near.runs, xKey));
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
}
