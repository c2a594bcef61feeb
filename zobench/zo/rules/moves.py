"""No step but the estimator's own: for MeZO-Greedy (arXiv 2601.04710) and ZO-SGD-Conservative."""

from collections.abc import Sequence

from zobench.zo.feedback import MOVE, DrawnTerm
from zobench.zo.passes.move import Move, Term
from zobench.zo.rules.base import Rule
from zobench.zo.space import Slot


class Moves(Rule):
    """w <- w + sum of coefficient * z over what the estimator moved; no state, no learning rate.

    Restore and move are one pass with one draw; a step that stays at the last point costs no pass.

    Formula:
        ```text
        w <- w + the estimator's move; the learning rate is not read
        ```
    """

    needs = frozenset({MOVE})

    def update(
        self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Move | None:
        del lr, step
        return slot.move([Term(term.direction, term.restore) for term in drawn]) if drawn else None
