"""`optimizer.pack=auto`: measures whether the points of a step are faster in one call.

Losses of packed points differ from single ones by rounding, so the choice is made once, before the
first step, and meta.json keeps it for later attempts and replays.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.bench.clock import seconds_of
from zobench.errors import UserError
from zobench.run.captured import CapturedLoss
from zobench.run.meter import Meter
from zobench.run.progress import BudgetClock
from zobench.run.resume import ResumePoint
from zobench.run.steps import Steps
from zobench.settings import RunSettings
from zobench.tasks.problem import Problem
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer

ROUNDS = 2  # timed; one before them is not
MARGIN = 1.05  # a pack takes memory, so it has to be faster by more than the clock's noise
# an optimizer whose settings fit the run, and the loss where forwards are captured; or UserError
OptimizerOf = Callable[[RunSettings], tuple[torch.optim.Optimizer, CapturedLoss | None]]


class Choice(NamedTuple):
    """What meta.json keeps.

    points: at most this many in one call; 1 is one at a time. note: why, in one line. forwards:
    how many it took to measure.
    """

    points: int
    note: str
    forwards: int = 0


class _Trial:
    """Steps on the first batch, by an optimizer that nothing else uses."""

    def __init__(
        self,
        points: int,
        settings: RunSettings,
        model: Any,
        problem: Problem,
        optimizer_of: OptimizerOf,
        meter: Meter,
    ) -> None:
        own = settings.with_pack(points)
        self.optimizer, self._captured = optimizer_of(own)  # one point's forward may be a graph
        self.at_once = 1  # the most points that a call had
        self._problem = problem
        clock = BudgetClock(own.budget, meter)
        parts = (model, problem, self.optimizer, clock, ResumePoint(), self._loss)
        self.steps = Steps(own.train, own.seed, *parts)

    def _loss(self, model: Any, batch: Any) -> Tensor:
        assert isinstance(self.optimizer, ZOOptimizer)
        self.at_once = max(self.at_once, self.optimizer.engine.at_once)
        return (self._captured or self._problem.loss)(model, batch)

    def step(self) -> None:
        self.steps.live(self.steps.batch(0))


def choose(
    settings: RunSettings,
    model: Any,
    problem: Problem,
    optimizer_of: OptimizerOf,
    meter: Meter,
    ranks: int = 1,
) -> Choice:
    """Time steps on the first batch in both ways; the weights and all state are as before.

    Args:
        settings: Of the run, with `optimizer.pack=auto`.
        model: At its first weights.
        problem: Whose loss is evaluated.
        optimizer_of: Builds the run's optimizer for settings with a number.
        meter: Of the run.
        ranks: Processes that share the run.

    Returns:
        The choice; one point at a time where points cannot be evaluated together.

    Raises:
        UserError: The run cannot train with one point at a time either.
    """
    parts = (settings, model, problem, optimizer_of, meter)
    single = _Trial(1, *parts)
    if ranks > 1:
        return _one_by_one("several ranks share the run")
    model.train(False)  # as in the loop: no dropout
    kept = [(p, p.detach().to("cpu", copy=True)) for p in model.parameters() if p.requires_grad]

    def step_of(trial: _Trial) -> None:
        _restore(kept)
        trial.step()

    trials = [single]
    try:
        packed = _packed(trials, parts, step_of)
        if packed.at_once == 1:
            raise UserError("no two points of a step can be evaluated together")
        times: dict[_Trial, list[float]] = {single: [], packed: []}
        step_of(single)
        for _ in range(ROUNDS):
            for trial, seconds in times.items():
                seconds.append(seconds_of(lambda trial=trial: step_of(trial), meter.device))  # type: ignore[misc]
    except (UserError, Diverged) as error:
        return _one_by_one(_clause(error), _forwards(trials))
    finally:
        _restore(kept)
    ratio = min(times[single]) / min(times[packed])
    cost = f"measured by {_counted(_forwards(trials))}"
    if ratio > MARGIN:
        points = packed.at_once
        note = f"{points} points in one call, {ratio:.2g} times as fast as one by one; {cost}"
        return Choice(points, f"pack=auto: {note}", _forwards(trials))
    note = f"one by one: {packed.at_once} points in one call are {ratio:.2g} times as fast; {cost}"
    return Choice(1, f"pack=auto: {note}", _forwards(trials))


def _packed(
    trials: list[_Trial], parts: tuple[Any, ...], step_of: Callable[[_Trial], None]
) -> _Trial:
    """A trial that has taken a step with all points in one call, or as many as memory allows.

    It, and those that failed in a step, are added to `trials`. Raises UserError with the reason of
    the smallest pack.
    """
    optimizer = trials[0].optimizer
    assert isinstance(optimizer, ZOOptimizer)
    points = optimizer.estimator.cost(1)
    why: Exception = UserError("a step has one point")
    while points > 1:
        try:
            trials.append(_Trial(points, *parts))
            step_of(trials[-1])
            return trials[-1]
        except (UserError, ValueError, torch.OutOfMemoryError) as error:
            why = error
        points //= 2
    raise UserError(str(why)) from why


def _restore(kept: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for parameter, value in kept:
            parameter.copy_(value)


def _forwards(trials: list[_Trial]) -> int:
    return sum(trial.steps.loss.forwards for trial in trials)


def _one_by_one(why: str, forwards: int = 0) -> Choice:
    cost = f"; found out by {_counted(forwards)}" if forwards else ""
    return Choice(1, f"pack=auto: one by one: cannot be packed because {why}{cost}", forwards)


def _counted(forwards: int) -> str:
    return f"{forwards} forward{'s' if forwards > 1 else ''} that train nothing"


def _clause(error: Exception) -> str:
    """The reason in an error's message, without the setting and the advice."""
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"^(.*?pack=\d+|optimizer\.graph): ", "", lines[0]).partition(";")[0]
