"""Heavy-ball momentum on the estimate (MeZO-momentum, Malladi et al. 2023, appendix B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zobench.zo.feedback import GRAD, MOMENTUM, DrawnTerm
from zobench.zo.passes import kernel
from zobench.zo.passes.move import Move, Term
from zobench.zo.rules.base import Rule
from zobench.zo.space import Slot


@dataclass(frozen=True, eq=False)
class HeavyBall:
    """m <- beta m + gain g; w <- w - lr m: a StateUpdate."""

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

    Formula:
        ```text
        m <- beta m + g  (damped: beta m + (1 - beta) g),  g = sum_k c_k z_k
        w <- w - lr m
        ```

    Args:
        beta: Weight of the old momentum, in [0, 1).
        damped: m <- beta m + (1 - beta) g instead, an average (LOZO-M, TeZO-m).
        per_query: Take the step once for each direction instead, from query 0 up, so that K
            directions decay m by beta^K (LOREN's released code); costs a draw more, of the
            direction that the weights come back along.
        vectors: False moves vectors by -lr g without momentum, as LOREN does.

    Raises:
        ValueError: `beta` is out of range.

    References:
        Malladi et al. 2023, arXiv 2305.17333, appendix B (MeZO-momentum).
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
        self.alike = self.device_scalars = not per_query  # which is not one move
        self.gain = 1.0 - beta if damped else 1.0
        if vectors and not per_query and not damped:
            self.gives = frozenset({MOMENTUM})

    def state_bytes(self, slot: Slot) -> int:
        plain = not self.vectors and slot.parameter.dim() <= 1
        return 0 if plain else slot.numel * slot.state_itemsize

    def update(
        self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Move | None:
        del step
        if not self.vectors and slot.parameter.dim() <= 1:
            return slot.move(
                [Term(term.direction, term.restore, -lr * term.grad) for term in drawn]
            )
        state_update = HeavyBall(slot.buffer("momentum"), self.beta, self.gain, lr)
        if not self.per_query:
            terms = [Term(term.direction, term.restore, term.grad) for term in drawn]
            return slot.move(terms, state_update=state_update)
        self._by_query(slot, drawn, state_update)
        return None

    @staticmethod
    def _by_query(slot: Slot, drawn: Sequence[DrawnTerm], state_update: HeavyBall) -> None:
        """The weights are restored first; then a step for each direction that has a coefficient.

        So the point where the weights were has no effect on the order or number of the steps.
        """
        queries = sorted(
            (term for term in drawn if GRAD in term.coefficients), key=lambda term: term.key
        )
        for start, weights in slot.edit():
            for term in drawn:
                if term.restore:
                    z = term.direction.draw(start, weights.numel(), weights.device)
                    weights.add_(z.to(weights.dtype) * term.restore)  # as at the displacement
            place = slice(start, start + weights.numel())
            for term in queries:
                z = term.direction.draw(start, weights.numel(), weights.device)
                state_update.apply(place, weights, z.to(weights.dtype) * term.grad)
