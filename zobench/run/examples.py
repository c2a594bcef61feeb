"""The loss of each example of a batch, for estimators that look at single examples."""

from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.problem import ByExample, Problem
from zobench.zo.optimizer import ZOOptimizer


def wants_examples(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's closure has to return a loss per example."""
    return isinstance(optimizer, ZOOptimizer) and optimizer.estimator.by_example


def check_examples(problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError if the optimizer needs losses by example and the task has none."""
    if wants_examples(optimizer) and not isinstance(problem, ByExample):
        raise UserError(
            "estimator: it needs the loss of each example, and this task's loss is not a mean over"
            " examples; choose a task of texts, or estimator=two_sided"
        )


def losses_by_example(problem: ByExample, model: Any, batch: Any) -> Tensor:
    """The loss that each example would have as a batch of its own.

    Args:
        problem: A task of texts.
        model: Its model.
        batch: Of B examples, which go through the model together.

    Returns:
        (B,) losses, float32 or more.
    """
    outputs = problem.outputs(model, batch)
    each = range(batch.examples)
    return torch.stack([problem.loss_of(outputs[n : n + 1], batch.cut(n, n + 1)) for n in each])
