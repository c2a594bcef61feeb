"""P-GAP's law (Mi et al. 2025, arXiv 2510.18228): the subspace of a probed gradient, and along it.

Whenever an estimator sends probes, their mean estimate G of a matrix's gradient is decomposed and
the r largest singular values are kept, G ~ U diag(s) V^T. Then Z = U X V^T with a Gaussian r x r X
that is moved along diag(s) until <diag(s), X> = xi sqrt(delta) |s|, xi a random sign: the share of
X along G has a fixed size instead of a random one. Nothing restores the norm: |Z|^2 is about r^2.

The card has that target from memory, and no delta. With delta = 1, our default, E <diag(s), X>^2 is
what it is without the move: the covariance inside the subspace stays I. xi is drawn per tensor.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.directions import Drawn
from zobench.zo.feedback import FIRST_PROBE, PROBE, Channels, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import gaussian
from zobench.zo.samplers.base import Sampler
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_SIGN = 8  # stream number of xi
_NAMES = ("left_basis", "spectrum", "right_basis")


class GradientSubspace(Sampler):
    """P-GAP's law: directions in the subspace of a probed gradient, and along it.

    Vectors are plain Gaussian, as are the probes themselves and everything before the first ones.
    A refresh holds one matrix's G and its decomposition for a moment, each of the matrix's size.
    State: U, s and V, r (m + n + 1) floats a matrix.

    Formula:
        ```text
        G = U diag(s) V^T, the r largest singular values of the probes' mean estimate
        Z = U X V^T,  X = X_0 + (xi sqrt(delta) |s| - <diag(s), X_0>) / |s|^2 diag(s)
        X_0 Gaussian (r x r),  xi = -1 or +1 at random
        ```

    Args:
        rank: r, at least 1, at most the matrix's shorter side.
        delta: Squared alignment with the gradient, at least 0.

    Raises:
        ValueError: An argument is out of range.

    References:
        Mi et al. 2025, P-GAP, arXiv 2510.18228.
    """

    needs = frozenset({PROBE})

    def __init__(self, *, rank: int = 128, delta: float = 1.0) -> None:
        if rank < 1:
            raise ValueError(f"sampler.rank={rank}: must be at least 1")
        if delta < 0.0:
            raise ValueError(f"sampler.delta={delta}: must not be negative")
        self.rank, self.delta = rank, delta

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self._staged: dict[str, tuple[Tensor, ...]] = {}
        self._ready: set[str] = set()  # slots that have been probed
        for slot in slots:
            rows, cols, rank = self._shape(slot)
            for name, shape in zip(_NAMES, ((rows, rank), (rank,), (cols, rank)), strict=True):
                if rank:
                    like = slot.parameter
                    slot.buffers[name] = like.new_zeros(shape, dtype=slot.state_dtype)

    def _shape(self, slot: Slot) -> tuple[int, int, int]:
        """(rows, cols, rank); the rank of what is no matrix is 0."""
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
        cols = slot.numel // rows
        return rows, cols, 0 if min(rows, cols) == 1 else min(self.rank, rows, cols)

    def direction(self, slot: Slot, key: Key) -> LowRank | Drawn:
        if key.query >= FIRST_PROBE or slot.name not in self._ready:
            return Drawn.normal(key, slot.id)
        left, spectrum, right = (slot.buffers[name] for name in _NAMES)
        coordinates = gaussian(key, slot, (len(spectrum), len(spectrum)))
        sign = 1.0 if noise.uniform(noise.Stream(noise.mix(*key), slot.id, _SIGN)) < 0.5 else -1.0
        norm = spectrum.norm()
        unit = spectrum / norm
        along = unit @ coordinates.diagonal()
        coordinates.diagonal().add_((sign * math.sqrt(self.delta) - along) * unit)
        return LowRank(coordinates, left, right)

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        """Stage the decomposition of the probes' mean estimate."""
        del sums
        if probes := channels.get(PROBE, {}):
            for slot in slots:
                self._probe(slot, probes)

    def _probe(self, slot: Slot, probes: Mapping[Key, float]) -> None:
        rows, cols, rank = self._shape(slot)
        if not rank:
            return
        estimate = slot.flat.new_zeros(slot.numel, dtype=slot.state_dtype)
        for start, stop in slot.spans():
            for key, scale in probes.items():
                self.direction(slot, key).add_to(estimate[start:stop], start, scale)
        if estimate.any():  # a flat loss has no direction to follow
            u, s, vh = torch.linalg.svd(estimate.view(rows, cols), full_matrices=False)
            parts = u[:, :rank], s[:rank], vh[:rank].T
            self._staged[slot.name] = tuple(part.contiguous() for part in parts)

    def end_step(self) -> None:
        for slot in self.slots:
            if slot.name in self._staged:
                slot.buffers.update(zip(_NAMES, self._staged[slot.name], strict=True))
                self._ready.add(slot.name)
        self._staged = {}

    def state_bytes(self, slot: Slot) -> int:
        rows, cols, rank = self._shape(slot)
        return rank * (rows + cols + 1) * slot.state_itemsize

    def state_dict(self) -> dict[str, object]:
        return {"ready": sorted(self._ready)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._ready = set(state["ready"])  # type: ignore[call-overload]
