"""Gaussian directions and the step before: for estimators that look back along it (Acc-ZOM).

z ~ N(0, I) for the queries from 0 up; the query -1 is the rule's momentum m as the last step left
it, so that w + lr m is where the weights stood before that step.
"""

from zobench.zo.directions import Drawn, stored
from zobench.zo.feedback import MOMENTUM, PREVIOUS, Key
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class PreviousStep(Sampler):
    """Gaussian directions and the step before, for estimators that look back along it.

    It reads the momentum that the rule keeps and has no state of its own.

    Formula:
        ```text
        z ~ N(0, I)
        ```

    References:
        Huang et al. 2022, Acc-ZOM, JMLR 23.
    """

    needs = frozenset({MOMENTUM})
    gives = frozenset({PREVIOUS})

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        if key.query >= 0:
            return Drawn.normal(key, slot.id)
        momentum = slot.buffers.get("momentum")
        return None if momentum is None else stored(momentum)
