"""Loss and accuracy over a whole split."""

from collections.abc import Sequence
from typing import Any

import torch

from zobench.run.data import Data
from zobench.tasks.encoding import Encoded
from zobench.tasks.scoring import choice_scores


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
