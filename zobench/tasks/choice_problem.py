"""A choice task prepared for one model: encoded splits, their batches, loss and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ChoiceProblem:
    """Encoded examples per split, and how to make a batch of some of them; a Problem.

    loss_examples: candidates that the loss needs, of all splits; eval_examples: those of which
    accuracy is measured, of dev and test. Where both are the same, one forward pass gives both.
    notes: irregularities of the rows.
    """

    loss_examples: Mapping[str, Sequence[Encoded]]
    eval_examples: Mapping[str, Sequence[Encoded]]
    objective: Loss
    encoder: Encoder
    device: torch.device
    notes: Sequence[str] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.loss_examples.items()}

    @property
    def differentiable(self) -> bool:
        return self.objective.differentiable

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._batch([self.loss_examples["train"][i] for i in indices])

    def length(self, index: int) -> int:
        return self.loss_examples["train"][index].length

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self.loss_of(self.outputs(model, batch), batch)

    def outputs(self, model: Any, batch: Batch) -> Tensor:
        return self.objective.outputs(model, batch, self.encoder.scores)

    def loss_of(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.objective.of(outputs, batch)

    def weight(self, batch: Batch) -> int:
        return self.objective.weight(batch)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        map_fn: MapFn = map,
    ) -> dict[str, float]:
        """The mean loss and the accuracy; a NaN score counts as a wrong answer.

        Batches of examples of similar length hold little padding.
        """
        examples = self.eval_examples[split]
        with evaluating(model):
            evaluate = partial(self._evaluate_batch, model, batch_size)
            found = list(map_fn(evaluate, in_batches(examples, batch_size)))
            losses = [loss for loss, _ in found if loss is not None]
            loss = sum(losses) / len(examples)
            if not losses:
                loss_examples = in_batches(self.loss_examples[split], batch_size)
                loss = mean_loss(self, model, loss_examples, self._batch, map_fn)
        given = in_data_order(examples, [answer for _, some in found for answer in some])
        if answers is not None:
            answers += given
        return {"loss": loss, "accuracy": sum(a.score for a in given) / len(given)}

    def _batch(self, examples: Sequence[Encoded]) -> Batch:
        return self.encoder.batch(examples, self.device)

    def _evaluate_batch(
        self, model: Any, at_once: int, examples: Sequence[Encoded]
    ) -> tuple[float | None, list[Answer]]:
        """The sum of a batch's losses, where it follows from the scores, and its answers."""
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
