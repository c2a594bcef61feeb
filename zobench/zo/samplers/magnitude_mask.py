"""Sparse-MeZO's law (arXiv 2402.15751): only the small weights of a tensor are perturbed.

z = u where |w| is at most the tensor's threshold, 0 elsewhere. The threshold is a quantile of the
weights the run starts with; each step compares the clean weights with it. A mask recomputed from
perturbed weights would be another one, so the step's mask is kept, one bit a weight.
"""

import math
from collections.abc import Sequence

import torch

from zobench.zo.directions import Drawn
from zobench.zo.feedback import Key
from zobench.zo.masked import Masked, pack, unpack
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class MagnitudeMask(Sampler):
    """Sparse-MeZO's law: only the small weights of a tensor are perturbed.

    A tensor whose weights are all of one size, as LoRA's second factor at its start, moves whole.
    State: one bit a parameter, and a threshold per tensor.

    Formula:
        ```text
        z_i = u_i where |w_i| <= threshold of the tensor, else 0,  u ~ N(0, I)
        ```

    Args:
        sparsity: Share of each tensor that stays put, the largest weights; in [0, 1). 0 is MeZO.

    Raises:
        ValueError: `sparsity` is out of range.

    References:
        Sparse-MeZO, arXiv 2402.15751.
    """

    def __init__(self, *, sparsity: float = 0.75) -> None:
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"sampler.sparsity={sparsity}: must be in [0, 1)")
        self.sparsity = sparsity

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self.thresholds = {slot.name: self._threshold(slot) for slot in slots}

    def _threshold(self, slot: Slot) -> float:
        sizes = slot.flat.abs().to(slot.state_dtype)
        if not self.sparsity or sizes.min() == sizes.max():
            return math.inf  # all may move, however large they grow
        rank = max(1, round((1.0 - self.sparsity) * slot.numel))
        return float(sizes.kthvalue(rank).values)

    def begin_step(self, step: int) -> None:
        del step
        for slot in self.slots:
            slot.buffers["mask"] = pack(slot.flat.abs() <= self.thresholds[slot.name])

    def state_bytes(self, slot: Slot) -> int:
        return -(-slot.numel // 8)

    def direction(self, slot: Slot, key: Key) -> Masked:
        def mask(start: int, count: int, device: torch.device) -> torch.Tensor:
            del device  # the mask's own
            return unpack(slot.buffers["mask"], start, count)

        return Masked(Drawn.normal(key, slot.id), mask)

    def state_dict(self) -> dict[str, object]:
        return {"thresholds": dict(self.thresholds)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.thresholds = dict(state["thresholds"])  # type: ignore[call-overload]
