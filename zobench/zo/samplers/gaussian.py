"""Standard normal directions: z ~ N(0, I), as in MeZO (Malladi et al. 2023, Definition 1)."""

from zobench.zo import noise
from zobench.zo.moves import Recipe
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot


class Gaussian(Sampler):
    """z ~ N(0, I), independent over elements, slots, queries and steps.

    Formula:
        ```text
        z ~ N(0, I)
        ```

    Args:
        law: `normal16` (65,536 quantiles, the same bits on every back end) or `normal` (Box-Muller,
            equal across back ends to about 1e-6).

    Raises:
        ValueError: The law is another one.

    References:
        Malladi et al. 2023, arXiv 2305.17333, Definition 1.
    """

    replay_class = ReplayClass.PURE

    def __init__(self, *, law: str = "normal16") -> None:
        if law not in (noise.Law.NORMAL16, noise.Law.NORMAL):
            raise ValueError(f"sampler.law={law}: choose normal16 or normal")
        self.law = noise.Law(law)

    def recipe(self, slot: Slot) -> Recipe:
        del slot
        return Recipe(self.law)
