"""From encoded examples to a right-padded batch with one row per context.

Padding on the right leaves every token where it would be alone, so no position ids are needed and
whatever tuning puts before the text (prefixes, soft prompts) stands right before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zobench.tasks.encoding import Candidate, Encoded

_PAD_TO = 8  # as in MeZO; fewer distinct shapes


@dataclass(frozen=True)
class Batch:
    """Tensors of one batch: R context rows of T tokens, N candidates of at most K target tokens.

    input_ids, attention_mask: (R, T), right-padded; token_types: the same or None. read_row,
    read_at: (M,) the distinct places whose logits are needed. picked: (N, K) which of the M places
    predicts each target. target: (N, K), right-aligned, -1 where the choice is shorter. example,
    place: (N,) the candidate's example and its number within it; example -1 is none. gold: (B,).
    choices: most candidates of an example. alone: rows of different lengths do not go through the
    model together, because this model lets padding change what a row gets.
    """

    input_ids: Tensor
    attention_mask: Tensor
    read_row: Tensor
    read_at: Tensor
    picked: Tensor
    target: Tensor
    example: Tensor
    place: Tensor
    gold: Tensor
    token_types: Tensor | None
    tokens: int
    choices: int
    alone: bool = False

    @property
    def examples(self) -> int:
        return len(self.gold)

    def cut(self, first: int, last: int) -> "Batch":
        """Examples `first` to `last` - 1, as wide and deep as they stand here; `tokens` stay.

        What kernels find for a row then is what they find for it in the whole, unless they look at
        how many rows there are.
        """
        mine = (self.example >= first) & (self.example < last)
        read = _span(self.picked[(self.target >= 0) & mine[:, None]])
        row = _span(self.read_row[read])
        types = self.token_types
        return replace(
            self,
            input_ids=self.input_ids[row],
            attention_mask=self.attention_mask[row],
            read_row=self.read_row[read] - row.start,
            read_at=self.read_at[read],
            picked=(self.picked[mine] - read.start).clamp(min=0),  # filler may point anywhere
            target=self.target[mine],
            example=self.example[mine] - first,
            place=self.place[mine],
            gold=self.gold[first:last],
            token_types=None if types is None else types[row],
        )

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)


def collate(
    examples: Sequence[Encoded], pad_id: int, max_length: int, *, alone: bool = False
) -> Batch:
    """One batch; equal contexts of an example become one row, padded to a multiple of 8.

    alone: to the longest row, and as `Batch.alone` says.
    """
    rows: list[Candidate] = []
    read: dict[tuple[int, int], int] = {}
    picked, place, owner, target = [], [], [], []
    for number, example in enumerate(examples):
        seen: dict[tuple[int, ...], int] = {}
        for order, candidate in enumerate(example.candidates):
            row = seen.setdefault(candidate.context, len(rows))
            if row == len(rows):
                rows.append(candidate)
            picked.append([read.setdefault((row, at), len(read)) for at in candidate.positions])
            place.append(order)
            owner.append(number)
            target.append(candidate.target)
    longest = max(len(row.context) for row in rows)
    width = longest if alone else min(max_length, -(-longest // _PAD_TO) * _PAD_TO)
    depth = max(map(len, target))
    places = torch.tensor(list(read))

    def padded(lists: Sequence[tuple[int, ...]], filler: int) -> Tensor:
        return torch.tensor([[*items] + [filler] * (width - len(items)) for items in lists])

    return Batch(
        input_ids=padded([row.context for row in rows], pad_id),
        attention_mask=padded([(1,) * len(row.context) for row in rows], 0),
        read_row=places[:, 0],
        read_at=places[:, 1],
        picked=torch.tensor([[0] * (depth - len(p)) + p for p in picked]),
        target=torch.tensor([[-1] * (depth - len(t)) + list(t) for t in target]),
        example=torch.tensor(owner),
        place=torch.tensor(place),
        gold=torch.tensor([example.gold for example in examples]),
        token_types=padded([row.types for row in rows], 0) if rows[0].types else None,
        tokens=sum(len(row.context) for row in rows),
        choices=max(len(example.candidates) for example in examples),
        alone=alone,
    )


def _span(numbers: Tensor) -> slice:
    """From the least to the greatest: those of neighbouring examples have no others between."""
    least, greatest = numbers.aminmax()
    return slice(int(least), int(greatest) + 1)
