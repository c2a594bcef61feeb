"""The target of a workload: a typed number, or the best dev metric that a row reached."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from zobench.errors import UserError


@dataclass(frozen=True)
class Typed:
    """Targets as they were typed, by the workload's name or a part of it; "" is any workload."""

    values: Mapping[str, float]

    @property
    def row(self) -> None:
        """The row that the targets are taken from."""
        return None

    def check(self, workloads: Sequence[str]) -> None:
        """Raise UserError unless every name belongs to a workload, and every workload has one."""
        listed = ", ".join(f"'{workload}'" for workload in workloads)
        for name in self.values:
            if not any(name in _names(workload) for workload in workloads):
                raise UserError(f"--target {name}=...: no such workload; there are {listed}")
        for workload in workloads:
            if (count := len(self.values.keys() & _names(workload))) != 1:
                found = "no target" if count == 0 else f"{count} targets"
                raise UserError(f"--target gives '{workload}' {found}; the workloads are {listed}")

    def value(self, workload: str, _best: Callable[[str, float], list[float]]) -> float:
        """The target of a workload that `check` has accepted."""
        return next(self.values[name] for name in _names(workload) if name in self.values)

    @property
    def text(self) -> str:
        return "as typed"


@dataclass(frozen=True)
class Reached:
    """The best that `row` reached up to `forwards`: the median over its seeds.

    Of an even number of seeds it is the worse of the middle two, so that the row itself reaches
    its target in more than half of them.
    """

    row: str
    lower: bool
    forwards: float = math.inf

    def check(self, _workloads: Sequence[str]) -> None:
        """Every workload has a target by this rule, or `value` raises."""

    def value(self, workload: str, best: Callable[[str, float], list[float]]) -> float:
        """The target; UserError without a finished run that was evaluated in time.

        Args:
            best: the best value of each finished run of a row up to a number of forwards.
        """
        values = sorted(best(self.row, self.forwards), reverse=not self.lower)
        if not values:
            until = "" if math.isinf(self.forwards) else f" by {self.forwards:g} forwards"
            raise UserError(
                f"no finished run of '{self.row}' has an evaluation of '{workload}'{until} to take"
                " the target from; choose another row with --target-of, or --target"
            )
        return values[len(values) // 2]

    @property
    def text(self) -> str:
        until = "" if math.isinf(self.forwards) else f" by {self.forwards:g} forwards"
        return f"the best that {self.row} reached{until}, median over seeds"


TargetRule = Typed | Reached


def target_rule(
    typed: str | None, row: str | None, baseline: str | None, lower: bool
) -> TargetRule:
    """The rule of the options --target and --target-of; without them the best of the baseline."""
    if typed is not None and row is not None:
        raise UserError("--target and --target-of: choose one of them")
    if typed is not None:
        return Typed(_values(typed))
    if row is not None:
        return _reached(row, lower)
    if baseline is None:
        raise UserError(
            "there is no baseline to take the targets from: the suite's table.baseline is not set;"
            " choose --baseline, --target-of or --target"
        )
    return Reached(baseline, lower)


def _values(typed: str) -> dict[str, float]:
    """`0.5`, or `sst2=0.5,rte=0.6`."""
    values: dict[str, float] = {}
    for part in typed.split(","):
        name, _, text = part.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or name.strip() in values:
            raise UserError(f"--target {typed}: must be a number, or WORKLOAD=NUMBER,... by task")
        values[name.strip()] = value
    return values


def _reached(text: str, lower: bool) -> Reached:
    """`mezo`, or `mezo@400`."""
    row, at, forwards = text.rpartition("@")
    if not at:
        return Reached(text, lower)
    try:
        until = float(forwards)
    except ValueError:
        until = math.nan
    if not until >= 0:
        raise UserError(f"--target-of {text}: must be ROW or ROW@FORWARDS, such as mezo@400")
    return Reached(row, lower, until)


def _names(workload: str) -> set[str]:
    """What a typed target may call a workload."""
    return {"", workload, *workload.split(", ")}
