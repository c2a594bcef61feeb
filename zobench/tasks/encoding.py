"""From examples to token ids, and from ids to a left-padded batch with one row per context.

A candidate is scored on its own tokens only, so the last of them is never fed to the model; two
candidates of one token each then share one context, hence one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.tasks.example import Example

_PAD_TO = 8  # as in MeZO; fewer distinct shapes


@dataclass(frozen=True)
class Candidate:
    """Tokens that the model reads, and the tokens that it is scored on (the last positions)."""

    context: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """One example as candidates."""

    candidates: tuple[Candidate, ...]
    gold: int

    @property
    def length(self) -> int:
        return max(len(candidate.context) for candidate in self.candidates)


def encode(example: Example, tokenizer: Any, *, max_length: int, truncation: str) -> Encoded:
    """Tokenise an example; a context longer than `max_length` is an error or is cut on the left.

    The choice starts where its tokens part from the prompt's, so a merge across the boundary
    cannot make it empty. Cutting keeps the beginning-of-sequence token.
    """
    prompt = tokenizer(example.prompt)["input_ids"]
    candidates = []
    for choice in example.choices:
        ids = tokenizer(example.prompt + choice)["input_ids"]
        split = 0
        while split < min(len(prompt), len(ids)) and prompt[split] == ids[split]:
            split += 1
        context, target = ids[:-1], ids[split:]
        if not target:
            raise UserError(f"{example.where}: the choice {choice!r} has no tokens to score")
        if split == 0:
            raise UserError(
                f"{example.where}: no token stands before the choice {choice!r} to score it after;"
                " the prompt is empty or all of it merges with the choice"
            )
        if len(context) > max_length:
            if truncation == "error":
                raise UserError(
                    f"{example.where}: the prompt takes {len(context)} tokens, the model"
                    f" {max_length}; set task.truncation=left to keep its end"
                )
            bos = [ids[0]] if ids[0] == tokenizer.bos_token_id else []
            context = bos + context[len(context) - max_length + len(bos) :]
            if len(target) > max_length - len(bos):
                raise UserError(f"{example.where}: a choice alone is longer than the model")
        candidates.append(Candidate(tuple(context), tuple(target)))
    return Encoded(tuple(candidates), example.gold)


@dataclass(frozen=True)
class Batch:
    """Tensors of one batch: R context rows of T tokens, N candidates of at most K target tokens.

    input_ids, attention_mask: (R, T), left-padded. row, example: (N,) the candidate's context row
    and example. target: (N, K), right-aligned, -1 where the choice is shorter. place: (N,) the
    candidate's number within its example. gold: (B,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    row: Tensor
    example: Tensor
    place: Tensor
    target: Tensor
    gold: Tensor
    tokens: int

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Batch(**moved, tokens=self.tokens)


def collate(examples: Sequence[Encoded], pad_id: int, max_length: int) -> Batch:
    """One batch; equal contexts of an example become one row, padded to a multiple of 8."""
    rows: list[tuple[int, ...]] = []
    row, place, owner, target = [], [], [], []
    for number, example in enumerate(examples):
        seen: dict[tuple[int, ...], int] = {}
        for order, candidate in enumerate(example.candidates):
            if candidate.context not in seen:
                seen[candidate.context] = len(rows)
                rows.append(candidate.context)
            row.append(seen[candidate.context])
            place.append(order)
            owner.append(number)
            target.append(candidate.target)
    width = min(max_length, -(-max(map(len, rows)) // _PAD_TO) * _PAD_TO)
    depth = max(map(len, target))
    return Batch(
        input_ids=torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows]),
        attention_mask=torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
        row=torch.tensor(row),
        example=torch.tensor(owner),
        place=torch.tensor(place),
        target=torch.tensor([[-1] * (depth - len(t)) + list(t) for t in target]),
        gold=torch.tensor([example.gold for example in examples]),
        tokens=sum(map(len, rows)),
    )
