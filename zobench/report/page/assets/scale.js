// Scales, their ticks and how a tick is written.

// A linear or logarithmic map from [low, high] to pixels; `of` and `back` are inverse.
function scale(low, high, from, to, log) {
  const bend = log ? Math.log10 : (v) => v;
  const unbend = log ? (v) => 10 ** v : (v) => v;
  const a = bend(low), b = bend(high) === a ? a + 1 : bend(high);
  return {
    low, high, log,
    of: (v) => from + ((bend(v) - a) / (b - a)) * (to - from),
    back: (p) => unbend(a + ((p - from) / (to - from)) * (b - a)),
  };
}

// The range of some numbers with a little room, or null when there are none.
function range(values, { log = false, share = false, room = 0 } = {}) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v === null || !Number.isFinite(v) || (log && v <= 0)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low > high) return null;
  if (log) {
    const factor = high === low ? 1.5 : (high / low) ** room;
    return [low / factor, high * factor];
  }
  const extra = high === low ? Math.abs(high) * 0.1 || 0.5 : (high - low) * room;
  if (!room && high > low) return [low, high];
  return share ? [Math.max(0, low - extra), Math.min(1, high + extra)] : [low - extra, high + extra];
}

function ticks(low, high, count, log) {
  if (log) {
    const marks = (multiples) => {
      const found = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
        for (const m of multiples) {
          const v = Number(`${m}e${e}`);
          if (v >= low && v <= high) found.push(v);
        }
      }
      return found;
    };
    const decades = marks([1]);
    if (decades.length >= 3) return decades.filter((_, i) => i % Math.ceil(decades.length / count) === 0);
    const finer = marks([1, 2, 5]);
    if (finer.length >= 3) return finer;
  }
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function tickText(key, v) {
  if (SHARES.has(key)) return String(Number((100 * v).toPrecision(6)));
  const size = Math.abs(v);
  if (size >= 1e9 || (size > 0 && size < 1e-4)) return v.toExponential().replace("e+", "e");
  if (size >= 1e6) return `${Number((v / 1e6).toPrecision(6))}M`;
  if (size >= 1e4) return `${Number((v / 1e3).toPrecision(6))}k`;
  return String(Number(v.toPrecision(6)));
}
