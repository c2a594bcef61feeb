// Parallel coordinates: a line per setting, through what it was set to and what came out.

const COSTS = ["cost/forwards", "time/train_s", "memory/peak_gib"];

class Parallel {
  constructor(section, state, list) {
    Object.assign(this, { section, state, list });
    const vary = (key) => new Set(RUNS.map((run) => value(run, key))).size > 1;
    const settings = [...new Set([...DATA.groups, ...TUNED])].filter(vary).slice(0, 6);
    const results = [...SCORES.filter((key) => !/\/loss$/.test(key)), ...SCORES, ...COSTS].filter((key) => new Set(RUNS.map((run) => run.numbers[key])).size > 1);
    this.settings = settings;
    this.keys = [...settings, ...[...new Set(results)].slice(0, 3)];
    section.hidden = !settings.length || this.keys.length < 3;
    if (section.hidden) return;
    section.insertBefore(keys(), $(".coordinates", section));
    $(".saves", section).append(svgSaver("parallel", () => [$(".coordinates svg", section), shades()]));
  }

  axis(key, lines, top, bottom) {
    const values = lines.map((line) => line.at[key]).filter((v) => v !== null);
    const position = (of, ticksOf) => ({ key, of, ticks: ticksOf });
    if (values.length && values.every((v) => typeof v === "number")) {
      const low = Math.min(...values), high = Math.max(...values);
      const log = low > 0 && high / low >= 20;
      const line = scale(...range(values, { log }), bottom, top, log);
      const marks = log || this.settings.includes(key) ? [...new Set(values)].sort((a, b) => a - b) : ticks(line.low, line.high, 5, false);
      return position((v) => line.of(v), marks.filter((_, i) => i % Math.ceil(marks.length / 8) === 0).map((v) => [line.of(v), tickText(key, v)]));
    }
    const names = [...new Set(values.map(String))];
    const place = (v) => (names.length < 2 ? (top + bottom) / 2 : top + ((bottom - top) * names.indexOf(String(v))) / (names.length - 1));
    return position(place, names.filter((_, i) => i % Math.ceil(names.length / 16) === 0).map((name) => [place(name), name.length > 16 ? `${name.slice(0, 15)}…` : name]));
  }

  draw() {
    if (this.section.hidden) return;
    const shown = RUNS.filter((run) => matches(run, this.state.filter) && !this.state.hidden.has(run.id));
    const lines = bundles(shown).map((runs) => {
      const at = Object.fromEntries(this.keys.map((key) => [key, this.settings.includes(key) ? this.chosen(runs[0], key) : (mean(runs, key)?.mean ?? null)]));
      return { runs, at };
    }).filter((line) => this.keys.some((key) => !this.settings.includes(key) && line.at[key] !== null));
    const figure = $("figure", this.section);
    const room = this.keys.length * 120;
    const [width, height] = [Math.max(figure.parentNode.clientWidth, room), 300];
    const axes = this.keys.map((key) => this.axis(key, lines, 34, height - 14));
    const step = (width - 130) / (axes.length - 1);
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${plural(lines.length, "setting")} over ${this.keys.join(", ")}` });
    for (const line of lines) {
      // What is unset or has no number interrupts the line.
      let d = "", open = false;
      axes.forEach((axis, i) => {
        const v = line.at[axis.key];
        if (v === null) { open = false; return; }
        d += `${open ? "L" : "M"}${(20 + i * step).toFixed(1)},${axis.of(v).toFixed(1)}`;
        open = true;
      });
      const best = line.runs.some((run) => run.best);
      line.path = el("path", { class: `line${best ? " best" : ""}`, d, style: `stroke: ${colour(shade(line.runs[0]))}`, "data-runs": line.runs.map((run) => run.id).join(" ") });
      svg.append(line.path);
    }
    axes.forEach((axis, i) => {
      const x = 20 + i * step;
      svg.append(el("g", { class: "grid" }, el("line", { class: "base", x1: x, x2: x, y1: 30, y2: height - 10 }),
        el("text", { class: "x-title", x: Math.max(x, 4), y: 16, "text-anchor": i ? "middle" : "start" }, axis.key),
        ...axis.ticks.map(([y, name]) => el("text", { class: "halo", x: x + 6, y: y + 4 }, name))));
    });
    const tip = el("div", { class: "tip", hidden: true });
    figure.replaceChildren(svg, tip);
    this.read(figure, svg, tip, lines, axes, step);
  }

  chosen(run, key) {
    if (key in run.choices) return run.choices[key];
    return setting(run, key) ?? null;
  }

  read(figure, svg, tip, lines, axes, step) {
    let near = null;
    const clear = () => { near?.path.classList.remove("near"); near = null; tip.hidden = true; svg.classList.remove("hovering"); };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const place = Math.min(Math.max((px - 20) / step, 0), axes.length - 1);
      const i = Math.min(Math.floor(place), axes.length - 2);
      let gap = Infinity, best = null;
      for (const line of lines) {
        const [a, b] = [axes[i], axes[i + 1]].map((axis) => (line.at[axis.key] === null ? null : axis.of(line.at[axis.key])));
        if (a === null || b === null) continue;
        const d = Math.abs(a + (b - a) * (place - i) - py);
        if (d < gap) [gap, best] = [d, line];
      }
      clear();
      if (!best || gap > 40) return;
      near = best;
      svg.classList.add("hovering");
      near.path.classList.add("near");
      const scores = this.keys.filter((key) => !this.settings.includes(key) && near.at[key] !== null);
      showTip(tip, figure, px, py, ...scores.map((key) => el("p", {}, `${key} ${number(key, near.at[key])}`)), telling(near.runs, ...this.settings));
    });
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("click", () => { if (near) this.list.visit(near.runs[0]); });
  }
}
