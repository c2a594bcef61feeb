"""JAGUAR's directions (arXiv 2506.04430): ones on a random block of rows and columns of a tensor.

z_ij = 1 for i in a random tenth of the rows and j in a random tenth of the columns, 0 elsewhere;
eps is the paper's tau. Reproduced from the formula: the released index function cannot be called as
it is, and its tensors of equal shape share their draws.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot

_ROWS, _COLUMNS = 11, 12  # stream numbers of the draws that choose them


@dataclass(frozen=True)
class Block(Direction):
    """1 at the sorted `rows` and `columns` of a matrix of that width."""

    rows: Tensor
    columns: Tensor
    width: int

    def _places(self, start: int, count: int) -> Tensor:
        """Where the ones of a block of the flat slot are."""
        first, last = start // self.width, -(-(start + count) // self.width)
        rows = self.rows[(self.rows >= first) & (self.rows < last)]
        places = (rows.unsqueeze(1) * self.width + self.columns).view(-1) - start
        return places[(places >= 0) & (places < count)]

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        places = self._places(start, out.numel())
        out[places] = out[places].add_(first).add_(second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        out = torch.zeros(count, device=device)
        out[self._places(start, count)] = 1.0
        return out


class CoordinateBlock(Sampler):
    """JAGUAR's directions: ones on a random block of rows and columns. No state.

    Formula:
        ```text
        z_ij = 1 where i is in a random share of the rows and j of the columns, else 0
        ```

    Args:
        share: Of the rows, and of the columns; of a vector's elements; in (0, 1]. At least one
            takes part.

    Raises:
        ValueError: `share` is out of range.

    References:
        JAGUAR, arXiv 2506.04430.
    """

    replay_class = ReplayClass.PURE

    def __init__(self, *, share: float = 0.1) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"sampler.share={share}: must be in (0, 1]")
        self.share = share
        self._blocks: dict[tuple[int, Key], Block] = {}  # of this step, to choose each once

    def begin_step(self, step: int) -> None:
        del step
        self._blocks = {}

    def direction(self, slot: Slot, key: Key) -> Block:
        if (slot.id, key) not in self._blocks:
            self._blocks[slot.id, key] = self._block(slot, key)
        return self._blocks[slot.id, key]

    def _block(self, slot: Slot, key: Key) -> Block:
        shape = slot.parameter.shape
        rows, width = (shape[0], slot.numel // shape[0]) if len(shape) > 1 else (slot.numel, 1)
        chosen = self._choose(slot, key, _ROWS, rows), self._choose(slot, key, _COLUMNS, width)
        return Block(*chosen, width)

    def _choose(self, slot: Slot, key: Key, number: int, size: int) -> Tensor:
        """That share of 0 .. size-1, without replacement and equally likely, in order."""
        count = max(1, round(self.share * size))
        drawn = Drawn.normal(key, slot.id, number=number).draw(0, size, slot.parameter.device)
        return drawn.argsort(stable=True)[:count].sort().values
