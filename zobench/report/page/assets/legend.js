// The legend: an entry per group, which shows or hides the group's runs.

class Legend {
  constructor(place, state, changed) {
    Object.assign(this, { place, state, changed });
  }

  // The lines that are drawn, as [name, colour, dash].
  entries() {
    const drawn = new Map(this.lines.map((line) => [line.group, line.index]));
    return [...drawn].map(([name, index]) => [name, colour(index), dash(index)]);
  }

  // groups: from name to runs, in order. lines: those drawn.
  draw(groups, lines) {
    this.lines = lines;
    const { state } = this;
    const entries = [...groups].map(([name, runs], index) => {
      const shown = runs.filter((run) => !state.hidden.has(run.id)).length;
      const drawn = lines.filter((line) => line.group === name);
      const last = drawn.length === 1 ? number(state.y, drawn[0].ys.at(-1)) : drawn.length ? `${drawn.length} lines` : "";
      const pressed = shown === runs.length ? "true" : shown ? "mixed" : "false";
      const toggle = el("button", { type: "button", class: "toggle", "aria-pressed": pressed, title: shown ? "hide" : "show", "data-group": name, onclick: () => this.set(runs, shown > 0) },
        swatch(index), el("span", { class: "name" }, name), el("span", { class: "last" }, last));
      const only = el("button", { type: "button", class: "only", "aria-label": `only ${name}`, onclick: () => this.only(groups, name) }, "only");
      return el("li", { class: "entry" }, toggle, groups.size > 1 ? only : null);
    });
    const all = el("button", { type: "button", onclick: () => this.set([...groups.values()].flat(), false) }, "show all");
    const none = el("button", { type: "button", onclick: () => this.set([...groups.values()].flat(), true) }, "hide all");
    const focus = this.place.contains(document.activeElement) ? document.activeElement.dataset.group : undefined;
    const scroll = $("ul", this.place)?.scrollTop ?? 0;
    this.place.replaceChildren(el("div", { class: "legend-head" }, el("span", {}, state.group), groups.size > 1 ? el("div", {}, all, none) : null), el("ul", {}, ...entries));
    $("ul", this.place).scrollTop = scroll;
    if (focus !== undefined) entries.map((e) => e.firstChild).find((b) => b.dataset.group === focus)?.focus();
  }

  set(runs, hide) {
    for (const run of runs) this.state.hidden[hide ? "add" : "delete"](run.id);
    this.changed();
  }

  only(groups, name) {
    for (const [other, runs] of groups) for (const run of runs) this.state.hidden[other === name ? "delete" : "add"](run.id);
    this.changed();
  }
}
