"""A choice task as one model reads it: encoded splits, their batches, loss and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import Spread, evaluating, in_batches, in_data_order
from zobench.tasks.losses import Loss, mean_loss
from zobench.tasks.problem import Answer
from zobench.tasks.reading import Reading


@dataclass(frozen=True)
class ChoiceProblem:
    """Encoded examples per split, and how to make a batch of some of them; a Problem.

    lessons: what the loss looks at, of all splits; questions: what accuracy is measured on, of dev
    and test. Where both are the same, one forward pass gives both. notes: what is odd about the
    rows.
    """

    lessons: Mapping[str, Sequence[Encoded]]
    questions: Mapping[str, Sequence[Encoded]]
    objective: Loss
    reading: Reading
    device: torch.device
    notes: Sequence[str] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.lessons.items()}

    @property
    def differentiable(self) -> bool:
        return self.objective.differentiable

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._batch([self.lessons["train"][i] for i in indices])

    def length(self, index: int) -> int:
        return self.lessons["train"][index].length

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self.loss_of(self.said(model, batch), batch)

    def said(self, model: Any, batch: Batch) -> Tensor:
        return self.objective.said(model, batch, self.reading.scores)

    def loss_of(self, said: Tensor, batch: Batch) -> Tensor:
        return self.objective.of(said, batch)

    def weight(self, batch: Batch) -> int:
        return self.objective.weight(batch)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        spread: Spread = map,
    ) -> dict[str, float]:
        """The mean loss and the accuracy; a NaN score counts as a wrong answer.

        Batches of examples that are alike in length hold little padding.
        """
        questions = self.questions[split]
        with evaluating(model):
            asked = partial(self._asked, model, batch_size)
            found = list(spread(asked, in_batches(questions, batch_size)))
            losses = [loss for loss, _ in found if loss is not None]
            loss = sum(losses) / len(questions)
            if not losses:
                lessons = in_batches(self.lessons[split], batch_size)
                loss = mean_loss(self, model, lessons, self._batch, spread)
        said = in_data_order(questions, [answer for _, some in found for answer in some])
        if answers is not None:
            answers += said
        return {"loss": loss, "accuracy": sum(a.score for a in said) / len(said)}

    def _batch(self, examples: Sequence[Encoded]) -> Batch:
        return self.reading.batch(examples, self.device)

    def _asked(
        self, model: Any, at_once: int, examples: Sequence[Encoded]
    ) -> tuple[float | None, list[Answer]]:
        """The sum of a batch's losses, where the scores tell it, and its answers."""
        batch = self._batch(examples)
        scores = self._scores(model, examples, batch, at_once)
        loss = self.objective.value(scores, batch.gold)
        known = (~scores.isnan().any(1)).tolist()
        answers = []
        for said, k, e in zip(scores.argmax(1).tolist(), known, examples, strict=True):
            right = k and said in (e.right or (e.gold,))
            answers.append(Answer(str(said) if k else "", str(e.gold), float(right)))
        return None if loss is None else float(loss) * len(examples), answers

    def _scores(
        self, model: Any, examples: Sequence[Encoded], batch: Batch, at_once: int
    ) -> Tensor:
        scores = self.reading.evaluated
        if not examples[0].prior:
            return scores(model, batch, at_once)
        priors = self._batch([Encoded(e.prior, e.gold) for e in examples])
        posterior = scores(model, batch, at_once, summed=True)
        difference = posterior - scores(model, priors, at_once, summed=True)
        return difference.masked_fill(posterior == -torch.inf, -torch.inf)  # missing candidates
