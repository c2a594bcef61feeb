"""A budget in forwards, and one learning-rate grid for rows whose rates lie far apart."""

from collections.abc import Callable
from typing import Any

import pytest

from zobench.build import build, try_optimizer
from zobench.errors import UserError
from zobench.settings import identity

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
    settings = compose("budget.forwards=1260", *periods, *overrides)
    train = settings["train"]
    assert settings["budget"]["steps"] == 1260 // cost
    assert train["eval_every"] == round(120 / cost)
    assert train["log_every"] == round(60 / cost)


@pytest.mark.parametrize("optimizer", ["dizo", "p_gap", "mezo_svrg"])
def test_costs_that_change_from_step_to_step_stay_within_the_budget(
    compose: Compose, optimizer: str
) -> None:
    """The steps cost no more than the budget, and one step more would."""
    for budget in (99, 600, 1234):
        settings = compose(f"optimizer={optimizer}", f"budget.forwards={budget}")
        estimator = build(settings["optimizer"]["estimator"])
        steps = settings["budget"]["steps"]
        assert estimator.cost(steps) <= budget < estimator.cost(steps + 1)


def test_what_depends_on_the_steps_follows_the_budget(compose: Compose) -> None:
    """ConMeZO's warm-up is that of the run's true length."""
    settings = compose("optimizer=conmezo", "budget.forwards=4000")
    assert settings["optimizer"]["sampler"]["steps"] == settings["budget"]["steps"] == 2000


def test_a_budget_below_one_step_is_refused(compose: Compose) -> None:
    """The sentence names both numbers."""
    with pytest.raises(UserError, match=r"budget\.forwards=5.* 6"):
        compose("optimizer=loren", "budget.forwards=5")


def test_the_factor_becomes_the_learning_rate(compose: Compose) -> None:
    """The run has the same id as one with the product as its rate."""
    by_factor = compose("optimizer=mezo", "lr_factor=0.3")
    by_rate = compose("optimizer=mezo", "optimizer.lr=3e-5")
    assert by_factor == by_rate  # tiny's MeZO has 1e-4
    assert "lr_factor" not in by_factor
    with pytest.raises(UserError, match="lr_factor"):
        compose("optimizer=zero_shot", "lr_factor=0.3")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["budget.forwards=600", "budget.steps=100"], r"budget\.steps=100.*one budget"),
        (["budget.steps=-1"], r"budget\.steps=-1: must be a number from 0"),
        (["budget.seconds=inf"], r"budget\.seconds=inf: must be a number"),
    ],
)
def test_a_run_has_one_budget(compose: Compose, overrides: list[str], message: str) -> None:
    """Two of them, or one below nothing, are refused by name; none means 2000 steps."""
    with pytest.raises(UserError, match=message):
        compose(*overrides)
    assert compose()["budget"]["steps"] == 2000


def test_forwards_and_the_steps_they_pay_for_name_one_run(compose: Compose) -> None:
    """The numbers would be the same; a budget in seconds is another run."""
    periods = ("train.eval_every=100", "train.log_every=10")
    steps = compose("budget.steps=300", *periods)
    forwards = compose("budget.forwards=600", "train.eval_every=200", "train.log_every=20")
    assert identity(steps) == identity(forwards)
    assert identity(compose("budget.seconds=300", *periods)) != identity(steps)


def test_a_budget_in_seconds_has_no_steps_for_those_who_need_them(compose: Compose) -> None:
    """ConMeZO's warm-up says so in one sentence."""
    settings = compose("optimizer=conmezo", "budget.seconds=5")
    with pytest.raises(UserError, match=r"sampler\.steps: the warm-up needs"):
        try_optimizer(settings["optimizer"])
