"""Random signs: each element of z is -1 or +1 with equal chance (Bernoulli SPSA, Spall 1992)."""

from zobench.zo import noise
from zobench.zo.moves import Recipe
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot


class Rademacher(Sampler):
    """z uniform on {-1, +1}^d: the same mean and covariance as N(0, I), and ||z||^2 = d exactly.

    Formula:
        ```text
        z_i = -1 or +1, each with probability 1/2
        ```

    References:
        Spall 1992, Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
        Approximation, IEEE Transactions on Automatic Control 37(3).
    """

    replay_class = ReplayClass.PURE

    def recipe(self, slot: Slot) -> Recipe:
        del slot
        return Recipe(noise.Law.RADEMACHER)
