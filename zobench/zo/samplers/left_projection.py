"""The law of subspace ZO-Muon (arXiv 2602.17155): a random subspace of the rows' space.

On an m x n matrix Z = P u: P (m x r) is orthonormal, uniform (Haar) and drawn anew every `refresh`
steps, u (r x n) is fresh Gaussian noise. |Z|^2 is r n on average, not the m n of a full Gaussian.
"""

from torch import Tensor

from zobench.zo.matrix import MatrixView, orthonormal
from zobench.zo.samplers.keyed_bases import KeyedBases


class LeftProjection(KeyedBases):
    """The law of subspace ZO-Muon: a random subspace of the rows' space.

    u is drawn again from its key where it is needed; the released code keeps it. State: P, r m
    floats a matrix.

    Formula:
        ```text
        Z = P u,  P (m x r) orthonormal, drawn anew every `refresh` steps,  u (r x n) Gaussian
        ```

    Args:
        rank: r, at least 1.
        refresh: Steps between draws of P, at least 1.

    Raises:
        ValueError: An argument is below 1.

    References:
        ZO-Muon, arXiv 2602.17155.
    """

    has_left, has_right = True, False

    def __init__(self, *, rank: int = 64, refresh: int = 100) -> None:
        super().__init__(rank, refresh)

    def coordinates_of(self, view: MatrixView) -> tuple[int, ...]:
        return view.rank, view.cols

    def scale_of(self, view: MatrixView) -> float:
        del view
        return 1.0

    def basis_of(self, noise: Tensor) -> Tensor:
        return orthonormal(noise, haar=True)

    def gram_of(self, side: int) -> float:
        del side
        return 1.0
