"""Heavy-ball momentum on the estimate (MeZO-momentum, Malladi et al. 2023, appendix B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zobench.zo.feedback import MOMENTUM, Replay
from zobench.zo.passes import kernel
from zobench.zo.passes.move import Move, Term
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


@dataclass(frozen=True, eq=False)
class HeavyBall:
    """m <- beta m + gain g; w <- w - lr m: a Through."""

    momentum: Tensor
    beta: float
    gain: float
    lr: float
    kernel: ClassVar[int] = kernel.MOMENTUM

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        return (self.momentum,)

    @property
    def scalars(self) -> tuple[float, ...]:
        return self.beta, self.gain, self.lr

    def apply(self, place: slice, weights: Tensor, estimate: Tensor) -> None:
        m = self.momentum[place].mul_(self.beta).add_(estimate, alpha=self.gain)
        weights.add_(m, alpha=-self.lr)


class Momentum(Rule):
    """m <- beta m + g; w <- w - lr m. State: one float32 vector per slot (4 bytes a parameter).

    damped: m <- beta m + (1 - beta) g instead, an average (LOZO-M, TeZO-m).
    per_query: take the step once for each direction instead, so that K directions decay m by beta^K
    (LOREN's released code). vectors: false moves vectors by -lr g without momentum, as LOREN does.
    """

    linear = ("momentum",)

    def __init__(
        self,
        *,
        beta: float = 0.9,
        damped: bool = False,
        per_query: bool = False,
        vectors: bool = True,
    ) -> None:
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"rule.beta={beta}: must be in [0, 1)")
        self.beta, self.per_query, self.vectors = beta, per_query, vectors
        self.alike = self.deferred = not per_query  # which is not one move
        self.gain = 1.0 - beta if damped else 1.0
        if vectors and not per_query and not damped:
            self.gives = frozenset({MOMENTUM})

    def state_bytes(self, slot: Slot) -> int:
        plain = not self.vectors and slot.parameter.dim() <= 1
        return 0 if plain else slot.numel * slot.state_itemsize

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> Move | None:
        del step
        if not self.vectors and slot.parameter.dim() <= 1:
            return slot.move([Term(r.direction, r.restore, -lr * r.grad) for r in replays])
        through = HeavyBall(slot.buffer("momentum"), self.beta, self.gain, lr)
        if not self.per_query:
            terms = [Term(r.direction, r.restore, r.grad) for r in replays]
            return slot.move(terms, through=through)
        for replay in replays:
            for place, weights, estimate in estimate_blocks(slot, [replay]):
                through.apply(place, weights, estimate)
        return None
