"use strict";
// The data of the page, elements, and numbers for people.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const SHARES = new Set(DATA.shares);
const AXIS_NAMES = {
  step: ["steps", "optimizer steps"],
  "cost/forwards": ["forwards", "forwards (model evaluations of one batch)"],
  "cost/tokens": ["tokens", "tokens read"],
  "time/train_s": ["seconds", "seconds of training"],
};
const UNITS = [[/_s$/, "s"], [/_gib$/, "GiB"]];

const $ = (selector, within = document) => within.querySelector(selector);

// An element with properties (class, data-x, aria-x as attributes; onclick as a listener) and children.
function el(tag, properties = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect", "clipPath", "defs"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Percent with one decimal for a share, whole numbers from a thousand on, else four digits.
function number(key, value) {
  if (value === null || value === undefined) return "–";
  if (SHARES.has(key)) return (100 * value).toFixed(1);
  const size = Math.abs(value);
  if (size >= 1e3 && size < 1e9) return Math.round(value).toLocaleString("en").replaceAll(",", "\u2009");
  return String(Number(value.toPrecision(4)));
}

function unit(key) {
  if (SHARES.has(key)) return "%";
  const found = UNITS.find(([ending]) => ending.test(key));
  return found ? found[1] : "";
}

const titled = (key) => (unit(key) ? `${key}, ${unit(key)}` : key);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// What a run has for a choice or a config key, as text.
function value(run, key) {
  if (key === "setting") return run.label;
  if (key === "run") return `${run.label}, seed ${run.seed}`;
  if (key in run.choices) return run.choices[key];
  const found = key in run.config ? run.config[key] : DATA.settings[key];
  return found === undefined ? "unset" : plain(found);
}

const plain = (content) => (typeof content === "string" ? content : JSON.stringify(content));

// Whether every word of the filter is somewhere in what the run is called, chose and was set to.
function matches(run, filter) {
  if (!filter) return true;
  run.text ??= [run.folder, run.label, run.status, `seed=${run.seed}`,
    ...Object.entries(run.choices).map(([k, v]) => `${k}=${v}`),
    ...Object.entries(run.config).map(([k, v]) => `${k}=${plain(v)}`)].join("\n").toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => run.text.includes(word));
}
