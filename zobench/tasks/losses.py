"""The losses of tasks with choices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.example import Row
from zobench.tasks.own import OF_AN_EXAMPLE, Own, own_function
from zobench.tasks.reading import Reading
from zobench.tasks.scoring import target_log_p
from zobench.tasks.split_metrics import SplitMetric

Scores = Callable[..., Tensor]  # of a model and a batch: the scores of all candidates


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

    def value(self, scores: Tensor, batch: Any) -> Tensor:
        """The loss by the scores of all choices."""
        return cross_entropy(scores, batch.gold.to(scores.device))

    def outputs(self, model: Any, batch: Batch, scores: Scores) -> Tensor:
        """The model's outputs that the loss needs, one row per example, float32."""
        return scores(model, batch)

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch of loss examples by the outputs for each, a float32 scalar."""
        return self.value(outputs, batch)


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

    def value(self, scores: Tensor, batch: Any) -> None:
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
    def value(self, scores: Tensor, batch: Any) -> Tensor:
        return -(scores.argmax(1) == batch.gold.to(scores.device)).float().mean()


@dataclass(frozen=True)
class RowBatch:
    """A batch and its examples, whose rows a function of the user's own gets."""

    batch: Batch
    encoded: Sequence[Encoded]

    @property
    def gold(self) -> Tensor:
        return self.batch.gold

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def examples(self) -> int:
        return len(self.encoded)

    def cut(self, first: int, last: int) -> "RowBatch":
        return RowBatch(self.batch.cut(first, last), self.encoded[first:last])


class RewardLoss(ChoiceLoss):
    """Minus the mean of a function of the user's own, called with (output, gold, row).

    For optimizers that need no gradient. reading: says what an output is.
    """

    differentiable = False

    def __init__(self, reward: Own, reading: Reading) -> None:
        self.reward, self.reading = reward, reading

    def try_on(self, scores: Tensor, examples: Sequence[Encoded]) -> None:
        """Call the function for each example; UserError if it does not return finite numbers."""
        for arguments in self._arguments(scores, examples):
            self.reward.tried(*arguments)

    def value(self, scores: Tensor, batch: RowBatch) -> Tensor:
        values = [self.reward(*some) for some in self._arguments(scores, batch.encoded)]
        return torch.tensor(-sum(values) / len(values))

    def outputs(self, model: Any, batch: Any, scores: Scores) -> Tensor:
        return scores(model, batch.batch, summed=self.reading.summed)

    def _arguments(
        self, scores: Tensor, examples: Sequence[Encoded]
    ) -> list[tuple[Any, Any, Mapping[str, Any] | None]]:
        pairs = zip(self.reading.outputs(scores.detach(), examples), examples, strict=True)
        return [(output, example.expected, example.row) for output, example in pairs]


Loss = ChoiceLoss | AnswerLoss

LOSSES: Mapping[str, Callable[[], Loss]] = {
    "choice": ChoiceLoss,
    "answer": AnswerLoss,
    "sequence": SequenceLoss,
    "accuracy": NegativeAccuracy,
}


def loss_named(given: Any, reading: Reading, known: Mapping[str, Callable[[], Loss]]) -> Loss:
    """The loss that `task.loss` holds: one of ours by its name, or a function of the user's own.

    Raises UserError for any other name.
    """
    if own := own_function(given, "task.loss", OF_AN_EXAMPLE):
        return RewardLoss(own, reading)
    if given not in known:
        raise UserError(
            f"task.loss={given}: choose {', '.join(known)}, or a function of your own, such as"
            " mine.reward"
        )
    return known[given]()


def read_rows(loss: Loss, metrics: Sequence[SplitMetric]) -> bool:
    """Whether a function of the user's own is called with the rows."""
    return isinstance(loss, RewardLoss) or any(isinstance(metric.of, Own) for metric in metrics)


def with_rows(encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
    """The examples, each with the columns of its row."""
    return [replace(e, row=row.values) for e, row in zip(encoded, rows, strict=True)]
