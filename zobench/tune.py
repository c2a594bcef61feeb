"""`zobench tune`: a search of hyper-parameters that is the same for every row.

A Hydra sweeper. Trials are ordinary runs in a suite of their own, by any launcher. Which trials
there are follows from the settings and the results of finished runs alone, so that a search that
was stopped continues when it is launched again.
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from zobench.budget import DEFAULT_STEPS
from zobench.cells import rows
from zobench.errors import UserError
from zobench.names import dev_metric, lower_is_better, plain_text

_BUDGETS = ("forwards", "steps", "seconds")


class Dimension(NamedTuple):
    """A setting that is searched: in an interval, or among values.

    values: of a choice or range; empty for an interval.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # integers
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, override: Any) -> "Dimension":
        """The dimension of a Hydra override; UserError unless it sweeps over several values."""
        if override.is_choice_sweep() or override.is_range_sweep():
            return cls(key, values=tuple(override.sweep_string_iterator()))
        sweep = override.value()
        if not isinstance(sweep, IntervalSweep):
            raise UserError(
                f"search: {key}: expected interval(low, high), tag(log, interval(low, high)) or"
                " choice(a, b), as in Hydra's overrides"
            )
        low, high = sweep.start, sweep.end
        log = "log" in sweep.tags
        if low is None or high is None or not low < high or (log and low <= 0):
            above = ", both above 0" if log else ""
            raise UserError(f"search: {key}: the interval's low must be below its high{above}")
        whole = isinstance(low, int) and isinstance(high, int)  # as of int(interval(1, 8))
        return cls(key, float(low), float(high), log, whole)

    def at(self, share: float) -> str:
        """The value at this share (from 0, below 1) of the dimension, to three digits."""
        if self.values:
            return self.values[int(share * len(self.values))]
        high = self.high + self.whole  # whole numbers include the last
        if self.log:
            value = self.low * (high / self.low) ** share
        else:
            value = self.low + share * (high - self.low)
        return str(int(value)) if self.whole else f"{value:.3g}"


def trials_in(space: Sequence[Dimension], count: int) -> list[tuple[str, ...]]:
    """The overrides of the trials: none for the first, then points of a Halton sequence.

    The sequence is not scrambled, so that rows with the same space have the same trials. Equal
    trials, as of a space of few values, are left out.
    """
    from scipy.stats.qmc import Halton

    if not space:
        return [()]
    sequence = Halton(len(space), scramble=False)
    sequence.fast_forward(1)  # the origin
    points = sequence.random(count - 1) if count > 1 else []
    found: list[tuple[str, ...]] = [()]
    for point in points:
        trial = tuple(f"{d.key}={d.at(share)}" for d, share in zip(space, point, strict=True))
        if trial not in found:
            found.append(trial)
    return found


class Search(NamedTuple):
    """The search for one combination of the grid.

    trials: the overrides of each.
    budget: the key of the budget, and the whole of it.
    """

    combination: tuple[str, ...]
    choices: Mapping[str, str]
    trials: list[tuple[str, ...]]
    budget: tuple[str, float]


class Winner(NamedTuple):
    """The best trial of a search in the last rung.

    spent: the budgets of all its trials together.
    """

    search: Search
    settings: tuple[str, ...]
    value: float
    spent: float


