"""Scores, loss and predictions of a batch: length-normalised log-likelihood over the choices."""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.encoding import Batch


@functools.lru_cache
def _forward_arguments(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def choice_scores(model: Any, batch: Batch) -> Tensor:
    """Mean log-probability of each candidate's tokens in float32, (examples, choices).

    Missing candidates, where examples have different numbers of choices, score -inf. Only the
    positions that predict a choice get logits.
    """
    keep = batch.target.shape[1]
    accepted = _forward_arguments(model.__class__)
    inputs: dict[str, Any] = {"attention_mask": batch.attention_mask, "use_cache": False}
    if "position_ids" in accepted:
        inputs["position_ids"] = (batch.attention_mask.cumsum(-1) - 1).clamp_(min=0)
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = keep
    logits = model(input_ids=batch.input_ids, **inputs).logits[:, -keep:]
    log_p = torch.log_softmax(logits.float(), dim=-1)
    scored = batch.target >= 0
    position = torch.arange(keep, device=log_p.device)
    token_log_p = log_p[batch.row.unsqueeze(1), position, batch.target.clamp(min=0)]
    mean = (token_log_p * scored).sum(1) / scored.sum(1)
    scores = mean.new_full((len(batch.gold), int(batch.place.max()) + 1), -torch.inf)
    return scores.index_put((batch.example, batch.place), mean)


def choice_loss(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy over the choices (not the vocabulary), mean over the batch, float32 scalar."""
    return torch.nn.functional.cross_entropy(choice_scores(model, batch), batch.gold)
