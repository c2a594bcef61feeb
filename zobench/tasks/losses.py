"""The losses of tasks with choices."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.scoring import target_log_p

Scores = Callable[[Any, Batch], Tensor]


class ChoiceLoss:
    """Cross-entropy over the choices' length-normalised log-likelihoods (not the vocabulary)."""

    differentiable = True

    def check(self, interface: Interface) -> None:
        """Raise UserError for a kind of model that has no such loss; every one scores choices."""

    def loss_example(self, example: Encoded) -> Encoded:
        """The candidates that must be evaluated for the loss."""
        return example

    def weight(self, batch: Batch) -> int:
        """The number of terms whose mean is the batch's loss."""
        return len(batch.gold)

    def value(self, scores: Tensor, gold: Tensor) -> Tensor:
        """The loss by the scores of all choices."""
        return cross_entropy(scores, gold.to(scores.device))

    def outputs(self, model: Any, batch: Batch, scores: Scores) -> Tensor:
        """The model's outputs that the loss needs, one row per example, float32."""
        return scores(model, batch)

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch of loss examples by the outputs for each, a float32 scalar."""
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


Loss = ChoiceLoss | AnswerLoss

LOSSES: dict[str, type[ChoiceLoss] | type[AnswerLoss]] = {
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
