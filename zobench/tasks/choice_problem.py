"""A task with candidates prepared for one model: their scores, and what these say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import evaluating
from zobench.tasks.losses import RewardLoss, RowBatch
from zobench.tasks.reading import Choosing, Reading
from zobench.tasks.text_problem import Answered, TextProblem

HOST = torch.device("cpu")


@dataclass(frozen=True)
class ChoiceProblem(TextProblem):
    """Examples whose candidates are scored; `reading` makes answers of the scores.

    Where the loss needs the candidates of `eval_examples`, one forward pass gives both.
    """

    eval_examples: Mapping[str, Sequence[Encoded]]
    reading: Reading = field(default_factory=Choosing, kw_only=True)

    @property
    def score_name(self) -> str | None:
        return self.reading.score_name

    def tried(self) -> Self:
        """The problem, after a loss of the user's own was called on one example of dev."""
        if isinstance(self.objective, RewardLoss):
            model, example = self.encoder.model, self.eval_examples["dev"][:1]
            with evaluating(model):
                scores = self._scores(model, example, self._on_host(example), 1)
            self.objective.try_on(scores, example)
        return self

    def _answered(self, model: Any, at_once: int, examples: Sequence[Encoded]) -> Answered:
        batch = self._on_host(examples)
        scores = self._scores(model, examples, batch, at_once)
        loss = self.objective.value(scores, self._with_rows(batch, examples))
        answers = self.reading.answers(scores, examples)
        outputs = self.reading.outputs(scores, examples) if self.metrics else []
        return Answered(None if loss is None else float(loss) * len(examples), answers, outputs)

    def _scores(
        self, model: Any, examples: Sequence[Encoded], batch: Batch, at_once: int
    ) -> Tensor:
        scores = partial(self.encoder.evaluated, device=self.device, forwards=self.forwards)
        if not examples[0].prior:
            return scores(model, batch, at_once, summed=self.reading.summed)
        priors = self._on_host([Encoded(e.prior, e.gold) for e in examples])
        posterior = scores(model, batch, at_once, summed=True)
        difference = posterior - scores(model, priors, at_once, summed=True)
        return difference.masked_fill(posterior == -torch.inf, -torch.inf)  # missing candidates

    def _batch(self, examples: Sequence[Encoded]) -> Batch | RowBatch:
        return self._with_rows(self.encoder.batch(examples, self.device), examples)

    def _on_host(self, examples: Sequence[Encoded]) -> Batch:
        """A batch to evaluate: what is read of it is decided on the host."""
        return self.encoder.batch(examples, HOST)

    def _with_rows(self, batch: Batch, examples: Sequence[Encoded]) -> Batch | RowBatch:
        """The batch, and its examples where the loss is a function of their rows."""
        own = isinstance(self.objective, RewardLoss)
        return RowBatch(batch, examples) if own else batch
