"""From encoded examples to a right-padded batch with one row per context.

With padding on the right every token has the position that it has alone, so no position ids are
needed, and prefixes and soft prompts of a tuning come right before the text.
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
    place: (N,) the candidate's example and its number within it; example -1 is none. gold: (B,) or
    (B, classes), what the scores of each example are compared with. choices: most candidates of an
    example. alone: rows of different lengths do not go through the model together, because padding
    changes a row's outputs in this model.
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
        """Examples `first` to `last` - 1, with the padding of this batch; `tokens` stay.

        So kernels compute the same for a row as in the whole batch, unless they depend on the
        number of rows.
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

    def widened(self, longest: int) -> "Batch":
        """The same padded to one of a few sizes; no example is changed.

        longest: no row gets more tokens. Filler rows hold one token; filler candidates belong to no
        example.
        """
        rows, width = self.input_ids.shape
        count, depth = self.picked.shape
        below = step_up(rows) - rows
        right = max(0, min(longest, step_up(width)) - width)
        more, left = power_up(count) - count, power_up(depth) - depth
        unread = power_up(len(self.read_at)) - len(self.read_at)

        def padded(x: Tensor, pad: tuple[int, ...], filler: int = 0) -> Tensor:
            return torch.nn.functional.pad(x, pad, value=filler)

        mask = padded(self.attention_mask, (0, right, 0, below))
        mask[rows:, 0] = 1
        types = self.token_types
        return replace(
            self,
            input_ids=padded(self.input_ids, (0, right, 0, below)),
            attention_mask=mask,
            read_row=padded(self.read_row, (0, unread)),
            read_at=padded(self.read_at, (0, unread)),
            picked=padded(self.picked, (left, 0, 0, more)),
            target=padded(self.target, (left, 0, 0, more), -1),
            example=padded(self.example, (0, more), -1),
            place=padded(self.place, (0, more)),
            token_types=None if types is None else padded(types, (0, right, 0, below)),
        )

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)


def collate(
    examples: Sequence[Encoded],
    pad_id: int,
    max_length: int,
    *,
    alone: bool = False,
    pad_to: int = _PAD_TO,
) -> Batch:
    """One batch; equal contexts of an example become one row, padded to a multiple of `pad_to`.

    alone: padded to the longest row only; see `Batch.alone`.
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
    width = longest if alone else min(max_length, -(-longest // pad_to) * pad_to)
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
        gold=torch.tensor([example.expected for example in examples]),
        token_types=padded([row.types for row in rows], 0) if rows[0].types else None,
        tokens=sum(len(row.context) for row in rows),
        choices=max(len(example.candidates) for example in examples),
        alone=alone,
    )


def step_up(size: int) -> int:
    """The next size of a ladder of eight steps an octave, which adds an eighth at most."""
    step = 1 << max(0, (size - 1).bit_length() - 4)
    return -(-size // step) * step


def power_up(size: int) -> int:
    """The next power of two; 0 for 0."""
    return 1 << (size - 1).bit_length() if size else 0


def _span(numbers: Tensor) -> slice:
    """From the least to the greatest: the range of neighbouring examples."""
    least, greatest = numbers.aminmax()
    return slice(int(least), int(greatest) + 1)
