"""A choice task as one model reads it: encoded splits, their batches, loss and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.encoding import Batch, Encoded, collate
from zobench.tasks.scoring import choice_loss, choice_scores


@dataclass(frozen=True)
class ChoiceProblem:
    """Encoded examples per split, and how to make a batch of some of them; a Problem."""

    splits: Mapping[str, Sequence[Encoded]]
    pad_id: int
    max_length: int
    device: torch.device

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(examples) for split, examples in self.splits.items()}

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._collate([self.splits["train"][i] for i in indices])

    def _collate(self, examples: Sequence[Encoded]) -> Batch:
        return collate(examples, self.pad_id, self.max_length).to(self.device)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return choice_loss(model, batch)

    @torch.no_grad()
    def evaluate(self, model: Any, split: str, batch_size: int) -> dict[str, float]:
        """Mean cross-entropy over the choices and accuracy; a NaN score counts as a wrong answer.

        Examples go in order of length, so that a batch holds little padding.
        """
        was_training = model.training
        model.eval()
        ordered = sorted(self.splits[split], key=lambda example: example.length)
        loss = right = 0.0
        for start in range(0, len(ordered), batch_size):
            batch = self._collate(ordered[start : start + batch_size])
            scores = choice_scores(model, batch)
            loss += float(torch.nn.functional.cross_entropy(scores, batch.gold, reduction="sum"))
            known = ~scores.isnan().any(1)
            right += int(((scores.argmax(1) == batch.gold) & known).sum())
        model.train(was_training)
        return {"loss": loss / len(ordered), "accuracy": right / len(ordered)}
