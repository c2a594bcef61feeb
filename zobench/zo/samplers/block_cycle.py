"""MeZO-BCD (arXiv 2501.19099) and LeZO (arXiv 2410.09823): one block of the model a step.

A block is a layer: the slots whose names agree up to their first number (`model.layers.3`); what
stands outside the layers, such as embeddings, is a block per module. Blocks take turns, or are
drawn (LeZO's random layers). The saving is in the passes over the weights: only the block's are
touched.
"""

from zobench.zo import noise
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.layer_names import block_of, natural
from zobench.zo.samplers.subset import Subset

_BLOCK = 13  # stream number of the draw that chooses blocks


class BlockCycle(Subset):
    """The directions of another law on one or a few blocks of the model a step.

    Formula:
        ```text
        z_b = the inner law's z_b on this step's blocks of layers, else 0
        ```

    Args:
        inner: The law on those blocks.
        order: `cyclic` or `random`.
        blocks: How many take part in a step, at least 1.

    Raises:
        ValueError: An argument is out of range.

    References:
        MeZO-BCD, arXiv 2501.19099; LeZO, arXiv 2410.09823.
    """

    def __init__(self, inner: Sampler, *, order: str = "cyclic", blocks: int = 1) -> None:
        if order not in ("cyclic", "random"):
            raise ValueError(f"sampler.order={order}: choose cyclic or random")
        if blocks < 1:
            raise ValueError(f"sampler.blocks={blocks}: must be at least 1")
        super().__init__(inner)
        self.random, self.blocks = order == "random", blocks

    def chosen(self, step: int) -> frozenset[int]:
        names = sorted({block_of(slot.name) for slot in self.slots}, key=natural)
        count = min(self.blocks, len(names))
        if self.random:
            key = noise.mix(self.seed, step, 0)
            ranks = {n: noise.uniform(noise.Stream(key, noise.tensor_id(n), _BLOCK)) for n in names}
            taken = set(sorted(names, key=ranks.__getitem__)[:count])
        else:
            taken = {names[(step * count + place) % len(names)] for place in range(count)}
        return frozenset(slot.id for slot in self.slots if block_of(slot.name) in taken)
