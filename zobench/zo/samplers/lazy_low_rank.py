"""LOZO's law (arXiv 2410.07698): low rank, one factor fresh and one lazy.

On an m x n matrix Z = U V^T with a fresh Gaussian U (m x r) and a Gaussian V (n x r) that is drawn
anew every `refresh` steps. E[z z^T] is r times the identity, and the paper divides the estimate by
r, which makes it unbiased. The released code leaves that out: its learning rate is the paper's
over r.
"""

from zobench.zo.matrix import MatrixView
from zobench.zo.samplers.keyed_bases import KeyedBases
from zobench.zo.space import Slot


class LazyLowRank(KeyedBases):
    """LOZO's law: low rank, one factor fresh and one lazy.

    The coordinates are U; state kept in them goes to a new V as N V_old^T V_new / n, as in LOZO-M.
    State: V, r n floats a matrix.

    Formula:
        ```text
        Z = U V^T,  U (m x r) fresh,  V (n x r) drawn anew every `refresh` steps
        estimate of a matrix: c Z / r  (`released`: c Z)
        ```

    Args:
        rank: r, at least 1.
        refresh: Steps between draws of V, at least 1.
        variant: `paper` weighs a matrix's estimate by 1 / r, `released` by 1.

    Raises:
        ValueError: An argument is out of range.

    References:
        LOZO, arXiv 2410.07698.
    """

    has_left, has_right = False, True

    def __init__(self, *, rank: int = 2, refresh: int = 50, variant: str = "paper") -> None:
        if variant not in ("paper", "released"):
            raise ValueError(f"sampler.variant={variant}: choose paper or released")
        super().__init__(rank, refresh)
        self.weighted = variant == "paper"

    def coordinates_of(self, view: MatrixView) -> tuple[int, ...]:
        return view.rows, view.rank

    def scale_of(self, view: MatrixView) -> float:
        del view
        return 1.0

    def weight(self, slot: Slot) -> float:
        return (
            1.0 / slot.coordinates_shape[-1]
            if self.weighted and slot.coordinates_shape is not None
            else 1.0
        )
