"""A generation task prepared for one model: encoded splits, their loss, generated answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import MapFn, evaluating, in_batches, in_data_order
from zobench.tasks.losses import Loss, mean_loss
from zobench.tasks.problem import Answer
from zobench.tasks.writing import Writer


@dataclass(frozen=True)
class Prompt:
    """A prompt in tokens and its right answers."""

    tokens: tuple[int, ...]
    answers: tuple[str, ...]

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Metric:
    """Scores a generated text; `extract` finds the part that is scored, the last if several."""

    name: str
    judge: Callable[[str, Sequence[str]], float]
    extract: re.Pattern[str] | None = None

    def __call__(self, text: str, answers: Sequence[str]) -> float:
        if self.extract is not None:
            found = list(self.extract.finditer(text))
            text = found[-1].group(1) if found else ""
        return self.judge(text, answers)


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
class GenerationProblem:
    """Encoded examples and prompts per split; a Problem.

    objective: the loss over `loss_examples`. loss_metric: instead of it, a metric whose negative
    mean over generations of `prompts` is the loss. metric: what dev and test report. notes:
    irregularities of the rows.
    """

    loss_examples: Mapping[str, Sequence[Encoded]]
    eval_examples: Mapping[str, Sequence[Prompt]]
    objective: Loss
    encoder: Encoder
    writer: Writer
    metric: Metric
    loss_metric: Metric | None
    device: torch.device
    notes: Sequence[str] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.loss_examples.items()}

    @property
    def differentiable(self) -> bool:
        return self.loss_metric is None

    def batch(self, indices: Sequence[int]) -> Batch | PromptBatch:
        if self.loss_metric is not None:
            prompts = [self.eval_examples["train"][i] for i in indices]
            return PromptBatch(prompts, sum(prompt.length for prompt in prompts))
        return self._batch([self.loss_examples["train"][i] for i in indices])

    def length(self, index: int) -> int:
        return self.loss_examples["train"][index].length

    def loss(self, model: Any, batch: Batch | PromptBatch) -> Tensor:
        return self.loss_of(self.outputs(model, batch), batch)

    def outputs(self, model: Any, batch: Batch | PromptBatch) -> Tensor:
        if isinstance(batch, Batch):
            return self.objective.outputs(model, batch, self.encoder.scores)
        assert self.loss_metric is not None
        answers = self._generate(model, self.loss_metric, batch.prompts)
        return torch.tensor([answer.score for answer in answers], dtype=torch.float64)

    def loss_of(self, outputs: Tensor, batch: Batch | PromptBatch) -> Tensor:
        if isinstance(batch, Batch):
            return self.objective.of(outputs, batch)
        return torch.tensor(-sum(outputs.tolist()) / len(outputs))

    def weight(self, batch: Batch | PromptBatch) -> int:
        return self.objective.weight(batch) if isinstance(batch, Batch) else len(batch.prompts)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        map_fn: MapFn = map,
    ) -> dict[str, float]:
        """`loss`, the metric under its name, and `accuracy`, which is the same number.

        Tables and selection read `accuracy` of every task.
        """
        prompts = self.eval_examples[split]
        with evaluating(model):
            generate = partial(self._generate, model, self.metric)
            each = map_fn(generate, in_batches(prompts, batch_size))
            found = [answer for some in each for answer in some]
            score = sum(answer.score for answer in found) / len(found)
            if self.loss_metric is None:
                loss_examples = in_batches(self.loss_examples[split], batch_size)
                loss = mean_loss(self, model, loss_examples, self._batch, map_fn)
            else:
                loss = -score
        if answers is not None:
            answers += in_data_order(prompts, found)
        return {"loss": loss, self.metric.name: score, "accuracy": score}

    def _batch(self, examples: Sequence[Encoded]) -> Batch:
        return self.encoder.batch(examples, self.device)

    def _generate(self, model: Any, metric: Metric, prompts: Sequence[Prompt]) -> list[Answer]:
        """The generated texts with their scores by the metric."""
        texts = self.writer(model, [prompt.tokens for prompt in prompts])
        pairs = zip(texts, prompts, strict=True)
        return [Answer(text, p.answers[0], metric(text, p.answers)) for text, p in pairs]
