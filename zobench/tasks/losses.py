"""The losses of tasks with choices."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.evaluation import MapFn
from zobench.tasks.scoring import target_log_p

Scores = Callable[[Any, Batch], Tensor]


class Loss(Protocol):
    """A loss, and the part of an example that it needs."""

    differentiable: bool

    def check(self, interface: Interface) -> None:
        """Raise UserError for a kind of model that has no such loss."""

    def loss_example(self, example: Encoded) -> Encoded:
        """The candidates that must be evaluated for the loss."""

    def weight(self, batch: Batch) -> int:
        """The number of terms whose mean is the batch's loss."""

    def value(self, scores: Tensor, gold: Tensor) -> Tensor | None:
        """The loss by the scores of all choices, or None where it does not follow from them."""

    def outputs(self, model: Any, batch: Batch, scores: Scores) -> Tensor:
        """The model's outputs that the loss needs, one row per example, float32."""

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch of loss examples by the outputs for each, a float32 scalar."""


class ChoiceLoss:
    """Cross-entropy over the choices' length-normalised log-likelihoods (not the vocabulary)."""

    differentiable = True

    def check(self, interface: Interface) -> None:
        """Every model scores choices."""

    def loss_example(self, example: Encoded) -> Encoded:
        return example

    def weight(self, batch: Batch) -> int:
        return len(batch.gold)

    def value(self, scores: Tensor, gold: Tensor) -> Tensor:
        return cross_entropy(scores, gold.to(scores.device))

    def outputs(self, model: Any, batch: Batch, scores: Scores) -> Tensor:
        return scores(model, batch)

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.value(outputs, batch.gold)


class AnswerLoss:
    """Language modelling of the right choice: mean over all of its tokens in the batch."""

    differentiable = True

    def check(self, interface: Interface) -> None:
        if interface is Interface.CLASSIFIER:
            raise UserError("task.loss: a classification head has no tokens; choose choice")

    def loss_example(self, example: Encoded) -> Encoded:
        return Encoded((example.candidates[example.gold],), 0)

    def weight(self, batch: Batch) -> int:
        return int((batch.target >= 0).sum())

    def value(self, scores: Tensor, gold: Tensor) -> None:
        """None: the scores are means over tokens, this loss weighs all tokens equally."""

    def outputs(self, model: Any, batch: Batch, scores: Scores) -> Tensor:
        del scores
        return target_log_p(model, batch).sum(1)

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        return -outputs.sum() / (batch.target >= 0).sum().to(outputs.device)


class SequenceLoss(AnswerLoss):
    """Language modelling of prompt and right choice together: every token but a row's first.

    MeZO's code without `only_train_option` pads on the left and also scores the first token of each
    row that is padded, after a padding token; that term depends on the batch and is left out here.
    """

    def check(self, interface: Interface) -> None:
        if interface is not Interface.CAUSAL:
            raise UserError("task.loss=sequence: only a decoder predicts every token of a text")

    def loss_example(self, example: Encoded) -> Encoded:
        gold = example.candidates[example.gold]
        target = (*gold.context[1:], gold.target[-1])
        return Encoded((Candidate(gold.context, target),), 0)


class NegativeAccuracy(ChoiceLoss):
    """Minus the accuracy of the batch; for optimizers that need no gradient (MeZO, 3.3)."""

    differentiable = False

    @torch.no_grad()
    def value(self, scores: Tensor, gold: Tensor) -> Tensor:
        return -(scores.argmax(1) == gold.to(scores.device)).float().mean()


class Weighed(Protocol):
    """The part of a problem that its mean loss needs."""

    def loss(self, model: Any, batch: Any) -> Tensor: ...

    def weight(self, batch: Any) -> float: ...


def mean_loss(
    problem: Weighed,
    model: Any,
    groups: Iterable[Sequence[Encoded]],
    batch_of: Callable[[Sequence[Encoded]], Any],
    map_fn: MapFn = map,
) -> float:
    """The loss of all examples as if they were one batch: groups are weighted by `weight`."""

    def weighed(examples: Sequence[Encoded]) -> tuple[float, float]:
        batch = batch_of(examples)
        return problem.weight(batch), float(problem.loss(model, batch))

    total = weights = 0.0
    for weight, loss in map_fn(weighed, groups):
        total += weight * loss
        weights += weight
    return total / weights


LOSSES: dict[str, type[Loss]] = {
    "choice": ChoiceLoss,
    "answer": AnswerLoss,
    "sequence": SequenceLoss,
    "accuracy": NegativeAccuracy,
}


def loss_named(name: str) -> Loss:
    """The loss that `task.loss` names; raises UserError for any other name."""
    if name not in LOSSES:
        raise UserError(f"task.loss={name}: choose {', '.join(LOSSES)}")
    return LOSSES[name]()
