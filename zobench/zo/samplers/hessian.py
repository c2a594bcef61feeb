"""HiZOO's law (Zhao et al. 2025, arXiv 2402.15173): noise scaled by a learnt diagonal Hessian.

z = u / sqrt(H), u ~ N(0, I), and after the step H <- (1 - alpha) H + alpha kappa H u^2 with kappa =
|f+ + f- - 2 f0| / (2 eps^2), from H = 1. `variant: released` follows the authors' code: it perturbs
with the old H and moves the weights along u / sqrt(new H).
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import CURVATURE, Channels, DrawnTerm, Key
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import Sampler
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot


@dataclass(frozen=True)
class Preconditioned(Direction):
    """u / sqrt(h), h = diagonal(start, stop) a block of a positive vector."""

    noise: Drawn
    diagonal: Callable[[int, int], Tensor]

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        h = self.diagonal(start, start + count)
        return self.noise.draw(start, count, device).to(h.dtype).mul_(h.rsqrt())


class Hessian(Sampler):
    """What the two forms of HiZOO's curvature H share.

    `released` holds a slot's old H, as large as the slot, while it is moved.

    Args:
        alpha: Weight of the new curvature in the moving average, in [0, 1).
        variant: `paper`, or `released`, which moves along the new H what it measured along the old.

    Raises:
        ValueError: An argument is out of range.
    """

    needs = frozenset({CURVATURE})
    most_directions = 1

    def __init__(self, *, alpha: float = 1e-8, variant: str = "paper") -> None:
        if not 0.0 <= alpha < 1.0:
            raise ValueError(f"sampler.alpha={alpha}: must be in [0, 1)")
        if variant not in ("paper", "released"):
            raise ValueError(f"sampler.variant={variant}: choose paper or released")
        self.alpha, self.released = alpha, variant == "released"

    @abstractmethod
    def diagonal(self, slot: Slot, start: int, stop: int) -> Tensor:
        """H of a block of the slot, as a vector."""

    @abstractmethod
    def learn(self, slot: Slot, key: Key, curvature: float) -> None:
        """Fold kappa H u^2 of the direction into H."""

    def direction(self, slot: Slot, key: Key) -> Direction:
        noise = Drawn.normal(key, slot.id)
        return Preconditioned(noise, lambda start, stop: self.diagonal(slot, start, stop))

    def noise_squared(self, slot: Slot, key: Key, start: int, stop: int) -> Tensor:
        """u^2 of a block, in the dtype of state."""
        u = Drawn.normal(key, slot.id).draw(start, stop - start, slot.parameter.device)
        return u.to(slot.state_dtype).square_()

    def released_update(self, slot: Slot, drawn: list[DrawnTerm]) -> list[DrawnTerm]:
        if not self.released:
            return drawn
        old = self.diagonal(slot, 0, slot.numel).clone()
        curvatures = {t.key: t.coefficients for t in drawn if CURVATURE in t.coefficients}
        self._learn(slot, {key: given[CURVATURE] for key, given in curvatures.items()})
        revised = []
        for term in drawn:
            noise = Drawn.normal(term.key, slot.id)
            was = Preconditioned(noise, lambda start, stop: old[start:stop])
            revised.append(DrawnTerm(term.key, was, term.restore, {}))
            revised.append(replace(term, restore=0.0))
        return revised

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        """Move H: every direction of this step has been drawn."""
        del sums
        for slot in () if self.released else slots:
            self._learn(slot, channels.get(CURVATURE, {}))

    def _learn(self, slot: Slot, curvatures: Mapping[Key, float]) -> None:
        if self.alpha:
            for key, curvature in curvatures.items():
                self.learn(slot, key, curvature)
