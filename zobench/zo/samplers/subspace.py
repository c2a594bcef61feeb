"""SubZero's law (Yu et al. 2024, arXiv 2410.08989): a random subspace from both sides.

On an m x n matrix Z = sqrt(m n) / r * U X V^T with a fresh r x r Gaussian X; U and V are the
orthonormal factors of Gaussian matrices, drawn anew every `refresh` steps. The factor makes |Z|^2
that of a full Gaussian, m n on average, so that learning rate and eps of MeZO can be kept.
SubZero+ (arXiv 2608.15665) corrects the signs of the factors (`haar`); X is symmetric in them, so
the law of Z stays what it was.
"""

import math

from torch import Tensor

from zobench.zo.matrix import MatrixView, orthonormal
from zobench.zo.samplers.keyed_bases import KeyedBases


class Subspace(KeyedBases):
    """SubZero's law: a random subspace from both sides.

    State: U and V, r (m + n) floats a matrix.

    Formula:
        ```text
        Z = sqrt(m n) / r U X V^T,  X Gaussian (r x r)
        U (m x r) and V (n x r) orthonormal, drawn anew every `refresh` steps
        ```

    Args:
        rank: r, at least 1.
        refresh: Steps between draws of U and V, at least 1.
        haar: Correct the signs of the factors, as SubZero+ does; the law of z stays the same.

    Raises:
        ValueError: An argument is below 1.

    References:
        Yu et al. 2024, SubZero, arXiv 2410.08989.
    """

    has_left = has_right = True

    def __init__(self, *, rank: int = 64, refresh: int = 1000, haar: bool = False) -> None:
        super().__init__(rank, refresh)
        self.haar = haar

    def coordinates_of(self, view: MatrixView) -> tuple[int, ...]:
        return view.rank, view.rank

    def scale_of(self, view: MatrixView) -> float:
        return math.sqrt(view.rows * view.cols) / view.rank

    def basis_of(self, noise: Tensor) -> Tensor:
        return orthonormal(noise, haar=self.haar)

    def gram_of(self, side: int) -> float:
        del side
        return 1.0
