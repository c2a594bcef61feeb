"""Heavy-ball momentum on the estimate (MeZO-momentum, Malladi et al. 2023, appendix B)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zobench.zo.feedback import MOMENTUM, Key
from zobench.zo.passes import kernel
from zobench.zo.rules.base import BlockChange, Change, Kind, Rule
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
        self.device_scalars = not per_query
        self.gain = 1.0 - beta if damped else 1.0
        if vectors and not per_query and not damped:
            self.gives = frozenset({MOMENTUM})

    def state_bytes(self, slot: Slot) -> int:
        plain = not self.vectors and slot.parameter.dim() <= 1
        return 0 if plain else slot.numel * slot.state_itemsize

    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | BlockChange:
        del step
        if not self.vectors and kind.vector:
            return Change({key: -lr * c for key, c in grad.items()})

        def heavy_ball(slot: Slot) -> HeavyBall:
            return HeavyBall(slot.buffer("momentum"), self.beta, self.gain, lr)

        def by_query(slot: Slot, place: slice, weights: Tensor, z: Mapping[Key, Tensor]) -> None:
            for key in sorted(grad):
                heavy_ball(slot).apply(place, weights, z[key] * grad[key])

        return BlockChange(by_query) if self.per_query else Change(grad, state=heavy_ball)
