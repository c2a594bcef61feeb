"""A budget in forwards, so that methods which cost differently per step are compared fairly."""

from collections.abc import Mapping
from typing import Any

from zobench.build import build, check
from zobench.errors import UserError


def steps_for(
    train: Mapping[str, Any], optimizer: Mapping[str, Any], estimator: Mapping[str, Any]
) -> dict[str, int]:
    """`steps`, `log_every` and `eval_every` when `train.forwards` counts all three in forwards.

    optimizer, estimator: their settings; an optimizer without an `estimator` back-propagates, at
    one forward a step. Raises UserError when the budget does not pay for one step.
    """
    cost = 1
    if "estimator" in optimizer:
        check({"estimator": estimator})
        cost = int(build(estimator).forwards)
    budget = train["forwards"]
    if budget < cost:
        raise UserError(f"train.forwards={budget}: one step of this optimizer costs {cost}")
    periods = {key: max(1, round(train[key] / cost)) for key in ("log_every", "eval_every")}
    return {"steps": budget // cost, **periods}
