"""Low-rank directions: small coordinates between two bases, never a full matrix in memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zobench.zo.moves import Direction


@dataclass(frozen=True, eq=False)
class LowRank(Direction):
    """z = scale * left @ coordinates @ right^T on the slot's flat memory, row by row; a Direction.

    coordinates: (p, q), or a vector of length p = q that stands for its diagonal matrix.
    left: (rows, p); right: (cols, q); None is the identity.
    epoch: the step from which these bases hold. transport(state, epoch): linear state kept in the
    coordinates of an earlier epoch, in these; None where the bases never change.
    """

    coordinates: Tensor
    left: Tensor | None = None
    right: Tensor | None = None
    scale: float = 1.0
    epoch: int = 0
    transport: Callable[[Tensor, int], Tensor] | None = None

    @property
    def cols(self) -> int:
        return (self.coordinates.shape[-1:] if self.right is None else self.right.shape)[0]

    def with_coordinates(self, coordinates: Tensor) -> "LowRank":
        """Other coordinates, of the same number, between the same bases."""
        return replace(self, coordinates=coordinates.view(self.coordinates.shape))

    def squared(self, coordinates: Tensor) -> "LowRank":
        """Coordinates between the bases squared element by element: for a second moment."""
        left, right = (b if b is None else b.square() for b in (self.left, self.right))
        return replace(
            self.with_coordinates(coordinates), left=left, right=right, scale=self.scale**2
        )

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        cols = self.cols
        if start % cols or out.numel() % cols:  # the block was cut between rows of another shape
            super().add_to(out, start, first, second)
            return
        a, b = self._factors(start // cols, (start + out.numel()) // cols, out.dtype)
        rows = out.view(-1, cols)
        for scale in (first * self.scale, second * self.scale):
            if scale and b is None:
                rows.add_(a, alpha=scale)
            elif scale and b is not None:
                rows.addmm_(a, b, alpha=scale)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        del device  # the factors' own
        cols = self.cols
        first, last = start // cols, -(-(start + count) // cols)
        a, b = self._factors(first, last, self.coordinates.dtype)
        rows = a if b is None else a @ b
        return (rows * self.scale).reshape(-1)[start - first * cols :][:count]

    def factors(self) -> tuple[Tensor, Tensor | None]:
        """a (rows, q) and b (q, cols) with a @ b the whole of z / scale; b None is the identity."""
        rows = len(self.coordinates) if self.left is None else len(self.left)
        return self._factors(0, rows, self.coordinates.dtype)

    def _factors(self, first: int, last: int, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """a and b with a @ b the rows first .. last of z / scale; b None is the identity."""
        coordinates = self.coordinates.to(dtype)
        right = None if self.right is None else self.right.to(dtype).T
        if self.left is None:
            rows = (
                coordinates[first:last] if coordinates.dim() > 1 else coordinates.diag()[first:last]
            )
            return rows, right
        rows = self.left[first:last].to(dtype)
        if coordinates.dim() == 1:
            return rows * coordinates, right
        return (rows, coordinates) if right is None else (rows @ coordinates, right)
