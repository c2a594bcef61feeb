"""A task of texts prepared for one model: what choices and generated answers have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import (
    LAUNCHED,
    Forwards,
    MapFn,
    evaluating,
    in_batches,
    in_data_order,
)
from zobench.tasks.losses import Loss
from zobench.tasks.problem import Answer
from zobench.tasks.split_metrics import SplitMetric


class Answered(NamedTuple):
    """A batch of examples with answers.

    loss: the sum over the batch, if it follows from the answers. outputs: what metrics of the split
    get, one per example; empty where there are none.
    """

    loss: float | None
    answers: list[Answer]
    outputs: list[Any]


@dataclass(frozen=True)
class TextProblem(ABC):
    """Encoded examples per split, and how to make a batch of some of them; a Problem.

    loss_examples: candidates that the loss needs, of all splits; eval_examples: what is answered,
    of dev and test; objective: the loss over `loss_examples`. metrics: of a split, which `evaluate`
    reports, too. notes: irregularities of the rows. forwards: how evaluations compute
    theirs.
    """

    loss_examples: Mapping[str, Sequence[Encoded]]
    eval_examples: Mapping[str, Sequence[Any]]
    objective: Loss
    encoder: Encoder
    device: torch.device
    metrics: Sequence[SplitMetric] = field(default=(), kw_only=True)
    notes: Sequence[str] = field(default=(), kw_only=True)
    forwards: Forwards = field(default=LAUNCHED, kw_only=True)

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.loss_examples.items()}

    @property
    def differentiable(self) -> bool:
        return self.objective.differentiable

    @property
    @abstractmethod
    def score_name(self) -> str | None:
        """The name of the mean score of the answers; None where it is not reported."""

    def batch(self, indices: Sequence[int]) -> Any:
        return self._batch([self.loss_examples["train"][i] for i in indices])

    def length(self, index: int) -> int:
        return self.loss_examples["train"][index].length

    def loss(self, model: Any, batch: Any) -> Tensor:
        return self.loss_of(self.outputs(model, batch), batch)

    def outputs(self, model: Any, batch: Any) -> Tensor:
        return self.objective.outputs(model, batch, self.encoder.scores)

    def loss_of(self, outputs: Tensor, batch: Any) -> Tensor:
        return self.objective.of(outputs, batch)

    def weight(self, batch: Any) -> int:
        return self.objective.weight(batch)

    def evaluated_by(self, forwards: Forwards) -> Self:
        """The problem with evaluations whose forwards are computed in this way."""
        return replace(self, forwards=forwards)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        map_fn: MapFn = map,
    ) -> dict[str, float]:
        """`loss`, the mean score under its name and as `accuracy`, and `metrics`.

        Tables and selection read `accuracy` where a task has one. Batches of examples of similar
        length hold little padding.
        """
        examples = self.eval_examples[split]
        with evaluating(model):
            of_batch = partial(self._answered, model, batch_size)
            found = list(map_fn(of_batch, in_batches(examples, batch_size)))
            given = [answer for one in found for answer in one.answers]
            score = sum(answer.score for answer in given) / len(given)
            losses = [one.loss for one in found if one.loss is not None]
            if losses:
                loss = sum(losses) / len(examples)
            else:
                loss = self._loss_of_split(model, split, batch_size, map_fn, score)
        if answers is not None:
            answers += in_data_order(examples, given)
        values = {"loss": loss}
        if self.score_name is not None:
            values |= {self.score_name: score, "accuracy": score}
        if self.metrics:
            outputs = in_data_order(examples, [output for one in found for output in one.outputs])
            golds, rows = [e.expected for e in examples], [e.row for e in examples]
            values |= {metric.name: metric.of(outputs, golds, rows) for metric in self.metrics}
        return values

    def _batch(self, examples: Sequence[Encoded]) -> Any:
        return self.encoder.batch(examples, self.device)

    @abstractmethod
    def _answered(self, model: Any, at_once: int, examples: Sequence[Any]) -> Answered:
        """Answer a batch of `eval_examples`."""

    def _loss_of_split(
        self, model: Any, split: str, batch_size: int, map_fn: MapFn, score: float
    ) -> float:
        """The loss of all examples as if they were one batch: batches count by `weight`.

        score: the mean score of the answers.
        """
        del score

        def weighed(examples: Sequence[Encoded]) -> tuple[float, float]:
            batch = self._batch(examples)
            return self.weight(batch), float(self.forwards(self.loss, model, batch))

        total = weights = 0.0
        for weight, loss in map_fn(weighed, in_batches(self.loss_examples[split], batch_size)):
            total += weight * loss
            weights += weight
        return total / weights
