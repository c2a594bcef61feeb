"""Scores of candidates with a common prefix: the prefix is computed once per example.

The shared prefixes of a batch are padded on the left; their keys and values go into a cache. Then
only the continuations are computed, padded on the right, each with a copy of its prefix. There is
no gap between the two, so relative positions are right too. Costs B prefixes and R continuations,
where rows of their own cost R times both. At most `at_once` continuations are computed at a time,
which bounds the memory of the copies: the cache of that many contexts, plus that of B prefixes.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.batch import Batch
from zobench.tasks.positions import virtual_tokens
from zobench.tasks.scoring import Places, candidate_scores, forward_arguments, log_p_at


@torch.no_grad()
def shared_prefix_scores(
    model: Any, batch: Batch, at_once: int, *, summed: bool = False
) -> Tensor | None:
    """What `language_scores` says of a batch, without a graph; None where this cannot do it or
    would not save tokens: rows that share nothing, virtual tokens, windows, recurrent states.
    """
    split = _split(batch)
    if not _saves(split, batch):
        return None
    cache = empty_cache(model, int(split.shared.max()) + int(split.rest.max()))
    if cache is None:
        return None
    scores = _TargetScores(model, batch, split)
    width = int(split.shared.max())
    before = torch.arange(width, device=split.shared.device) - (width - split.shared)[:, None]
    mask = (before >= 0).long()
    scores.read(split.first, before, mask, cache)
    if not all(layer.is_initialized and len(layer.keys) == len(mask) for layer in cache.layers):
        return None
    for rows in split.rest.nonzero().flatten().split(at_once):
        owner = split.owner[rows]
        after = torch.arange(int(split.rest[rows].max()), device=rows.device)
        inside = (after < split.rest[rows, None]).long()
        whole = torch.cat([mask[owner], inside], dim=1)
        scores.read(rows, split.shared[owner, None] + after, whole, _of(cache, owner.cpu()))
    return candidate_scores(scores.log_p, batch, summed=summed)


@dataclass(frozen=True)
class _Split:
    """Where the R rows of B examples part.

    owner: (R,) the example of a row; first: (B,) its first row. shared: (B,) tokens that all rows
    of the example begin with; rest: (R,) tokens of the row after these.
    """

    owner: Tensor
    first: Tensor
    shared: Tensor
    rest: Tensor


def _split(batch: Batch) -> _Split:
    ids, mask = batch.input_ids, batch.attention_mask
    rows = torch.arange(len(ids), device=ids.device)
    owner = torch.empty_like(rows)
    owner[batch.read_row[batch.picked[:, -1]]] = batch.example  # the last pick is never filler
    per_example = rows.new_full((len(batch.gold),), len(ids))
    first = per_example.scatter_reduce(0, owner, rows, "amin")
    leader = first[owner]
    alike = ((ids == ids[leader]) & (mask * mask[leader] == 1)).long().cumprod(1).sum(1)
    shared = torch.full_like(per_example, ids.shape[1]).scatter_reduce(0, owner, alike, "amin")
    return _Split(owner, first, shared, mask.sum(1) - shared[owner])


def _saves(split: _Split, batch: Batch) -> bool:
    """Whether fewer tokens are computed, padding included; a prefix must not be empty."""
    rows, width = batch.input_ids.shape
    if rows == len(batch.gold) or int(split.shared.min()) == 0:
        return False
    after = int((split.rest > 0).sum()) * int(split.rest.max())
    return len(batch.gold) * int(split.shared.max()) + after < rows * width


def empty_cache(model: Any, length: int) -> Any:
    """A cache that keeps all keys of `length` tokens, or None for a model of another kind.

    Recurrent states cannot be padded on the left, a short window counts padding as context,
    rotations may change where a text becomes long, and virtual tokens take the cache or the first
    positions for themselves.
    """
    if virtual_tokens(model):
        return None
    if not {"past_key_values", "position_ids", "use_cache"} <= forward_arguments(model):
        return None
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    if length > (rope.get("original_max_position_embeddings") or length):
        return None
    cache = DynamicCache(config=model.config)
    for layer in cache.layers:
        slides = type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > length
        if type(layer) is not DynamicLayer and not slides:
            return None
    return cache


def _of(cache: Any, examples: Tensor) -> Any:
    """A cache of these examples' prefixes; the one that it is made from stays as it is."""
    chosen = copy.copy(cache)  # layers replace their tensors, so copies of the layers suffice
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(examples)
    return chosen


class _TargetScores:
    """The log-probabilities of a batch's target tokens, filled in pass by pass."""

    def __init__(self, model: Any, batch: Batch, split: _Split) -> None:
        self.model, self.batch = model, batch
        owner = split.owner[batch.read_row]
        self.inside = batch.read_at < split.shared[owner]
        # What is predicted inside of a prefix is the same for all rows of the example.
        self.row = torch.where(self.inside, split.first[owner], batch.read_row)
        self.log_p = torch.zeros(batch.target.shape, device=batch.target.device)

    def read(self, rows: Tensor, at: Tensor, mask: Tensor, cache: Any) -> None:
        """A pass over columns `at` of these rows of the batch, after what the cache holds.

        mask: of all that, then of the columns. The prefixes are those that begin the cache.
        """
        ids = self.batch.input_ids
        column = at.clamp(0, ids.shape[1] - 1)  # padding has a position too, any will do
        number = torch.full_like(ids[:, 0], -1)
        number[rows] = torch.arange(len(rows), device=rows.device)
        row = number[self.row]
        mine = (row >= 0) & (self.inside == (mask.shape == at.shape))
        place = row * at.shape[1] + self.batch.read_at - at[row, 0]
        distinct, which = place[mine].unique(return_inverse=True)
        inputs = {"attention_mask": mask, "position_ids": column, "past_key_values": cache}
        log_p = log_p_at(
            self.model,
            Places(distinct // at.shape[1], distinct % at.shape[1], at.shape[1]),
            lambda: (
                self.model(input_ids=ids[rows[:, None], column], use_cache=True, **inputs).logits
            ),
        )
        index = torch.zeros_like(row).index_put((mine,), which)
        known = mine[self.batch.picked] & (self.batch.target >= 0)
        picked, target = index[self.batch.picked[known]], self.batch.target[known]
        found = log_p[picked.to(log_p.device), target.to(log_p.device)]
        self.log_p[known] = found.to(self.log_p.device)
