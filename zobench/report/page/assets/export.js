// Files that the page makes: tables as CSV, figures as SVG.

function save(name, type, text) {
  const link = el("a", { download: `${DATA.suite}-${name}` });
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A button that saves what `make` returns, such as CSV with a line per array.
const saver = (text, name, type, make) => el("button", { type: "button", class: "save", "data-save": name, onclick: () => save(name, type, make()) }, text);
const csvSaver = (name, make) => saver("CSV", `${name}.csv`, "text/csv", () => csvText(make()));
const svgSaver = (name, make) => saver("SVG", `${name}.svg`, "image/svg+xml", () => svgText(...make()));

function csvText(lines) {
  const cell = (v) => {
    const text = v === null || v === undefined ? "" : plain(v);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${lines.map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`;
}

// A figure by itself: the styles of the page as attributes, and entries [name, colour, dash] as its legend.
const STYLED = ["stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "fill", "opacity", "font-size", "text-anchor"];
function svgText(svg, entries) {
  const [width, height] = [svg.clientWidth, Number(svg.getAttribute("height"))];
  const copy = svg.cloneNode(true);
  const [from, to] = [svg.querySelectorAll("*"), copy.querySelectorAll("*")];
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    to[i].removeAttribute("style");
    for (const name of STYLED) to[i].setAttribute(name, style.getPropertyValue(name));
  });
  const computed = (colour) => {
    const probe = el("line", { style: `stroke: ${colour}` });
    svg.append(probe);
    const found = getComputedStyle(probe).stroke;
    probe.remove();
    return found;
  };
  entries.forEach(([name, colour, dash], i) => {
    const y = height + 18 * i + 10;
    copy.append(el("line", { x1: 10, x2: 32, y1: y, y2: y, stroke: computed(colour), "stroke-width": 2, "stroke-dasharray": dash || null }), el("text", { x: 40, y: y + 4, "font-size": 12 }, name));
  });
  const whole = height + 18 * entries.length + 10;
  copy.prepend(el("rect", { width, height: whole, fill: getComputedStyle(document.body).backgroundColor }));
  for (const [name, v] of [["viewBox", `0 0 ${width} ${whole}`], ["width", width], ["height", whole], ["font-family", "sans-serif"], ["fill", getComputedStyle(document.body).color]]) copy.setAttribute(name, v);
  return new XMLSerializer().serializeToString(copy);
}
