"""A choice task as one model reads it: encoded splits, their batches, loss and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import evaluating, in_batches, in_data_order
from zobench.tasks.losses import Loss, mean_loss
from zobench.tasks.problem import Answer
from zobench.tasks.reading import Reading


@dataclass(frozen=True)
class ChoiceProblem:
    """Encoded examples per split, and how to make a batch of some of them; a Problem.

    lessons: what the loss looks at, of all splits; questions: what accuracy is measured on, of dev
    and test. Where both are the same, one forward pass gives both.
    """

    lessons: Mapping[str, Sequence[Encoded]]
    questions: Mapping[str, Sequence[Encoded]]
    objective: Loss
    reading: Reading
    device: torch.device

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.lessons.items()}

    @property
    def differentiable(self) -> bool:
        return self.objective.differentiable

    def batch(self, indices: Sequence[int]) -> Batch:
        return self.reading.batch([self.lessons["train"][i] for i in indices], self.device)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self.objective(model, batch, self.reading.scores)

    def weight(self, batch: Batch) -> int:
        return self.objective.weight(batch)

    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        """The mean loss and the accuracy; a NaN score counts as a wrong answer.

        Batches of examples that are alike in length hold little padding.
        """
        with evaluating(model):
            loss, found = self._asked(model, self.questions[split], batch_size)
            if loss is None:
                lessons = self.reading.batches(self.lessons[split], batch_size, self.device)
                loss = mean_loss(self, model, lessons)
        if answers is not None:
            answers += found
        return {"loss": loss, "accuracy": sum(a.score for a in found) / len(found)}

    def _asked(
        self, model: Any, questions: Sequence[Encoded], batch_size: int
    ) -> tuple[float | None, list[Answer]]:
        """The mean loss, where the scores tell it, and the answers in the data's order."""
        losses: list[float | None] = []
        answers: list[Answer] = []
        for examples in in_batches(questions, batch_size):
            batch = self.reading.batch(examples, self.device)
            scores = self._scores(model, examples, batch, batch_size)
            loss = self.objective.value(scores, batch.gold)
            losses.append(None if loss is None else float(loss) * len(examples))
            known = (~scores.isnan().any(1)).tolist()
            picked = zip(scores.argmax(1).tolist(), known, examples, strict=True)
            for said, k, e in picked:
                right = k and said in (e.right or (e.gold,))
                answers.append(Answer(str(said) if k else "", str(e.gold), float(right)))
        told = [loss for loss in losses if loss is not None]
        loss_seen = sum(told) / len(questions) if told else None
        return loss_seen, in_data_order(questions, answers)

    def _scores(
        self, model: Any, examples: Sequence[Encoded], batch: Batch, at_once: int
    ) -> Tensor:
        scores = self.reading.evaluated
        if not examples[0].prior:
            return scores(model, batch, at_once)
        priors = self.reading.batch([Encoded(e.prior, e.gold) for e in examples], self.device)
        posterior = scores(model, batch, at_once, summed=True)
        difference = posterior - scores(model, priors, at_once, summed=True)
        return difference.masked_fill(posterior == -torch.inf, -torch.inf)  # missing candidates
