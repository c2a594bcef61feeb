"""Selection among the settings that compete for a cell: by dev, never by test."""

import math
from collections import Counter

import pandas as pd

from zobench.report.numbers import number

SELECTS = ("mean", "seed")


def choose(runs: pd.DataFrame) -> str | None:
    """The setting to show: best mean dev accuracy, then dev loss, at the most finished seeds.

    A tie in both goes to the smaller id. None when no run is finished, or when several settings
    have the most seeds and none of them has dev numbers.
    """
    done = runs[runs["status"] == "done"]
    seeds = Counter(done["setting"])
    full = [setting for setting, count in seeds.items() if count == max(seeds.values())]
    if len(full) < 2:
        return full[0] if full else None
    means = {setting: _dev(done[done["setting"] == setting]) for setting in full}
    best = max(means.values())
    winners = [setting for setting, mean in means.items() if mean == best]
    return min(winners) if best > (-math.inf, -math.inf) else None


def choose_each(runs: pd.DataFrame) -> dict[int, str]:
    """The setting to show of each seed that has a finished run, by the same rule.

    Empty when no run is finished, or when a seed has no dev numbers to select by.
    """
    done = runs[runs["status"] == "done"]
    chosen = {int(str(seed)): choose(group) for seed, group in done.groupby("seed")}
    decided = {seed: setting for seed, setting in chosen.items() if setting is not None}
    return decided if len(decided) == len(chosen) else {}


def selected(runs: pd.DataFrame, select: str) -> tuple[str, pd.DataFrame]:
    """The setting that a cell shows and its runs; with `seed` the settings of the seeds in turn.

    The setting is empty, and the runs are all there are, where none could be chosen.
    """
    if runs["setting"].nunique() == 1:
        return str(runs["setting"].iloc[0]), runs
    if select == "mean":
        setting = choose(runs)
        return (setting, runs[runs["setting"] == setting]) if setting else ("", runs)
    each = choose_each(runs)
    if not each:
        return "", runs
    mine = (runs["setting"] == runs["seed"].map(each)) & (runs["status"] == "done")
    lost = ~runs["seed"].isin(each)
    return " ".join(each.values()), runs[mine | lost].sort_values(["seed", "setting"])


def rivals(runs: pd.DataFrame, labels: dict[str, str], setting: str, select: str) -> str:
    """A note on the settings that competed for a cell, their differences, and the shown one.

    labels: the differences of each setting; setting: the result of `selected`.
    """
    one_for_all = select == "mean"
    return _for_all(runs, labels, setting) if one_for_all else _for_each(runs, labels)


def _for_all(runs: pd.DataFrame, labels: dict[str, str], setting: str) -> str:
    finished = Counter(runs["setting"][runs["status"] == "done"])
    lines = {}
    for name, label in sorted(labels.items(), key=lambda item: item[1]):
        mine = runs[runs["setting"] == name]
        done = mine[mine["status"] == "done"]
        facts = [*_facts(done), f"{len(done)} of {len(mine)} runs done"]
        lines[name] = f"{label} ({'; '.join(facts)})"
        if finished[name] < finished[setting]:
            lines[name] += " left out for fewer finished seeds"
    rule = f"best on dev among those with the most finished seeds ({max(finished.values() or [0])})"
    nothing = "none, as nothing is finished or there are no dev numbers to select by"
    chosen = lines.pop(setting, nothing)
    verdict = f"{len(labels)} settings competed; shown, {rule}: {chosen}"
    return f"{verdict}; not shown: {'; '.join(lines.values())}"


def _for_each(runs: pd.DataFrame, labels: dict[str, str]) -> str:
    done = runs[runs["status"] == "done"]
    lines = []
    for seed, setting in choose_each(runs).items():
        rival = done[done["seed"] == seed]
        facts = [*_facts(rival[rival["setting"] == setting]), f"of {len(rival)} done"]
        lines.append(f"seed {seed}: {labels[setting]} ({'; '.join(facts)})")
    chosen = lines or ["none, as nothing is finished or there are no dev numbers to select by"]
    return f"{len(labels)} settings competed; shown, best on dev for each seed: {'; '.join(chosen)}"


def _facts(done: pd.DataFrame) -> list[str]:
    dev = {key: done[key].mean(skipna=False) for key in ("dev/accuracy", "dev/loss")}
    return [f"{key} {number(key, mean)}" for key, mean in dev.items() if not math.isnan(mean)]


def _dev(runs: pd.DataFrame) -> tuple[float, float]:
    """Mean dev accuracy and minus the mean dev loss; -inf where a run has none."""
    means = (runs["dev/accuracy"].mean(skipna=False), -runs["dev/loss"].mean(skipna=False))
    # Rounded, so that the same numbers tie in whatever order they were summed.
    accuracy, loss = (-math.inf if math.isnan(mean) else round(mean, 12) for mean in means)
    return accuracy, loss
