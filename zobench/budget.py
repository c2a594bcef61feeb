"""A budget in forwards, so that methods which cost differently per step are compared fairly."""

from collections.abc import Mapping
from typing import Any

from zobench.build import build, check
from zobench.errors import UserError
from zobench.zo.estimators.base import Estimator


def steps_for(
    train: Mapping[str, Any], optimizer: Mapping[str, Any], estimator: Mapping[str, Any]
) -> dict[str, int]:
    """`steps`, `log_every` and `eval_every` when `train.forwards` counts all three in forwards.

    optimizer, estimator: their settings; an optimizer without an `estimator` back-propagates, at
    one forward a step. Raises UserError when the budget does not pay for one step.
    """
    budget = train["forwards"]
    steps, cost = budget, 1.0
    if "estimator" in optimizer:
        check({"estimator": estimator})
        steps, cost = _affordable(build(estimator), budget)
    if steps < 1:
        raise UserError(f"train.forwards={budget}: one step of this optimizer costs {cost:.4g}")
    periods = {key: max(1, round(train[key] / cost)) for key in ("log_every", "eval_every")}
    return {"steps": steps, **periods}


def _affordable(estimator: Estimator, budget: int) -> tuple[int, float]:
    """The most steps whose cost the budget covers, and what one costs on average."""
    steps = int(budget / estimator.forwards)
    while estimator.cost(steps + 1) <= budget:
        steps += 1
    while steps and estimator.cost(steps) > budget:
        steps -= 1
    return steps, estimator.forwards
