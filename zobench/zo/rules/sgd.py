"""Plain descent: MeZO's update (Malladi et al. 2023, Algorithm 1), merged with the restore."""

from collections.abc import Sequence

from zobench.zo.feedback import PLAIN, DrawnTerm
from zobench.zo.passes.move import Move, Term
from zobench.zo.rules.base import Rule
from zobench.zo.space import Slot


class SGD(Rule):
    """w <- w - lr (g + weight_decay w); no state.

    Vectors (biases, normalisation weights) are not decayed, as in MeZO. Restore and update share
    one draw of each direction, and g is never formed.

    Formula:
        ```text
        w <- w - lr (g + weight_decay w),  g = sum_k c_k z_k
        ```

    Args:
        weight_decay: Per unit of learning rate; 0 is none.

    References:
        Malladi et al. 2023, arXiv 2305.17333, Algorithm 1.
    """

    alike = device_scalars = True

    def __init__(self, *, weight_decay: float = 0.0) -> None:
        self.weight_decay = weight_decay
        self.gives = frozenset() if weight_decay else frozenset({PLAIN})

    def update(
        self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Move | None:
        del step
        if not drawn:
            return None  # the slot took no part in this step
        decay = 1.0 - lr * self.weight_decay if slot.parameter.dim() > 1 else 1.0
        terms = [Term(term.direction, decay * term.restore, -lr * term.grad) for term in drawn]
        return slot.move(terms, decay=decay)
