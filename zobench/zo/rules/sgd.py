"""Plain descent: MeZO's update (Malladi et al. 2023, Algorithm 1), merged with the restore."""

from collections.abc import Mapping

from zobench.zo.feedback import PLAIN, Key
from zobench.zo.rules.base import Change, Kind, Rule


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

    device_scalars = True

    def __init__(self, *, weight_decay: float = 0.0) -> None:
        self.weight_decay = weight_decay
        self.gives = frozenset() if weight_decay else frozenset({PLAIN})

    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | None:
        del step
        if not grad:
            return None  # the slots took no part in this step
        decay = 1.0 if kind.vector else 1.0 - lr * self.weight_decay
        return Change({key: -lr * c for key, c in grad.items()}, decay)
