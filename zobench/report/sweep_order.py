"""The order of rows and columns: the paper's, then that of the experiment's sweep."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from zobench.paths import conf_dir
from zobench.report.numbers import order
from zobench.report.published import PublishedNumbers
from zobench.report.runs import Suite

_COLUMNS = {"optimizer": "method", "task": "task", "tuning": "tuning", "model": "model"}


def swept(suite: Suite) -> dict[str, list[str]]:
    """Key -> the values that the suite's experiment sweeps over, in the order of conf/.

    Of all its grids; evaluations of the untrained model count as options of `optimizer`, as in the
    names of runs. Empty where the runs are of no experiment, or of one outside of conf/.
    """
    found: dict[str, dict[str, None]] = {}
    names = set(suite.frame["experiment"]) if "experiment" in suite.choices else set()
    for name in sorted(names - {"-"}):
        for params in (_params(name), *_further(name)):
            for key, values in _lists(params).items():
                found.setdefault(key, {}).update(dict.fromkeys(values))
    return {key: list(values) for key, values in found.items()}


def known_order(
    swept: Mapping[str, Sequence[str]], published: PublishedNumbers | None
) -> dict[str, list[str]]:
    """Key -> values in the order in which the paper has them, then the others of the sweep."""
    known = {key: list(values) for key, values in swept.items()}
    if "full" not in known.get("tuning", []):  # the sweeps of grids have it as the default
        known["tuning"] = ["full", *known.get("tuning", [])]
    if published is not None:
        for key, column in _COLUMNS.items():
            ours: dict[str, list[str]] = {}
            for mine, theirs in published.names.items():
                ours.setdefault(theirs, []).append(mine)
            paper = [n for name in published.rows[column] for n in (name, *ours.get(name, []))]
            known[key] = list(dict.fromkeys([*paper, *known.get(key, [])]))
    return known


def arranged(labels: Iterable[str], keys: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The labels by the known order of each key; other values follow, in alphabetical order.

    Numbers are ordered by size. keys: joined by commas, as the values are in a label.
    """
    orders = [known.get(key.strip(), []) for key in keys.split(",")]

    def place(label: str) -> list[tuple[int, list[tuple[int, float, str]]]]:
        parts = label.split(", ")
        if len(parts) != len(orders):  # a value has a comma of its own
            return [(0, order(label))]
        return [(_rank(part, of), order(part)) for part, of in zip(parts, orders, strict=True)]

    return sorted(labels, key=place)


def _rank(value: str, known: Sequence[str]) -> int:
    try:
        float(value)
    except ValueError:
        return known.index(value) if value in known else len(known)
    return 0


def _params(experiment: str) -> dict[str, Any]:
    """The sweep of an overlay, with those of the overlays that it begins with."""
    overlay = _read(f"experiment/{experiment}.yaml")
    params: dict[str, Any] = {}
    for entry in overlay.get("defaults") or []:
        if isinstance(entry, str) and entry.startswith("/experiment/"):
            params |= _params(entry.removeprefix("/experiment/"))
    return params | _sweep(overlay)


def _further(experiment: str) -> list[dict[str, Any]]:
    """The sweeps of the experiment's further grids; they inherit what they do not set."""
    grids = _read("cells/grids.yaml").get("grid", {}).get(experiment, {})
    return [_sweep(grid) for grid in grids.values()]


def _sweep(settings: Mapping[str, Any]) -> dict[str, Any]:
    return dict(((settings.get("hydra") or {}).get("sweeper") or {}).get("params") or {})


def _lists(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """Those of the parameters that are plain lists, taken apart."""
    lists = {
        key: [value.strip() for value in str(values).split(",")]
        for key, values in params.items()
        if not set("([{") & set(str(values))  # a range, glob or choice of Hydra's
    }
    evaluations = lists.get("evaluation", [])
    if lists.get("optimizer") == ["zero_shot"] and evaluations:
        lists["optimizer"] = ["zero_shot" if e == "standard" else e for e in evaluations]
    return lists


@cache
def _read(name: str) -> dict[str, Any]:
    path = conf_dir() / name
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return content if isinstance(content, dict) else {}
