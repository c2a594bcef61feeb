// The chart: lines as SVG paths, one node each, and a cursor that reads their values.

const COLOURS = 7;
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];
const colour = (index) => `var(--c${index % COLOURS})`;
const dash = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];
const MARGIN = { top: 8, right: 14, bottom: 44, left: 50 };

function swatch(index, broken = false) {
  const line = el("line", { x1: 1, x2: 21, y1: 6, y2: 6, style: `stroke: ${colour(index)}`, "stroke-width": 3, "stroke-dasharray": (broken ? "3 4" : dash(index)) || null });
  return el("svg", { class: "swatch", viewBox: "0 0 22 12", "aria-hidden": "true" }, line);
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.svg = $("svg", figure);
    this.tip = $(".tip", figure);
    this.lines = [];
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.clear());
    this.svg.addEventListener("blur", () => this.clear());
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  // lines: see makeLines, each with the index of its colour. state: x, y, logX, logY.
  draw(lines, state) {
    const width = this.figure.clientWidth;
    const height = Math.round(Math.min(460, Math.max(290, width * 0.52)));
    this.state = state;
    this.lines = lines.map((line) => cut(line, state));
    this.lines = this.lines.filter((line) => line.xs.length);
    this.clear();
    $(".y-title", this.figure).textContent = titled(state.y ?? "") + (state.logY ? " (logarithmic)" : "");
    const empty = !this.lines.length;
    this.svg.replaceChildren();
    this.svg.toggleAttribute("hidden", empty);
    $(".empty", this.figure).toggleAttribute("hidden", !empty);
    if (empty) return;
    // A run that diverged must not press the others flat: its line may leave the frame.
    const sound = this.lines.filter((line) => line.runs.some((run) => run.status !== "diverged"));
    const counting = sound.length ? sound : this.lines;
    const up = range(counting.flatMap((l) => [...l.ys, ...(l.lo ?? []), ...(l.hi ?? [])]), { log: state.logY, share: SHARES.has(state.y), room: 0.04 });
    const across = range(this.lines.flatMap((l) => [l.xs[0], l.xs.at(-1)]), { log: state.logX });
    const frame = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    this.frame = frame;
    this.x = scale(...across, frame.left, frame.right, state.logX);
    this.y = scale(...up, frame.bottom, frame.top, state.logY);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.classList.toggle("many", this.lines.length > 24);
    this.svg.setAttribute("aria-label", `${titled(state.y)} against ${AXIS_NAMES[state.x][1]}, ${plural(this.lines.length, "line")}. Left and right arrow read values, up and down change the line.`);
    const clip = el("clipPath", { id: "frame" }, el("rect", { x: frame.left, y: frame.top - 3, width: frame.right - frame.left + 3, height: frame.bottom - frame.top + 6 }));
    this.svg.append(el("defs", {}, clip), this.axes(), this.paths(), (this.cursor = el("g", { class: "cursor" })));
  }

  axes() {
    const { left, right, top, bottom } = this.frame;
    const { x, y, state } = this;
    const grid = el("g", { class: "grid", "aria-hidden": "true" });
    for (const v of ticks(y.low, y.high, 6, y.log)) {
      grid.append(el("line", { x1: left, x2: right, y1: y.of(v), y2: y.of(v) }), el("text", { x: left - 9, y: y.of(v) + 4, "text-anchor": "end" }, tickText(state.y, v)));
    }
    for (const v of ticks(x.low, x.high, Math.max(3, Math.floor((right - left) / 110)), x.log)) {
      grid.append(el("line", { class: "base", x1: x.of(v), x2: x.of(v), y1: bottom, y2: bottom + 5 }), el("text", { x: x.of(v), y: bottom + 19, "text-anchor": "middle" }, tickText(state.x, v)));
    }
    grid.append(el("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }));
    grid.append(el("text", { class: "x-title", x: (left + right) / 2, y: bottom + 39, "text-anchor": "middle" }, AXIS_NAMES[state.x][1] + (state.logX ? " (logarithmic)" : "")));
    return grid;
  }

  paths() {
    const group = el("g", { "clip-path": "url(#frame)" });
    const place = (xs, ys) => xs.map((v, i) => `${this.x.of(v).toFixed(1)},${this.y.of(ys[i]).toFixed(1)}`);
    for (const line of this.lines) {
      if (!line.lo || line.xs.length < 2) continue;
      const floor = line.lo.map((v) => (this.y.log ? Math.max(v, this.y.low / 10) : v));
      const outline = [...place(line.xs, line.hi), ...place(line.xs, floor).reverse()];
      line.band = el("path", { class: "band", d: `M${outline.join("L")}Z`, style: `fill: ${colour(line.index)}` });
      group.append(line.band);
    }
    const few = this.lines.length <= 12;
    for (const line of this.lines) {
      const style = `stroke: ${colour(line.index)}`;
      if (line.raw && few) group.append(el("path", { class: "faint", d: `M${place(line.raw.xs, line.raw.ys).join("L")}`, style }));
      // A path of one point is a dot, as its ends are round.
      const d = `M${place(line.xs, line.ys).join("L")}${line.xs.length === 1 ? "h0.01" : ""}`;
      line.path = el("path", { class: "line", d, style, "stroke-dasharray": (line.broken ? "3 4" : dash(line.index)) || null, "data-group": line.group, "data-runs": line.runs.map((run) => run.id).join(" ") });
      if (line.xs.length === 1) line.path.style.strokeWidth = 7;
      group.append(line.path);
      if (line.cross) {
        const [cx, cy] = [this.x.of(line.xs.at(-1)), this.y.of(line.ys.at(-1))];
        group.append(el("path", { class: "line", d: `M${cx - 4},${cy - 4}l8,8m0,-8l-8,8`, style }));
      }
    }
    return group;
  }

  // What is drawn, as the lines of a CSV file.
  table() {
    const { x, y } = this.state;
    const rows = this.lines.flatMap((line) => line.xs.map((v, i) => [line.group, line.label, line.runs.map((run) => run.seed).join(" "), v, line.ys[i], line.lo?.[i], line.hi?.[i]]));
    return [["group", "line", "seeds", x, y, "low", "high"], ...rows];
  }

  point(event) {
    if (!this.lines.length) return;
    const box = this.svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const v = this.x.back(Math.min(Math.max(px, this.frame.left), this.frame.right));
    let best = null, gap = Infinity;
    for (const line of this.lines) {
      const i = nearest(line.xs, v, this.x);
      const d = Math.hypot((this.x.of(line.xs[i]) - px) / 3, this.y.of(line.ys[i]) - py);
      if (d < gap) [gap, best] = [d, { line, i }];
    }
    this.show(best.line, best.i);
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.clear();
    if (!(event.key in moves) || !this.lines.length) return;
    event.preventDefault();
    const [along, between] = moves[event.key];
    if (!this.at) return this.show(this.lines[0], this.lines[0].xs.length - 1);
    const n = this.lines.indexOf(this.at.line) + between;
    const line = this.lines[(n + this.lines.length) % this.lines.length];
    const here = line === this.at.line ? this.at.i : nearest(line.xs, this.at.line.xs[this.at.i], this.x);
    this.show(line, Math.min(Math.max(here + along, 0), line.xs.length - 1));
  }

  // The cursor at a point of a line, and what the lines have there.
  show(line, i) {
    if (this.at && this.at.line === line && this.at.i === i) return;
    this.clear();
    this.at = { line, i };
    const v = line.xs[i], { x, y, state, frame } = this;
    const cx = x.of(v), cy = Math.min(Math.max(y.of(line.ys[i]), frame.top), frame.bottom);
    this.svg.classList.add("hovering");
    for (const node of [line.path, line.band]) node?.classList.add("near");
    this.cursor.append(el("line", { x1: cx, x2: cx, y1: frame.top, y2: frame.bottom }), el("circle", { cx, cy, r: 5, style: `fill: ${colour(line.index)}` }));
    const here = this.lines.filter((other) => other.xs[0] <= v && other.xs.at(-1) >= v)
      .map((other) => ({ other, value: other.ys[nearest(other.xs, v, x)], std: other.hi && other.hi[nearest(other.xs, v, x)] - other.ys[nearest(other.xs, v, x)] }))
      .sort((a, b) => b.value - a.value);
    const place = here.findIndex((entry) => entry.other === line);
    const start = Math.max(0, Math.min(place - 3, here.length - 8));
    const rows = here.slice(start, start + 8).map(({ other, value: mean, std }) => el("li", { class: other === line ? "near" : null },
      swatch(other.index, other.broken), el("span", {}, this.lines.length === this.groups ? other.group : other.label),
      el("span", {}, number(state.y, mean) + (std ? ` ± ${number(state.y, std)}` : ""))));
    if (here.length > rows.length) rows.push(el("li", { class: "more" }, `and ${plural(here.length - rows.length, "more line")}`));
    this.tip.replaceChildren(el("p", {}, `${AXIS_NAMES[state.x][0]} ${number(state.x, v)}`), el("ul", {}, ...rows), telling(line.runs));
    this.tip.hidden = false;
    const top = this.svg.getBoundingClientRect().top - this.figure.getBoundingClientRect().top;
    const room = this.figure.clientWidth, wide = this.tip.offsetWidth;
    this.tip.style.left = `${cx + 16 + wide <= room ? cx + 16 : Math.max(0, cx - 16 - wide)}px`;
    this.tip.style.top = `${Math.max(0, Math.min(top + cy - this.tip.offsetHeight / 2, this.figure.clientHeight - this.tip.offsetHeight))}px`;
  }

  clear() {
    if (!this.at) return;
    for (const node of [this.at.line.path, this.at.line.band]) node?.classList.remove("near");
    this.at = null;
    this.svg.classList.remove("hovering");
    this.cursor.replaceChildren();
    this.tip.hidden = true;
  }
}

// The points of a line that its scales can show.
function cut(line, { logX, logY }) {
  if (!logX && !logY) return line;
  const good = line.xs.map((_, i) => i).filter((i) => (!logX || line.xs[i] > 0) && (!logY || line.ys[i] > 0));
  const pick = (column) => column && good.map((i) => column[i]);
  const raw = line.raw && cut({ xs: line.raw.xs, ys: line.raw.ys }, { logX, logY });
  return { ...line, raw, xs: pick(line.xs), ys: pick(line.ys), lo: pick(line.lo), hi: pick(line.hi) };
}

// The index of the point nearest to v, as seen on the axis.
function nearest(xs, v, axis) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < v) low = middle + 1; else high = middle;
  }
  if (low && Math.abs(axis.of(xs[low - 1]) - axis.of(v)) <= Math.abs(axis.of(xs[low]) - axis.of(v))) return low - 1;
  return low;
}
