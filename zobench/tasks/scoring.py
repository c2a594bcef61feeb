"""What a model says of the candidates of a batch."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.tasks.batch import Batch


class Places(NamedTuple):
    """M places of a batch, whose logits are needed: row and column of inputs of `width` tokens."""

    row: Tensor
    at: Tensor
    width: int

    def of(self, sequence: Tensor) -> Tensor:
        """(M, H) of (R, T, H); T is larger than `width` where tuning puts virtual tokens first."""
        virtual = sequence.shape[1] - self.width
        return sequence[self.row.to(sequence.device), self.at.to(sequence.device) + virtual]


@functools.lru_cache
def _arguments(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def forward_arguments(model: Any) -> frozenset[str]:
    """The names that the model's forward takes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft wraps
    return _arguments(base.__class__)


def forward(model: Any, batch: Batch) -> Tensor:
    """Logits of a forward pass over the batch's rows, as the model returns them."""
    accepted = forward_arguments(model)
    inputs: dict[str, Any] = {"attention_mask": batch.attention_mask}
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    if batch.token_types is not None and "token_type_ids" in accepted:
        inputs["token_type_ids"] = batch.token_types
    logits: Tensor = model(input_ids=batch.input_ids, **inputs).logits
    return logits


@contextmanager
def _read_only(model: Any, places: Places) -> Iterator[list[bool]]:
    """Let the output head see only these places; yields a list that is filled if it did.

    The head's input is cut, not its output, so logits of other places are never computed, and
    whatever an architecture does after the head (scaling, soft caps) is done to these as well.
    """
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find else None
    cut: list[bool] = []

    def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        cut.append(True)
        return (places.of(inputs[0]).unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(select) if head is not None else None
    try:
        yield cut
    finally:
        if handle is not None:
            handle.remove()


def log_p_at(model: Any, places: Places, logits_of: Callable[[], Tensor]) -> Tensor:
    """Log-probabilities in float32 at these places of a forward pass, (M, vocabulary)."""
    with _read_only(model, places) as cut:
        logits = logits_of()
    read = logits.squeeze(0) if cut else places.of(logits)
    return torch.log_softmax(read.float(), dim=-1)


def target_log_p(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each target token in float32, (N, K); 0 where a choice is shorter."""
    places = Places(batch.read_row, batch.read_at, batch.input_ids.shape[1])
    log_p = log_p_at(model, places, lambda: forward(model, batch))
    picked, target = batch.picked.to(log_p.device), batch.target.to(log_p.device)
    return log_p[picked, target.clamp(min=0)] * (target >= 0)


def language_scores(model: Any, batch: Batch, *, summed: bool = False) -> Tensor:
    """Mean (or summed) log-probability of each candidate's tokens in float32, (B, choices).

    Missing candidates, where examples have different numbers of choices, score -inf.
    """
    return candidate_scores(target_log_p(model, batch), batch, summed=summed)


def candidate_scores(log_p: Tensor, batch: Batch, *, summed: bool) -> Tensor:
    """(B, choices) of what `target_log_p` returns."""
    total = log_p.sum(1)
    if not summed:
        total = total / (batch.target.to(total.device) >= 0).sum(1)
    return _by_example(total, batch)


def class_scores(model: Any, batch: Batch, *, summed: bool = False) -> Tensor:
    """Logits of a classification head in float32, (B, classes)."""
    del summed  # a class has no length
    logits = forward(model, batch).float()
    row = batch.read_row.to(logits.device)[batch.picked[:, -1].to(logits.device)]
    return _by_example(logits[row, batch.target[:, 0].to(logits.device)], batch)


def _by_example(scores: Tensor, batch: Batch) -> Tensor:
    """The last row of the table takes what belongs to no example, and is left out."""
    table = scores.new_full((len(batch.gold) + 1, batch.choices), -torch.inf)
    example, place = batch.example.to(scores.device), batch.place.to(scores.device)
    return table.index_put((example, place), scores)[:-1]
