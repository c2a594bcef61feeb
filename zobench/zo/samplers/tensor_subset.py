"""A law on a random part of the tensors: JAGUAR's sampling, which LDSD builds on (`params_ratio`).

Each step one subset of the slots is drawn, and the candidates of one step differ in their noise
only. The released LDSD code draws a subset per candidate and then updates its mean on the winner's;
its authors' later code draws one a step, and so do we.
"""

from zobench.zo import noise
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.subset import Subset

_SUBSET = 3  # stream number of the draw that decides who takes part


class TensorSubset(Subset):
    """The directions of another law on a random part of the tensors.

    LDSD's code calls its share `params_ratio`.

    Formula:
        ```text
        z_b = the inner law's z_b on a random share of the tensors, else 0
        ```

    Args:
        inner: The law on those tensors.
        share: Of the slots, in (0, 1], drawn without replacement and equally likely; at least one
            slot.

    Raises:
        ValueError: `share` is out of range.

    References:
        JAGUAR's sampling, arXiv 2506.04430.
    """

    def __init__(self, inner: Sampler, *, share: float = 0.1) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"sampler.share={share}: must be in (0, 1]")
        super().__init__(inner)
        self.share = share

    def chosen(self, step: int) -> frozenset[int]:
        key = noise.mix(self.seed, step, 0)
        ids = [slot.id for slot in self.slots]
        order = sorted(ids, key=lambda i: noise.uniform(noise.Stream(key, i, _SUBSET)))
        return frozenset(order[: max(1, round(self.share * len(order)))])
