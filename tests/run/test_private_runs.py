"""DP-ZO in a run: losses by example, the reported guarantee, resume, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.run.test_micro import carry_out, result_of
from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.models.language_model import load
from zobench.run.examples import check_examples, losses_by_example
from zobench.run.folder import RunFolder
from zobench.tasks.problem import ByIndices
from zobench.zo.ledger import read
from zobench.zo.privacy import epsilon_of

__all__ = ["carry_out"]  # a fixture
CPU = torch.device("cpu")


@pytest.mark.parametrize("loss", ["choice", "answer", "sequence", "accuracy"])
def test_an_examples_loss_is_that_of_a_batch_of_its_own(
    compose: Callable[..., dict[str, Any]], loss: str
) -> None:
    """Also where rows differ in length; their mean is the batch's, if examples weigh alike."""
    task = build(compose(f"task.loss={loss}", "task.sizes.train=8")["task"])
    loaded = load(path="zobench:tiny")
    problem = task.prepare(loaded, CPU)
    with torch.no_grad():
        each = losses_by_example(problem, loaded.model, batch := problem.batch([0, 3, 5, 6]))
        alone = [problem.loss(loaded.model, problem.batch([n])) for n in (0, 3, 5, 6)]
        whole = problem.loss(loaded.model, batch)
    torch.testing.assert_close(each, torch.stack(alone), rtol=1e-5, atol=1e-6)
    if loss != "sequence":  # a mean over tokens
        torch.testing.assert_close(each.mean(), whole, rtol=1e-5, atol=1e-6)


def test_a_run_reports_what_it_has_spent(carry_out: Callable[..., RunFolder]) -> None:
    """Four steps of 8 of 48 examples; one loss in the ledger for each forward."""
    folder = carry_out("optimizer=dp_zo", "train.batch_size=8", "estimator.noise=2.0")
    spent = epsilon_of(noise=2.0, rate=8 / 48, steps=4, delta=1e-5)
    assert result_of(folder)["estimator"] == {"epsilon": pytest.approx(spent), "delta": 1e-5}
    assert [len(record.losses) for record in read(folder.ledger)] == [2] * 4
    assert result_of(folder)["cost"]["forwards"] == 8


def test_micro_batches_have_the_same_examples(carry_out: Callable[..., RunFolder]) -> None:
    """The coefficients agree, which a mean over parts could not know."""
    options = ("optimizer=dp_zo", "optimizer.lr=1e-7", "estimator.clip=0.5")
    whole, parts = carry_out(*options), carry_out(*options, "train.micro_batch_size=5")
    for one, other in zip(read(whole.ledger), read(parts.ledger), strict=True):
        assert list(other.coefficients) == pytest.approx(list(one.coefficients), abs=2e-3)


def test_methods_without_noise_report_nothing(carry_out: Callable[..., RunFolder]) -> None:
    """Neither MeZO nor clipping alone."""
    assert "estimator" not in result_of(carry_out("optimizer=mezo"))
    assert "estimator" not in result_of(carry_out("optimizer=dp_zo", "estimator.noise=0.0"))


def test_a_task_without_examples_is_refused(compose: Callable[..., dict[str, Any]]) -> None:
    """A function of a point has one loss; methods that need no more take it."""
    model = nn.Linear(2, 1)
    for row, refused in (("dp_zo", True), ("mezo", False)):
        optimizer = build_optimizer(
            compose(f"optimizer={row}")["optimizer"], model.named_parameters()
        )
        problem: Any = ByIndices()
        if refused:
            with pytest.raises(UserError, match="it needs the loss of each example") as caught:
                check_examples(problem, optimizer)
            assert "\n" not in str(caught.value)
        else:
            check_examples(problem, optimizer)
