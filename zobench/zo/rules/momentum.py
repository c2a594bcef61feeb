"""Heavy-ball momentum on the estimate (MeZO-momentum, Malladi et al. 2023, appendix B)."""

from collections.abc import Sequence

from zobench.zo.feedback import MOMENTUM, Replay
from zobench.zo.rules.base import Rule, estimate_blocks
from zobench.zo.space import Slot


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
        self.gain = 1.0 - beta if damped else 1.0
        if vectors and not per_query and not damped:
            self.gives = frozenset({MOMENTUM})

    def state_bytes(self, slot: Slot) -> int:
        plain = not self.vectors and slot.parameter.dim() <= 1
        return 0 if plain else slot.numel * slot.state_itemsize

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> None:
        del step
        if not self.vectors and slot.parameter.dim() <= 1:
            for _, weights, estimate in estimate_blocks(slot, replays):
                weights.add_(estimate, alpha=-lr)
            return
        momentum = slot.buffer("momentum")
        rounds = [[replay] for replay in replays] if self.per_query else [replays]
        for terms in rounds:
            for place, weights, estimate in estimate_blocks(slot, terms):
                part = momentum[place].mul_(self.beta).add_(estimate, alpha=self.gain)
                weights.add_(part, alpha=-lr)