class Halving(Sweeper):
    """Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) of quasi-random trials.

    Rung r of R has ceil(trials / reduction^r) trials with 1 / reduction^(R - 1 - r) of the budget
    each, every one trained from the start, so that schedules fit their budgets. The trials that a
    rung's dev metric ranks first go on.

    Args:
        params: the grid, as of Hydra's basic sweeper.
        trials: in the first rung.
        reduction: of the number of trials, from one rung to the next.
        rungs: rounds; the last has the whole budget.
        suite: of the trials.
    """

    __module__ = "hydra_plugins.zobench"  # Hydra makes plugins of this package only

    def __init__(self, params: Any, trials: int, reduction: int, rungs: int, suite: str) -> None:
        self.params = dict(params or {})
        self.sizes = sizes(trials, reduction, rungs)
        self.reduction, self.suite = reduction, suite
        self.job_idx = 0

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.hydra_context, self.config = hydra_context, config  # of Hydra's own hooks, too
        self._loader, self._settings = hydra_context.config_loader, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        dev_metric(self._settings.optimized_metric)
        searches = self._searches(arguments)
        standings = {s: list(range(len(search.trials))) for s, search in enumerate(searches)}
        spent = [0.0] * len(searches)
        best: dict[int, float] = {}
        for rung, size in enumerate(self.sizes):
            last = rung == len(self.sizes) - 1
            jobs: list[tuple[int, int]] = []  # search, trial
            for s, order in standings.items():
                if len(searches[s].trials) > 1 or last:  # with one trial there is nothing to choose
                    jobs += [(s, trial) for trial in sorted(order[:size])]
            values = self._launch(searches, jobs, rung)
            if missing := values.count(None):
                print(
                    f"{self.suite}: {missing} of {len(jobs)} runs of rung {rung + 1} of"
                    f" {len(self.sizes)} have no result; the next launch continues the search"
                )
                return
            for s in standings:
                found = {
                    t: value
                    for (of, t), value in zip(jobs, values, strict=True)
                    if of == s and value is not None
                }
                if found:
                    spent[s] += len(found) * float(self._budget(searches[s], rung))
                    standings[s] = sorted(found, key=lambda t: (self._rank(found[t]), t))
                    best[s] = found[standings[s][0]]
        winners = [
            Winner(search, search.trials[standings[s][0]], best[s], spent[s])
            for s, search in enumerate(searches)
        ]
        self._conclude(winners)

    def _searches(self, arguments: Sequence[str]) -> list[Search]:
        """The searches of all combinations of the grid; what a combination sets is not searched."""
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        swept: dict[str, list[str]] = {}
        typed: list[Dimension] = []
        parser = OverridesParser.create(config_loader=self._loader)
        for override in parser.parse_overrides(given):
            key = override.get_key_element()
            typed = [dimension for dimension in typed if dimension.key != key]
            swept.pop(key, None)
            if override.is_sweep_override() and not override.is_discrete_sweep():
                typed.append(Dimension.of(key, override))
            elif override.is_discrete_sweep():
                swept[key] = list(override.sweep_string_iterator())
            else:
                swept[key] = [override.get_value_element_as_str()]
        combinations = itertools.product(
            *([f"{key}={value}" for value in values] for key, values in swept.items())
        )
        fixed = {*swept, *(dimension.key for dimension in typed)}
        return [self._search(combination, typed, fixed) for combination in combinations]

    def _search(
        self, combination: tuple[str, ...], typed: Sequence[Dimension], fixed: set[str]
    ) -> Search:
        config = self._loader.load_sweep_config(self._settings, [*combination])
        optimizer: Any = OmegaConf.to_container(config.optimizer, resolve=False)
        space = [
            *typed,
            *(d for d in space_of(optimizer.get("search") or {}) if d.key not in fixed),
        ]
        budget = {key: config.budget[key] for key in _BUDGETS}
        key, whole = next(
            ((key, value) for key, value in budget.items() if value is not None),
            ("steps", DEFAULT_STEPS),
        )
        trials = trials_in(space, self.sizes[0])
        return Search(combination, dict(config.hydra.runtime.choices), trials, (key, whole))

    def _launch(
        self, searches: Sequence[Search], jobs: Sequence[tuple[int, int]], rung: int
    ) -> list[float | None]:
        """Run the jobs; returns their dev metrics, None without a result."""
        batch = [
            [
                *searches[s].combination,
                *searches[s].trials[trial],
                f"budget.{searches[s].budget[0]}={self._budget(searches[s], rung)}",
                f"suite={self.suite}",
            ]
            for s, trial in jobs
        ]
        if not batch:
            return []
        self.validate_batch_is_legal(batch)
        returns = self._launcher.launch(batch, initial_job_idx=self.job_idx)
        self.job_idx += len(returns)
        return [one.return_value for one in returns]

    def _budget(self, search: Search, rung: int) -> str:
        """The budget of a run in this rung."""
        key, whole = search.budget
        part = whole / self.reduction ** (len(self.sizes) - 1 - rung)
        return f"{part:g}" if key == "seconds" else str(max(1, round(part)))

    def _rank(self, value: float) -> float:
        return value if lower_is_better(self._settings.optimized_metric) else -value

    def _conclude(self, winners: Sequence[Winner]) -> None:
        """Print the winners, and write them as tables for conf/cells."""
        metric = self._settings.optimized_metric
        varied = _varied([winner.search.combination for winner in winners])
        folder = Path(self._settings.runs_root) / self.suite
        tables: dict[str, dict[str, list[str]]] = {}  # file -> table -> its lines
        found_for: dict[str, str] = {}  # file -> the overrides that its rows are for
        for winner, label in zip(winners, varied, strict=True):
            search, key = winner.search, winner.search.budget[0]
            row = search.choices["optimizer"]
            name = ", ".join(filter(None, [row, *label]))
            cost = f"{len(search.trials)} trials, {winner.spent:,.0f} {key}"
            if not math.isfinite(winner.value):
                print(f"{name}: no trial has a finite {metric} ({cost})")
                continue
            found = ", ".join(winner.settings) or "its own settings"
            print(f"{name}: {found}: {metric} {winner.value:.4g} ({cost})")
            group, first = "tuned", search.choices["model"]
            if experiment := search.choices.get("experiment"):
                group, first = "tuned_experiment", experiment
            settings = _whole_row(f"{group}/{first}-{row}", winner.settings)
            line = f"    {row}: {settings}  # {metric} {winner.value:.4g}; {cost}\n"
            grid = filter(None, [search.choices.get("grid")])
            values = (plain_text(word.partition("=")[2]) for word in label)
            file = "-".join(["tuned", *grid, *values])
            found_for[file] = " ".join(label)
            tables.setdefault(file, {}).setdefault(f"{group}:\n  {first}:\n", []).append(line)
        for file, parts in tables.items():
            path = folder / f"{file}.yaml"
            where = f" for {found_for[file]}" if found_for[file] else ""
            text = "".join(table + "".join(lines) for table, lines in parts.items())
            path.write_text(
                f"# Found by zobench tune{where}; a table for the folder cells/.\n{text}"
            )
            print(f"{path}: the winners{where}, for the cells/ of a --config-dir")
        if len(tables) > 1:
            print(
                "these files have the same rows: give each a --config-dir and a launch of its own"
            )


