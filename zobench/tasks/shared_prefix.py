"""Scores of candidates with a common prefix: the prefix is computed once per example.

The shared prefixes of a batch are padded on the left; their keys and values go into a cache. Then
only the continuations are computed, padded on the right, each with a copy of its prefix. There is
no gap between the two, so relative positions are right too. Costs B prefixes and R continuations,
where rows of their own cost R times both. At most `at_once` continuations are computed at a time,
which bounds the memory of the copies: the cache of that many contexts, plus that of B prefixes.

What is read where is decided on the host, before anything is launched, so that all passes of a
batch can be recorded as one computation.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from zobench.tasks.batch import Batch, power_up, step_up
from zobench.tasks.evaluation import LAUNCHED, Forwards
from zobench.tasks.positions import virtual_tokens
from zobench.tasks.scoring import Places, candidate_scores, forward_arguments, log_p_at


class CacheUnusedError(RuntimeError):
    """The model does not keep the prefixes in the cache that it is given."""


@torch.no_grad()
def shared_prefix_scores(
    model: Any,
    batch: Batch,
    at_once: int,
    *,
    summed: bool = False,
    forwards: Forwards = LAUNCHED,
    device: torch.device | None = None,
) -> Tensor | None:
    """What `language_scores` says of a batch, without a graph; None where this cannot do it or
    would not save tokens: rows that share nothing, virtual tokens, windows, recurrent states.

    device: the model's, where the batch is still on the host.
    """
    split = _split(batch)
    if not _saves(split, batch):
        return None
    room = cache_room(model)
    if room < int(split.shared.max()) + int(split.rest.max()):
        return None
    reads, source = _reads(batch, split, at_once, room)
    try:
        values = forwards(prefix_log_p, model, reads.to(device or batch.input_ids.device))
    except CacheUnusedError:
        return None
    known = torch.cat([values, values.new_zeros(1)])  # the last one is no target's
    return candidate_scores(known[source.to(known.device)], batch, summed=summed)


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


def cache_room(model: Any) -> float:
    """Tokens up to which a cache keeps all keys of a model; 0 for a model of another kind.

    Recurrent states cannot be padded on the left, a short window counts padding as context,
    rotations may change where a text becomes long, and virtual tokens take the cache or the first
    positions for themselves.
    """
    if virtual_tokens(model):
        return 0
    if not {"past_key_values", "position_ids", "use_cache"} <= forward_arguments(model):
        return 0
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    room: float = rope.get("original_max_position_embeddings") or math.inf
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            room = min(room, layer.sliding_window - 1)
        elif type(layer) is not DynamicLayer:
            return 0
    return room


def empty_cache(model: Any, length: int) -> Any:
    """A cache that keeps all keys of `length` tokens, or None: see `cache_room`."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache(config=model.config) if length <= cache_room(model) else None


class Pass(NamedTuple):
    """The sizes of one forward: rows, tokens of each, places that are read, values found there."""

    rows: int
    width: int
    places: int
    values: int


@dataclass(frozen=True)
class PrefixBatch:
    """The forwards that read B prefixes and then R continuations, as tensors.

    prefix_*: (B, P) token ids, positions and mask, padded on the left. rest_*: (R, S), padded on
    the right. owner: (R,) the prefix of each. row, at: the places of all passes, one after the
    other, by row and column of their pass. place, token: the values of all passes: the number of a
    place within its pass, and the token whose log-probability is wanted there. passes: the prefixes
    first. room: see `cache_room`.
    """

    prefix_ids: Tensor
    prefix_at: Tensor
    prefix_mask: Tensor
    rest_ids: Tensor
    rest_at: Tensor
    rest_mask: Tensor
    owner: Tensor
    row: Tensor
    at: Tensor
    place: Tensor
    token: Tensor
    passes: tuple[Pass, ...]
    room: float

    def to(self, device: torch.device) -> "PrefixBatch":
        return self._with(lambda tensor: tensor.to(device))

    def _with(self, change: Any) -> "PrefixBatch":
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **{name: change(value) for name, value in tensors.items()})

    def widened(self, longest: int) -> "PrefixBatch":
        """The same padded to one of a few sizes; no value is changed.

        longest: prefix and continuation get no more tokens together. Filler rows continue the
        first prefix.
        """
        first, *others = self.passes
        before = step_up(first.width) - first.width
        width = self.rest_ids.shape[1]
        right = step_up(width) - width
        if first.width + before + width + right > min(longest, self.room):
            before = right = 0
        below = step_up(others[-1].rows) - others[-1].rows
        width += right
        others = [one._replace(width=width) for one in others]
        others[-1] = others[-1]._replace(rows=others[-1].rows + below)
        passes = [first._replace(width=first.width + before), *others]
        passes = [one._replace(places=power_up(one.places)) for one in passes]
        sizes = [one.places for one in self.passes]
        rows, columns = (
            [
                pad(part, (0, power_up(size) - size))
                for part, size in zip(tensor.split(sizes), sizes, strict=True)
            ]
            for tensor in (self.row, self.at)
        )
        columns[0] = columns[0] + before
        mask = pad(self.rest_mask, (0, right, 0, below))
        mask[len(self.owner) :, 0] = 1
        return replace(
            self,
            prefix_ids=pad(self.prefix_ids, (before, 0)),
            prefix_at=pad(self.prefix_at, (before, 0)),
            prefix_mask=pad(self.prefix_mask, (before, 0)),
            rest_ids=pad(self.rest_ids, (0, right, 0, below)),
            rest_at=pad(self.rest_at, (0, right, 0, below)),
            rest_mask=mask,
            owner=pad(self.owner, (0, below)),
            row=torch.cat(rows),
            at=torch.cat(columns),
            passes=tuple(passes),
        )


