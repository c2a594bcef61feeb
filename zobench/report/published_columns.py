"""Published numbers next to ours, their source, and the difference: two columns per cell."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from zobench.report.cells import Cell
from zobench.report.numbers import order
from zobench.report.published import PublishedNumbers
from zobench.report.runs import Suite
from zobench.report.significance import Facet, Place

# published metric -> our metric, what ours is multiplied by to be in the published unit, the unit
UNITS = {
    "accuracy": ("test/accuracy", 100.0, "points"),
    "f1": ("test/accuracy", 100.0, "points"),
    "memory_gb": ("memory/peak_gib", 1.073741824, "GB"),
    "memory_mib": ("memory/peak_gib", 1024.0, "MiB"),
    "seconds_per_step": ("time/step_s", 1.0, "s"),
}
MARKS = {
    "secondhand": ("s", "quoted by another source"),
    "recall": ("r", "remembered, not checked against the paper"),
    "figure": ("f", "read off a plot"),
    "code": ("c", "from logs in the history of the authors' repository"),
}


def published_columns(
    suite: Suite,
    cells: Mapping[Place, Cell],
    averages: Mapping[Place, float],
    published: PublishedNumbers | None,
    metric: str,
) -> list[Facet]:
    """The published numbers that the suite names and ours minus them; empty without a paper.

    averages: ours over the tasks, of rows that have a number for each.
    """
    if published is None:
        return []
    ours, factor, unit = UNITS.get(published.metric, ("", 1.0, ""))
    if metric != ours:
        note = (
            f"no published numbers: those of {published.paper} that the suite names are"
            f" {published.metric}"
        )
        return [Facet("published", {}, {}, [note])]
    rows = {
        place: row for place, cell in cells.items() if (row := _row(published, cell)) is not None
    }
    for place in averages:
        first = next(cell for (name, _), cell in cells.items() if name == place[0])
        if (row := _row(published, first, "avg")) is not None:
            rows[place] = row
    means = {place: float(cell.values.mean()) for place, cell in cells.items()} | dict(averages)
    gaps = {place: factor * means[place] - row["value"] for place, row in rows.items()}
    levels = sorted({str(row["evidence"]) for row in rows.values()} & MARKS.keys())
    signs = [f"{_sign(level)} {level}, {MARKS[level][1]}" for level in levels]
    sources = "; ".join(dict.fromkeys(map(_source, rows.values())))
    notes = [f"published: {sources}" if rows else f"{published.paper} has no number of these"]
    notes += [f"not read in the paper or its README: {'; '.join(signs)}"] if signs else []
    notes += [f"difference: ours minus published, in {unit}"] if rows else []
    notes += _mismatches(suite, cells, rows, published.names)
    digits = ".1f" if unit == "points" else ".3g"
    shown = {place: f"{gap:+{digits}}" for place, gap in gaps.items() if not math.isnan(gap)}
    texts = {place: _text(row) for place, row in rows.items()}
    records = {place: _record(row) | {"difference": gaps[place]} for place, row in rows.items()}
    return [Facet("published", texts, records, notes), Facet("difference", shown, {}, [])]


def _row(published: PublishedNumbers, cell: Cell, task: str | None = None) -> pd.Series | None:
    """The published number of a cell; None where its runs are of several methods or the like."""
    kinds = cell.runs.reindex(columns=["optimizer", "task", "tuning", "model"], fill_value="-")
    kinds = kinds.drop_duplicates()
    if len(kinds) > 1:
        return None
    method, own, tuning, model = map(str, kinds.iloc[0])
    return published.find(method, task or own, tuning, model)


def _text(row: pd.Series) -> str:
    std = "" if math.isnan(row["std"]) else f" +- {row['std']:g}"
    return f"{row['value']:g}{std}{_sign(row['evidence'], ' ')}"


def _sign(evidence: str, before: str = "") -> str:
    """The mark of a number that was not read in its paper, such as `[s]`."""
    return f"{before}[{MARKS[evidence][0]}]" if evidence in MARKS else ""


def _record(row: pd.Series) -> dict[str, Any]:
    return {
        "published": row["value"],
        "published_std": row["std"],
        "evidence": row["evidence"],
        "source": _source(row),
    }


def _source(row: pd.Series) -> str:
    """For example `opt-13b (mezo T1, 1000-train)`."""
    place = " ".join(filter(None, (row["paper"], row["table"])))
    return f"{row['model']} ({', '.join(filter(None, (place, row['setting'])))})"


def _mismatches(
    suite: Suite,
    cells: Mapping[Place, Cell],
    rows: Mapping[Place, pd.Series],
    names: Mapping[str, str],
) -> list[str]:
    """A note per model of ours that is not the published one: the row is no reproduction."""
    steps: dict[str, set[str]] = {}
    theirs: dict[str, set[str]] = {}
    for place in rows.keys() & cells.keys():
        for run in cells[place].done.to_dict("records"):
            model, published = str(run.get("model", "-")), str(rows[place]["model"])
            flat = suite.flat[run["id"]]
            path = str(flat.get("model.path", "")).rsplit("/", 1)[-1]
            if _plain(published) not in (_plain(names.get(model, model)), _plain(path)):
                steps.setdefault(model, set()).add(str(flat.get("budget.steps", "-")))
                theirs.setdefault(model, set()).add(published)
    return [
        f"ours: model {model}, {', '.join(sorted(steps[model], key=order))} steps; "
        f"published: {', '.join(sorted(theirs[model]))}; the difference is no check of either"
        for model in sorted(theirs)
    ]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())
