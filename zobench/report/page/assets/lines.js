// From runs to lines: pairs of columns, smoothing, and means over the seeds of a setting.

const GRID = 400; // points of a mean

// The points of a run that have both numbers; of several at one x the last counts.
function points(run, x, y) {
  const cache = (run.cache ??= new Map());
  const key = `${x}|${y}`;
  if (!cache.has(key)) {
    const xs = [], ys = [];
    const across = run.x[x] ?? [], up = run.y[y] ?? [];
    for (let i = 0; i < across.length; i++) {
      if (across[i] === null || up[i] === null || up[i] === undefined) continue;
      if (xs.length && xs.at(-1) === across[i]) ys[ys.length - 1] = up[i];
      else { xs.push(across[i]); ys.push(up[i]); }
    }
    cache.set(key, { xs, ys });
  }
  return cache.get(key);
}

// An exponential moving average that is not drawn towards its first value.
function smoothed(ys, weight) {
  if (!weight) return ys;
  let sum = 0, mass = 0;
  return ys.map((y) => {
    sum = weight * sum + (1 - weight) * y;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

function interpolate(xs, ys, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  if (high === low || x <= xs[low]) return ys[low];
  if (x >= xs[high]) return ys[high];
  return ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / (xs[high] - xs[low]);
}

// Mean and sample standard deviation over curves, where all of them are.
function average(curves) {
  if (curves.length === 1) return { xs: curves[0].xs, ys: curves[0].ys, lo: null, hi: null };
  const first = Math.max(...curves.map((c) => c.xs[0]));
  const last = Math.min(...curves.map((c) => c.xs.at(-1)));
  let xs = [...new Set(curves.flatMap((c) => c.xs))].filter((x) => x >= first && x <= last).sort((a, b) => a - b);
  if (xs.length > GRID) {
    xs = Array.from({ length: GRID }, (_, i) => xs[Math.round((i * (xs.length - 1)) / (GRID - 1))]);
  }
  const ys = [], lo = [], hi = [];
  for (const x of xs) {
    const here = curves.map((c) => interpolate(c.xs, c.ys, x));
    const mean = here.reduce((a, b) => a + b, 0) / here.length;
    const std = Math.sqrt(here.reduce((a, b) => a + (b - mean) ** 2, 0) / (here.length - 1));
    ys.push(mean); lo.push(mean - std); hi.push(mean + std);
  }
  return { xs, ys, lo, hi };
}

// One line per run, or per setting of a group: settings are never averaged together. A setting's
// line is of its finished runs; where it has none it is of those there are, and dashed.
function makeLines(runs, state) {
  const bundles = new Map();
  for (const run of runs) {
    if (!points(run, state.x, state.y).xs.length) continue;
    const group = value(run, state.group);
    const key = state.mean && state.group !== "run" ? `${group}\n${run.setting}` : run.id;
    if (!bundles.has(key)) bundles.set(key, { key, group, runs: [] });
    bundles.get(key).runs.push(run);
  }
  return [...bundles.values()].map(({ key, group, runs: all }) => {
    const done = all.filter((run) => run.status === "done");
    const used = done.length ? done : all;
    const curves = used.map((run) => {
      const { xs, ys } = points(run, state.x, state.y);
      return { xs, ys: smoothed(ys, state.smooth) };
    });
    const alone = used.length === 1;
    return {
      key, group, runs: used, ...average(curves),
      raw: alone && state.smooth ? points(used[0], state.x, state.y) : null,
      label: alone ? value(used[0], "run") : used[0].label,
      broken: !done.length,
      cross: alone && used[0].status === "diverged",
    };
  }).filter((line) => line.xs.length);
}
