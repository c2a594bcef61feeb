"""A budget in forwards, and one learning-rate grid for rows whose rates lie far apart."""

from collections.abc import Callable
from typing import Any

import pytest

from zobench.build import build
from zobench.errors import UserError

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("overrides", "cost"),
    [
        (["optimizer=mezo"], 2),
        (["optimizer=mezo", "estimator.queries=3"], 6),
        (["optimizer=mezo", "estimator=one_sided", "estimator.queries=4"], 5),
        (["optimizer=ldsd_sgd"], 6),
        (["optimizer=ldsd_sgd", "estimator.variant=released"], 7),
        (["optimizer=loren"], 6),
        (["optimizer=adamw"], 1),
    ],
)
def test_every_method_gets_the_steps_that_its_forwards_pay_for(
    compose: Compose, overrides: list[str], cost: int
) -> None:
    """And is evaluated and logged at the same numbers of forwards as the others."""
    periods = ("train.eval_every=120", "train.log_every=60")
    settings = compose("train.forwards=1260", *periods, *overrides)
    train = settings["train"]
    assert train["steps"] == 1260 // cost
    assert train["eval_every"] == round(120 / cost)
    assert train["log_every"] == round(60 / cost)


@pytest.mark.parametrize("optimizer", ["dizo", "p_gap", "mezo_svrg"])
def test_costs_that_change_from_step_to_step_stay_within_the_budget(
    compose: Compose, optimizer: str
) -> None:
    """The steps cost no more than the budget, and one step more would."""
    for budget in (99, 600, 1234):
        settings = compose(f"optimizer={optimizer}", f"train.forwards={budget}")
        estimator = build(settings["optimizer"]["estimator"])
        steps = settings["train"]["steps"]
        assert estimator.cost(steps) <= budget < estimator.cost(steps + 1)


def test_what_depends_on_the_steps_follows_the_budget(compose: Compose) -> None:
    """ConMeZO's warm-up is that of the run's true length."""
    settings = compose("optimizer=conmezo", "train.forwards=4000")
    assert settings["optimizer"]["sampler"]["steps"] == settings["train"]["steps"] == 2000


def test_a_budget_below_one_step_is_refused(compose: Compose) -> None:
    """The sentence names both numbers."""
    with pytest.raises(UserError, match=r"train\.forwards=5.* 6"):
        compose("optimizer=loren", "train.forwards=5")


def test_the_factor_becomes_the_learning_rate(compose: Compose) -> None:
    """The run is the one that has the product as its rate, whoever typed what."""
    by_factor = compose("optimizer=mezo", "lr_factor=0.3")
    by_rate = compose("optimizer=mezo", "optimizer.lr=3e-5")
    assert by_factor == by_rate  # tiny's MeZO has 1e-4
    assert "lr_factor" not in by_factor
    with pytest.raises(UserError, match="lr_factor"):
        compose("optimizer=zero_shot", "lr_factor=0.3")
