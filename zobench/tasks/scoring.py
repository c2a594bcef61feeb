"""Scores of the candidates of a batch."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
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
    """Restrict the output head to these places; yields a list that is filled if it was used.

    The head's input is cut, not its output, so logits of other places are never computed, and
    operations of the architecture after the head (scaling, soft caps) apply to these as well.
    """
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find else None
    cut: list[bool] = []

    def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        cut.append(True)
        return (places.of(inputs[0]).unsqueeze(0), *inputs[1:])

    with nullcontext() if head is None else head.register_forward_pre_hook(select):
        yield cut


def log_p_at(model: Any, places: Places, logits_of: Callable[[], Tensor]) -> Tensor:
    """Log-probabilities in float32 at these places of a forward pass, (M, vocabulary)."""
    with _read_only(model, places) as cut:
        logits = logits_of()
    read = logits.squeeze(0) if cut else places.of(logits)
    return torch.log_softmax(read.float(), dim=-1)


def log_p_of(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities in float32 at the M places that a batch reads, (M, vocabulary)."""
    if not batch.alone:  # nothing here depends on values, for packs and captured steps
        whole = Places(batch.read_row, batch.read_at, batch.input_ids.shape[1])
        return log_p_at(model, whole, functools.partial(forward, model, batch))
    found, order = [], []
    for part, rows in _parts(batch):
        number = torch.full_like(batch.input_ids[:, 0], -1)
        number[rows] = torch.arange(len(rows), device=rows.device)
        row = number[batch.read_row]
        mine = (row >= 0).nonzero().flatten()
        places = Places(row[mine], batch.read_at[mine], part.input_ids.shape[1])
        found.append(log_p_at(model, places, functools.partial(forward, model, part)))
        order.append(mine)
    return _in_order(found, order)


def _parts(batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
    """Groups of rows that go through the model together, and their numbers in the batch.

    Of a batch whose rows stay alone the rows of one length, without padding.
    """
    if not batch.alone:
        yield batch, torch.arange(len(batch.input_ids), device=batch.input_ids.device)
        return
    lengths = batch.attention_mask.sum(1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().flatten()
        types = batch.token_types
        yield (
            replace(
                batch,
                input_ids=batch.input_ids[rows, :length],
                attention_mask=batch.attention_mask[rows, :length],
                token_types=None if types is None else types[rows, :length],
            ),
            rows,
        )


def _in_order(found: list[Tensor], order: list[Tensor]) -> Tensor:
    """Rows of several tensors in one tensor, at the places of their numbers."""
    if len(found) == 1:
        return found[0]
    return torch.cat(found)[torch.cat(order).argsort().to(found[0].device)]


def target_log_p(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each target token in float32, (N, K); 0 where a choice is shorter."""
    log_p = log_p_of(model, batch)
    picked, target = batch.picked.to(log_p.device), batch.target.to(log_p.device)
    return log_p[picked, target.clamp(min=0)] * (target >= 0)


def language_scores(model: Any, batch: Batch, *, summed: bool = False) -> Tensor:
    """Mean (or summed) log-probability of each candidate's tokens in float32, (B, choices).

    Missing candidates, where examples have different numbers of choices, score -inf.
    """
    return candidate_scores(target_log_p(model, batch), batch, summed=summed)


def candidate_scores(log_p: Tensor, batch: Batch, *, summed: bool) -> Tensor:
    """(B, choices) scores from the values of `target_log_p`."""
    total = log_p.sum(1)
    if not summed:
        total = total / (batch.target.to(total.device) >= 0).sum(1)
    return _by_example(total, batch)


def class_scores(model: Any, batch: Batch, *, summed: bool = False) -> Tensor:
    """Logits of a classification head in float32, (B, classes)."""
    del summed  # a class has no length
    parts = [(_class_logits(model, part), rows) for part, rows in _parts(batch)]
    logits = _in_order([found for found, _ in parts], [rows for _, rows in parts]).float()
    row = batch.read_row.to(logits.device)[batch.picked[:, -1].to(logits.device)]
    return _by_example(logits[row, batch.target[:, 0].to(logits.device)], batch)


def _class_logits(model: Any, batch: Batch) -> Tensor:
    """Logits of each row, (R, classes).

    A decoder's head gives logits at every token. Those of a row's last token count; transformers
    looks for it by the padding token's id, which a text can hold, too.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS

    decodes = model.config.model_type in DECODERS
    head = class_head(model) if decodes else None
    seen: list[Tensor] = []

    def note(module: Any, inputs: Any, output: Tensor) -> None:
        del module, inputs
        seen.append(output)

    with nullcontext() if head is None else head.register_forward_hook(note):
        logits = forward(model, batch)
    if not seen or seen[-1].dim() != logits.dim() + 1:
        return logits
    width = batch.input_ids.shape[1]
    rows = torch.arange(len(logits), device=logits.device)
    last = Places(rows, batch.attention_mask.sum(1) - 1, width)
    return last.of(seen[-1])


def class_head(model: Any) -> torch.nn.Linear | None:
    """The layer whose outputs are the logits of the classes: the last one of that size."""
    found = None
    for part in model.modules():  # a head may have layers before it
        if isinstance(part, torch.nn.Linear) and part.out_features == model.config.num_labels:
            found = part
    return found


def _by_example(scores: Tensor, batch: Batch) -> Tensor:
    """The last row of the table takes what belongs to no example, and is left out."""
    table = scores.new_full((len(batch.gold) + 1, batch.choices), -torch.inf)
    example, place = batch.example.to(scores.device), batch.place.to(scores.device)
    return table.index_put((example, place), scores)[:-1]
