"""A generation task as one model reads it: lessons to learn from, questions to answer in words."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from zobench.tasks.writing import Writer


@dataclass(frozen=True)
class Question:
    """A prompt in tokens and the texts that answer it."""

    prompt: tuple[int, ...]
    answers: tuple[str, ...]

    @property
    def length(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Metric:
    """How a generated text is judged; `extract` finds the part that is, the last if several."""

    name: str
    judge: Callable[[str, Sequence[str]], float]
    extract: re.Pattern[str] | None = None

    def __call__(self, text: str, answers: Sequence[str]) -> float:
        if self.extract is not None:
            found = list(self.extract.finditer(text))
            text = found[-1].group(1) if found else ""
        return self.judge(text, answers)


@dataclass(frozen=True)
class Asked:
    """A batch of questions, where generations themselves are the loss."""

    questions: Sequence[Question]
    tokens: int

    @property
    def examples(self) -> int:
        return len(self.questions)

    def cut(self, first: int, last: int) -> "Asked":
        return replace(self, questions=self.questions[first:last])


@dataclass(frozen=True)
class GenerationProblem:
    """Encoded lessons and questions per split; a Problem.

    objective: the loss over lessons. told: instead of it, a metric whose negative mean over
    generations is the loss. metric: what dev and test report. notes: what is odd about the
    rows.
    """

    lessons: Mapping[str, Sequence[Encoded]]
    questions: Mapping[str, Sequence[Question]]
    objective: Loss
    reading: Reading
    writer: Writer
    metric: Metric
    told: Metric | None
    device: torch.device
    notes: Sequence[str] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.lessons.items()}

    @property
    def differentiable(self) -> bool:
        return self.told is None

    def batch(self, indices: Sequence[int]) -> Batch | Asked:
        if self.told is not None:
            questions = [self.questions["train"][i] for i in indices]
            return Asked(questions, sum(question.length for question in questions))
        return self._batch([self.lessons["train"][i] for i in indices])

    def length(self, index: int) -> int:
        return self.lessons["train"][index].length

    def loss(self, model: Any, batch: Batch | Asked) -> Tensor:
        return self.loss_of(self.said(model, batch), batch)

    def said(self, model: Any, batch: Batch | Asked) -> Tensor:
        if isinstance(batch, Batch):
            return self.objective.said(model, batch, self.reading.scores)
        assert self.told is not None
        answers = self._answered(model, self.told, batch.questions)
        return torch.tensor([answer.score for answer in answers], dtype=torch.float64)

    def loss_of(self, said: Tensor, batch: Batch | Asked) -> Tensor:
        if isinstance(batch, Batch):
            return self.objective.of(said, batch)
        return torch.tensor(-sum(said.tolist()) / len(said))

    def weight(self, batch: Batch | Asked) -> int:
        return self.objective.weight(batch) if isinstance(batch, Batch) else len(batch.questions)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        spread: Spread = map,
    ) -> dict[str, float]:
        """`loss`, the metric under its name, and `accuracy`, which is the same number.

        Tables and selection read `accuracy` of every task.
        """
        asked = self.questions[split]
        with evaluating(model):
            answered = partial(self._answered, model, self.metric)
            each = spread(answered, in_batches(asked, batch_size))
            found = [answer for some in each for answer in some]
            score = sum(answer.score for answer in found) / len(found)
            if self.told is None:
                lessons = in_batches(self.lessons[split], batch_size)
                loss = mean_loss(self, model, lessons, self._batch, spread)
            else:
                loss = -score
        if answers is not None:
            answers += in_data_order(asked, found)
        return {"loss": loss, self.metric.name: score, "accuracy": score}

    def _batch(self, examples: Sequence[Encoded]) -> Batch:
        return self.reading.batch(examples, self.device)

    def _answered(self, model: Any, metric: Metric, questions: Sequence[Question]) -> list[Answer]:
        """What the model writes, judged by the metric."""
        texts = self.writer(model, [question.prompt for question in questions])
        pairs = zip(texts, questions, strict=True)
        return [Answer(text, q.answers[0], metric(text, q.answers)) for text, q in pairs]
