"""A choice task prepared for one model: scores of the choices, and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.encoding import Encoded
from zobench.tasks.problem import Answer
from zobench.tasks.text_problem import TextProblem


@dataclass(frozen=True)
class ChoiceProblem(TextProblem):
    """Examples whose answer is the choice with the highest score; a NaN score is a wrong answer.

    Where the loss needs the candidates of `eval_examples`, one forward pass gives both.
    """

    eval_examples: Mapping[str, Sequence[Encoded]]

    def _answered(
        self, model: Any, at_once: int, examples: Sequence[Encoded]
    ) -> tuple[float | None, list[Answer]]:
        batch = self._batch(examples)
        scores = self._scores(model, examples, batch, at_once)
        loss = self.objective.value(scores, batch.gold)
        known = (~scores.isnan().any(1)).tolist()
        answers = []
        for choice, k, e in zip(scores.argmax(1).tolist(), known, examples, strict=True):
            right = k and choice in (e.right or (e.gold,))
            answers.append(Answer(str(choice) if k else "", str(e.gold), float(right)))
        return None if loss is None else float(loss) * len(examples), answers

    def _scores(
        self, model: Any, examples: Sequence[Encoded], batch: Batch, at_once: int
    ) -> Tensor:
        scores = self.encoder.evaluated
        if not examples[0].prior:
            return scores(model, batch, at_once)
        priors = self._batch([Encoded(e.prior, e.gold) for e in examples])
        posterior = scores(model, batch, at_once, summed=True)
        difference = posterior - scores(model, priors, at_once, summed=True)
        return difference.masked_fill(posterior == -torch.inf, -torch.inf)  # missing candidates
