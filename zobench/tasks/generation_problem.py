"""A generation task prepared for one model: prompts, generated answers, their scores."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.evaluation import LAUNCHED, Forwards, MapFn
from zobench.tasks.own import Own
from zobench.tasks.problem import Answer
from zobench.tasks.text_problem import Answered, TextProblem
from zobench.tasks.writing import Writer

_NO_ROW: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Prompt:
    """A prompt in tokens, its right answers, and the columns of its row."""

    tokens: tuple[int, ...]
    answers: tuple[str, ...]
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def expected(self) -> list[str]:
        return list(self.answers)

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Metric:
    """Scores a generated text; `extract` finds the part that is scored, the last if several.

    judge: of ours, called with the text and the answers, or of the user's own, with the row, too.
    """

    name: str
    judge: Callable[[str, Sequence[str]], float] | Own
    extract: re.Pattern[str] | None = None

    def __call__(
        self, text: str, answers: Sequence[str], row: Mapping[str, Any] = _NO_ROW
    ) -> float:
        if self.extract is not None:
            found = list(self.extract.finditer(text))
            text = found[-1].group(1) if found else ""
        if isinstance(self.judge, Own):
            return self.judge(text, list(answers), row)
        return self.judge(text, answers)

    def tried(self, prompt: Prompt) -> None:
        """Call a function of the user's own with a right answer of the prompt as the text."""
        if isinstance(self.judge, Own):
            self.judge.tried(prompt.answers[0], prompt.expected, prompt.row)

    def mean(
        self, texts: Sequence[str], golds: Sequence[Sequence[str]], rows: Sequence[Any]
    ) -> float:
        """The mean over a split."""
        return sum(map(self, texts, golds, rows)) / len(texts)


@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts, where the loss is a metric of the generated texts."""

    prompts: Sequence[Prompt]
    tokens: int

    @property
    def examples(self) -> int:
        return len(self.prompts)

    def cut(self, first: int, last: int) -> "PromptBatch":
        return replace(self, prompts=self.prompts[first:last])


@dataclass(frozen=True)
class GenerationProblem(TextProblem):
    """Prompts whose generated answers a metric scores.

    metric: what dev and test report. loss_metric: instead of the objective, a metric whose negative
    mean over generations of `eval_examples` is the loss. steps: how evaluations compute the
    forwards of new tokens.
    """

    eval_examples: Mapping[str, Sequence[Prompt]]
    writer: Writer
    metric: Metric
    loss_metric: Metric | None
    steps: Forwards = field(default=LAUNCHED, kw_only=True)

    def evaluated_by(self, forwards: Forwards) -> Self:
        found = super().evaluated_by(forwards)
        if not forwards.records:
            return found
        prompts = [prompt.tokens for prompt in self.eval_examples["dev"]]
        reason = self.writer.why_not_static(self.encoder.model, prompts)
        if reason is not None:
            forwards.launched_for(f"texts are generated token by token: {reason}")
            return found
        return replace(found, steps=forwards)

    @property
    def differentiable(self) -> bool:
        return self.loss_metric is None

    @property
    def score_name(self) -> str:
        return self.metric.name

    def batch(self, indices: Sequence[int]) -> Batch | PromptBatch:
        if self.loss_metric is not None:
            prompts = [self.eval_examples["train"][i] for i in indices]
            return PromptBatch(prompts, sum(prompt.length for prompt in prompts))
        return self._batch([self.loss_examples["train"][i] for i in indices])

    def outputs(self, model: Any, batch: Batch | PromptBatch) -> Tensor:
        if isinstance(batch, Batch):
            return super().outputs(model, batch)
        assert self.loss_metric is not None
        answers = self._generate(model, self.loss_metric, batch.prompts)
        return torch.tensor([answer.score for answer in answers], dtype=torch.float64)

    def loss_of(self, outputs: Tensor, batch: Batch | PromptBatch) -> Tensor:
        if isinstance(batch, Batch):
            return super().loss_of(outputs, batch)
        return torch.tensor(-sum(outputs.tolist()) / len(outputs))

    def weight(self, batch: Batch | PromptBatch) -> int:
        return super().weight(batch) if isinstance(batch, Batch) else len(batch.prompts)

    def _answered(self, model: Any, at_once: int, examples: Sequence[Prompt]) -> Answered:
        del at_once
        answers = self._generate(model, self.metric, examples, self.steps)
        texts = [answer.answer for answer in answers]
        judge, loss = self.loss_metric, None
        if judge is not None and judge != self.metric:
            pairs = zip(texts, examples, strict=True)
            loss = -sum(judge(text, p.answers, p.row) for text, p in pairs)
        return Answered(loss, answers, texts)

    def _loss_of_split(
        self, model: Any, split: str, batch_size: int, map_fn: MapFn, score: float
    ) -> float:
        if self.loss_metric is not None:
            return -score
        return super()._loss_of_split(model, split, batch_size, map_fn, score)

    def _generate(
        self,
        model: Any,
        metric: Metric,
        prompts: Sequence[Prompt],
        forwards: Forwards = LAUNCHED,
    ) -> list[Answer]:
        """The generated texts with their scores by the metric."""
        texts = self.writer(model, [prompt.tokens for prompt in prompts], forwards)
        pairs = zip(texts, prompts, strict=True)
        return [Answer(text, p.answers[0], metric(text, p.answers, p.row)) for text, p in pairs]
