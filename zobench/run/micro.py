"""A step's batch in parts, for machines that cannot hold all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parts:
    """Micro-batches and what each weighs in the loss of the whole; the weighted mean is exact.

    weights: how many examples, or tokens, the mean loss of each is over.
    """

    batches: Sequence[Any]
    weights: Sequence[float]

    @property
    def tokens(self) -> int:
        return sum(batch.tokens for batch in self.batches)

    @property
    def shares(self) -> list[tuple[float, Any]]:
        """Each micro-batch with its share of the loss; the shares sum to 1."""
        whole = sum(self.weights)
        return [(w / whole, b) for w, b in zip(self.weights, self.batches, strict=True)]


def shares_of(batch: Any) -> list[tuple[float, Any]]:
    """The shares of a batch in parts; of any other, itself with all of the loss."""
    return batch.shares if isinstance(batch, Parts) else [(1.0, batch)]