def _reads(batch: Batch, split: _Split, at_once: int, room: float) -> tuple[PrefixBatch, Tensor]:
    """What is read of a batch, and which of the values each target is (N, K); the last: none."""
    ids, last = batch.input_ids, batch.input_ids.shape[1] - 1
    width, depth = int(split.shared.max()), int(split.rest.max())
    before = torch.arange(width, device=ids.device) - (width - split.shared)[:, None]
    rest = split.rest.nonzero().flatten()
    after = torch.arange(depth, device=ids.device)
    owner = split.owner[rest]
    columns = before.clamp(0, last)  # padding has a position too, any will do
    at = (split.shared[owner, None] + after).clamp(0, last)
    finder = _Finder(batch, split)
    finder.find(split.first, before[:, 0], width, inside=True)
    for rows in rest.split(at_once):
        finder.find(rows, split.shared[split.owner[rows]], int(split.rest[rows].max()))
    row, column, place, token = (torch.cat(parts) for parts in zip(*finder.parts, strict=True))
    reads = PrefixBatch(
        prefix_ids=ids[split.first[:, None], columns],
        prefix_at=columns,
        prefix_mask=(before >= 0).long(),
        rest_ids=ids[rest[:, None], at],
        rest_at=at,
        rest_mask=(after < split.rest[rest, None]).long(),
        owner=owner,
        row=row,
        at=column,
        place=place,
        token=token,
        passes=tuple(finder.passes),
        room=room,
    )
    return reads, finder.source


class _Finder:
    """Finds, pass by pass, where the targets of a batch are predicted."""

    def __init__(self, batch: Batch, split: _Split) -> None:
        self.batch = batch
        owner = split.owner[batch.read_row]
        self.inside = batch.read_at < split.shared[owner]
        # What is predicted inside of a prefix is the same for all rows of the example.
        self.row = torch.where(self.inside, split.first[owner], batch.read_row)
        self.source = torch.full_like(batch.target, -1)  # the last of all values
        self.passes: list[Pass] = []
        self.parts: list[tuple[Tensor, ...]] = []  # row, column, place, token of each pass

    def find(self, rows: Tensor, start: Tensor, width: int, *, inside: bool = False) -> None:
        """Add a pass over `width` tokens of these rows of the batch, each from its `start`."""
        number = torch.full_like(self.batch.input_ids[:, 0], -1)
        number[rows] = torch.arange(len(rows), device=rows.device)
        row = number[self.row]
        mine = (row >= 0) & (self.inside == inside)
        place = row * width + self.batch.read_at - start[row]
        distinct, which = place[mine].unique(return_inverse=True)
        index = torch.zeros_like(row).index_put((mine,), which)
        known = mine[self.batch.picked] & (self.batch.target >= 0)
        found, tokens = index[self.batch.picked[known]], self.batch.target[known]
        first = sum(one.values for one in self.passes)
        self.source[known] = first + torch.arange(len(found), device=rows.device)
        size = power_up(len(found))
        filler = (0, size - len(found))
        self.passes.append(Pass(len(rows), width, len(distinct), size))
        at = distinct // width, distinct % width
        self.parts.append((*at, pad(found, filler), pad(tokens, filler)))


def prefix_log_p(model: Any, reads: PrefixBatch) -> Tensor:
    """Log-probabilities of the values of all passes, float32.

    Raises CacheUnusedError where the prefixes do not get into the cache.
    """
    from transformers.cache_utils import DynamicCache

    def read(number: int, ids: Tensor, at: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """The values of a pass over these tokens, after what the cache holds."""
        row, column, place, token = parts[number]
        inputs = {"attention_mask": mask, "position_ids": at, "past_key_values": cache}
        log_p = log_p_at(
            model,
            Places(row, column, ids.shape[1]),
            lambda: model(input_ids=ids, use_cache=True, **inputs).logits,
        )
        return log_p[place.to(log_p.device), token.to(log_p.device)].to(place.device)

    places, values = [one.places for one in reads.passes], [one.values for one in reads.passes]
    by_place, by_value = (reads.row, reads.at), (reads.place, reads.token)
    split = [t.split(places) for t in by_place] + [t.split(values) for t in by_value]
    parts = list(zip(*split, strict=True))
    mask: Tensor = reads.prefix_mask
    cache: Any = DynamicCache(config=model.config)
    found = [read(0, reads.prefix_ids, reads.prefix_at, mask, cache)]
    if not all(layer.is_initialized and len(layer.keys) == len(mask) for layer in cache.layers):
        raise CacheUnusedError("the model does not use the cache that it is given")
    first = 0
    for number, one in enumerate(reads.passes[1:], start=1):
        rows, columns = slice(first, first + one.rows), slice(one.width)
        owner, inside = reads.owner[rows], reads.rest_mask[rows, columns]
        whole, before = torch.cat([mask[owner], inside], dim=1), _of(cache, owner)
        tokens, at = reads.rest_ids[rows, columns], reads.rest_at[rows, columns]
        found.append(read(number, tokens, at, whole, before))
        first += one.rows
    return torch.cat(found)


def _of(cache: Any, examples: Tensor) -> Any:
    """A cache of these examples' prefixes; the one that it is made from stays as it is."""
    chosen = copy.copy(cache)  # layers replace their tensors, so copies of the layers suffice
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:  # which may be on different devices
        layer.batch_select_indices(examples.to(layer.keys.device))
    return chosen
