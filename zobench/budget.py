"""Budgets: in forwards, for methods which cost differently per step; in steps or in seconds."""

import math
from collections.abc import Mapping
from typing import Any

from zobench.build import build, check
from zobench.errors import UserError
from zobench.zo.estimators.base import Estimator

DEFAULT_STEPS = 2000


def check_budget(budget: Mapping[str, Any]) -> None:
    """Raise UserError for more than one budget, or one that is negative."""
    given = {key: value for key, value in budget.items() if value is not None}
    if len(given) > 1:
        said = ", ".join(f"budget.{key}={value}" for key, value in given.items())
        raise UserError(f"{said}: a run has one budget; set the others to null")
    for key, value in given.items():
        if not 0 <= value < math.inf:
            raise UserError(f"budget.{key}={value}: must be a number from 0 up")


def steps_for(
    budget: int,
    train: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    estimator: Mapping[str, Any],
) -> tuple[int, dict[str, int]]:
    """The steps that so many forwards pay for, and `log_every` and `eval_every` in such steps.

    optimizer, estimator: their settings; an optimizer without an `estimator` back-propagates, at
    one forward a step. Raises UserError when the budget does not pay for one step.
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
    """The most steps whose cost the budget covers, and what one costs on average."""
    steps = int(budget / estimator.forwards)
    while estimator.cost(steps + 1) <= budget:
        steps += 1
    while steps and estimator.cost(steps) > budget:
        steps -= 1
    return steps, estimator.forwards
