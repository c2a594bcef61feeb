"""Budgets in forwards (for methods with different costs per step), in steps or in seconds."""

import math
from collections.abc import Mapping
from typing import Any

from zobench.build import build, check
from zobench.errors import UserError
from zobench.zo.estimators.base import Estimator

DEFAULT_STEPS = 2000


def check_budget(budget: Mapping[str, Any]) -> None:
    """Raise UserError for more than one budget, or a negative or infinite one."""
    given = {key: value for key, value in budget.items() if value is not None}
    if len(given) > 1:
        names = ", ".join(f"budget.{key}={value}" for key, value in given.items())
        raise UserError(f"{names}: a run has one budget; set the others to null")
    for key, value in given.items():
        if not 0 <= value < math.inf:
            raise UserError(f"budget.{key}={value}: must be a number from 0 up")


def steps_for(
    budget: int,
    train: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    estimator: Mapping[str, Any],
) -> tuple[int, dict[str, int]]:
    """Convert a budget in forwards to steps, and `log_every` and `eval_every` with it.

    optimizer, estimator: their settings; an optimizer without an `estimator` back-propagates, at
    one forward per step. Raises UserError if the budget is less than one step.
    """
    steps, cost = budget, 1.0
    if "estimator" in optimizer:
        check({"estimator": estimator})
        steps, cost = _affordable(build(estimator), budget)
    if steps < 1:
        raise UserError(f"budget.forwards={budget}: one step of this optimizer costs {cost:.4g}")
    periods = {key: max(1, round(train[key] / cost)) for key in ("log_every", "eval_every")}
    return steps, periods


def _affordable(estimator: Estimator, budget: int) -> tuple[int, float]:
    """The number of steps that the budget covers, and the mean cost of a step."""
    steps = int(budget / estimator.forwards)
    while estimator.cost(steps + 1) <= budget:
        steps += 1
    while steps and estimator.cost(steps) > budget:
        steps -= 1
    return steps, estimator.forwards
