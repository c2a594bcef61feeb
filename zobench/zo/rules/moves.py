"""No step but the estimator's own: for MeZO-Greedy (arXiv 2601.04710) and ZO-SGD-Conservative."""

from collections.abc import Mapping

from zobench.zo.feedback import MOVE, Key
from zobench.zo.rules.base import Kind, Rule


class Moves(Rule):
    """w <- w + sum of coefficient * z over what the estimator moved; no state, no learning rate.

    Restore and move are one pass with one draw; a step that stays at the last point costs no pass.

    Formula:
        ```text
        w <- w + the estimator's move; the learning rate is not read
        ```
    """

    needs = frozenset({MOVE})

    def change(self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int) -> None:
        """The estimator's moves belong to the way back to the clean point."""
