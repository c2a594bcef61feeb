"""The uncertainty of a cell's number, and a test against the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zobench.report.cells import Cell
from zobench.report.numbers import is_share, number
from zobench.report.predictions import Predictions
from zobench.report.statistics import FLIPS, RESAMPLES, interval, seed_interval, sign_flip

Place = tuple[str, str]  # row and column


@dataclass(frozen=True)
class Facet:
    """One more number per cell: its text by place, its columns of the CSV, and notes."""

    title: str
    texts: dict[Place, str]
    records: dict[Place, dict[str, Any]]
    notes: list[str]


def intervals(cells: Mapping[Place, Cell], predictions: Predictions, metric: str) -> list[Facet]:
    """The 95 % interval of every cell; nothing where no cell has one."""
    texts, records = {}, {}
    both, alone, seeds_only = False, False, []
    for place, cell in cells.items():
        runs = [run for _, run in cell.done.loc[cell.values.index].iterrows()]
        known = [scores for run in runs if (scores := predictions.scores(run, metric)) is not None]
        if runs and len(known) == len(runs):
            shared = len({predictions.gold(run) for run in runs}) == 1
            low, high = interval(known, shared=shared)
            both, alone = both or len(runs) > 1, alone or len(runs) == 1
        else:
            low, high = seed_interval(cell.values.to_numpy(dtype=float))
            seeds_only += [] if math.isnan(low) else [place]
        if is_share(metric):  # the correction for few seeds may reach beyond 0 and 1
            low, high = max(low, 0.0), min(high, 1.0)
        if not math.isnan(low):
            texts[place] = f"{number(metric, low)} to {number(metric, high)}"
        records[place] = {"interval_low": low, "interval_high": high}
    if not texts:
        return []
    over = ["seeds and test examples"] if both else []
    over += ["test examples only where there is one seed"] if alone else []
    over += ["seeds only where examples have no scores"] if seeds_only and over else []
    says = f"95 % interval: bootstrap over {', over '.join(over or ['seeds'])}"
    notes = [f"{says} ({RESAMPLES} resamples)"]
    if seeds_only and metric.startswith("test/"):
        notes.append(f"95 % interval over seeds only, without predictions: {listed(seeds_only)}")
    return [Facet("95 % interval", texts, records, notes)]


def tests(
    cells: Mapping[Place, Cell], predictions: Predictions, metric: str, baseline: str | None
) -> list[Facet]:
    """The p of each cell against the baseline's in the same column; nothing without a baseline."""
    if baseline is None:
        return []
    texts, records = {}, {}
    reasons: dict[str, list[Place]] = {}
    for place, cell in cells.items():
        if cell.row == baseline:
            continue
        p = _tested(cell, cells.get((baseline, cell.column)), predictions, metric)
        if isinstance(p, str):
            reasons.setdefault(p, []).append(place)
        else:
            texts[place] = f"{p:.4f}"
            records[place] = {"p": p}
    notes = [
        f"p vs {baseline}: paired over test examples, the scores averaged over common seeds, "
        f"{FLIPS} sign flips; not valid for other seeds, and not corrected for several rows"
    ]
    notes = notes if texts else []
    notes += [f"no p vs {baseline}, {why}: {listed(places)}" for why, places in reasons.items()]
    return [Facet(f"p vs {baseline}", texts, records, notes)]


def listed(places: Sequence[tuple[str, ...]]) -> str:
    """Rows and columns, or rows alone, as text; of many, the first."""
    shown = [" ".join(place) for place in places[:6]]
    more = len(places) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _tested(
    cell: Cell, reference: Cell | None, predictions: Predictions, metric: str
) -> float | str:
    """p, or why there is none."""
    if reference is None or reference.values.empty:
        return "as it has no number there"
    mine, other = (
        {run["seed"]: run for _, run in one.done.loc[one.values.index].iterrows()}
        for one in (cell, reference)
    )
    common = sorted(mine.keys() & other.keys())
    if not common:
        return "as there is no common finished seed"
    golds, differences = set(), []
    for seed in common:
        pair = [predictions.scores(runs[seed], metric) for runs in (mine, other)]
        if pair[0] is None or pair[1] is None:
            return f"as runs have no predictions whose mean is {metric}"
        if predictions.gold(mine[seed]) != predictions.gold(other[seed]):
            return "as the test rows are not the same"
        golds.add(predictions.gold(mine[seed]))
        differences.append(pair[0] - pair[1])
    # Where the seeds have test splits of their own, their examples are concatenated.
    if len(golds) == 1:
        return sign_flip(np.mean(differences, axis=0))
    return sign_flip(np.concatenate(differences))
