"""Loss and accuracy over a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zobench.tasks.encoding import Batch, Encoded, collate
from zobench.tasks.scoring import choice_scores


@dataclass(frozen=True)
class Data:
    """Encoded splits, and how to make a batch of some of their examples."""

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    pad_id: int
    max_length: int
    device: torch.device

    def batch(self, examples: Sequence[Encoded]) -> Batch:
        return collate(examples, self.pad_id, self.max_length).to(self.device)


@torch.no_grad()
def evaluate(
    model: Any, data: Data, examples: Sequence[Encoded], batch_size: int
) -> dict[str, float]:
    """Mean cross-entropy over the choices and accuracy; a NaN score counts as a wrong answer.

    Examples go in order of length, so that a batch holds little padding.
    """
    was_training = model.training
    model.eval()
    ordered = sorted(examples, key=lambda example: example.length)
    loss = right = 0.0
    for start in range(0, len(ordered), batch_size):
        batch = data.batch(ordered[start : start + batch_size])
        scores = choice_scores(model, batch)
        loss += float(torch.nn.functional.cross_entropy(scores, batch.gold, reduction="sum"))
        known = ~scores.isnan().any(1)
        right += int(((scores.argmax(1) == batch.gold) & known).sum())
    model.train(was_training)
    return {"loss": loss / len(ordered), "accuracy": right / len(ordered)}