def _whole_row(name: str, found: Sequence[str]) -> str:
    """The settings found, over those of the row of conf/cells that a table with them replaces."""
    there = rows().get(name)
    base = dict(there.settings) if there else {}
    merged = OmegaConf.to_container(OmegaConf.merge(base, OmegaConf.from_dotlist([*found])))
    text: str = yaml.safe_dump(
        merged, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
    )
    return text.strip()


def _varied(combinations: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """Of each combination the overrides that are not in all of them, without the optimizer's."""
    shared = set.intersection(*map(set, combinations)) if combinations else set()
    return [
        [word for word in combination if word not in shared and not word.startswith("optimizer=")]
        for combination in combinations
    ]


def space_of(declared: Mapping[str, str]) -> list[Dimension]:
    """The dimensions of a `search` section: key -> a sweep as in Hydra's overrides."""
    parser = OverridesParser.create()
    words = [(key, f"{key}={sweep}") for key, sweep in declared.items()]
    return [Dimension.of(key, parser.parse_override(word)) for key, word in words]


def sizes(trials: int, reduction: int, rungs: int) -> list[int]:
    """The number of trials in each rung; UserError for numbers out of range."""
    for name, value, least in (
        ("trials", trials, 1),
        ("reduction", reduction, 2),
        ("rungs", rungs, 1),
    ):
        if value < least:
            raise UserError(f"hydra.sweeper.{name}={value}: must be at least {least}")
    return [math.ceil(trials / reduction**rung) for rung in range(rungs)]


def words(arguments: list[str]) -> list[str]:
    """The Hydra overrides of a `zobench tune` command line."""
    parser = argparse.ArgumentParser(
        prog="zobench tune",
        description="Search the hyper-parameters of every row of a grid with the same number of"
        " trials, by successive halving on dev. Hydra overrides, as for a sweep; the trials are"
        " runs of the suite NAME_search, and tuned.yaml there has the winners.",
        epilog="zobench tune experiment=lab_seeds --trials 9",
        allow_abbrev=False,
    )
    parser.add_argument("--trials", type=int, help="in the first rung (9)")
    parser.add_argument("--reduction", type=int, help="of trials, from rung to rung (3)")
    parser.add_argument("--rungs", type=int, help="rounds; the last has the whole budget (2)")
    given, rest = parser.parse_known_args(arguments)
    numbers = {key: value for key, value in vars(given).items() if value is not None}
    own = ["hydra/sweeper=halving", *(f"hydra.sweeper.{k}={v}" for k, v in numbers.items())]
    # Hydra reads overrides in one group only, so an option such as --config-dir stays before them
    first = next((i for i, word in enumerate(rest) if "=" in word and word[0] != "-"), len(rest))
    return ["-m", *rest[:first], *own, *rest[first:]]
