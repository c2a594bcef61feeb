"""AGZO's law (arXiv 2601.17261): directions in the span of what a layer is fed.

For a linear layer y = x W^T the gradient's rows lie in the span of the inputs. A (inputs x r) is an
orthonormal basis of their main subspace, by power iterations on H^T H, H the layer's inputs of the
step's batch in the clean forward; z = R A^T with a Gaussian R. All else gets Gaussian directions:
vectors, embeddings (tied heads too), layers the batch did not reach. The clean forward is the one
that the estimator takes its base loss from, so AGZO costs no forward of its own.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import CLEAN, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import gaussian, orthonormal
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.samplers.layer_inputs import LayerInputs
from zobench.zo.space import Slot

_START = 15  # stream number of the iterations' first vectors


class ActivationBasis(Sampler):
    """AGZO's law: directions in the span of a layer's inputs.

    If a layer is called several times in one forward, the last call counts. State: A, r floats per
    input of a layer; made anew each step. It depends on the batch, so a ledger of this law cannot
    be replayed without the data.

    Formula:
        ```text
        Z = R A^T,  R Gaussian (outputs x r)
        A (inputs x r): orthonormal basis of the main r directions of H^T H, H the layer's inputs
        ```

    Args:
        rank: r, at least 1.
        iterations: Of the power method, at least 1.

    Raises:
        ValueError: An argument is below 1.

    References:
        AGZO, arXiv 2601.17261.
    """

    needs = frozenset({CLEAN})
    replay_class = ReplayClass.DATA

    def __init__(self, *, rank: int = 1, iterations: int = 3) -> None:
        if rank < 1 or iterations < 1:
            raise ValueError(
                f"sampler.rank={rank}, sampler.iterations={iterations}: both at least 1"
            )
        self.rank, self.iterations = rank, iterations

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self._matrices = {id(s.parameter): s for s in slots if s.parameter.dim() == 2}
        self._inputs_first: dict[int, bool] = {}  # slots with a basis: is it W's first dimension?
        self._lookups: set[int] = set()

    def begin_step(self, step: int) -> None:
        self._step = step
        self._inputs_first = {}
        for slot in self.slots:
            slot.buffers.pop("activation_basis", None)  # its layer may not be reached again

    def watch(self) -> AbstractContextManager[object]:
        return LayerInputs(self.seen, self.looked_up)

    def seen(self, parameter: Tensor, inputs: Tensor, inputs_first: bool) -> None:
        """The clean forward multiplied (..., d_in) inputs with a weight."""
        slot = self._matrices.get(id(parameter))
        if slot is None or slot.id in self._lookups:
            return
        h = inputs.reshape(-1, inputs.shape[-1]).to(slot.state_dtype)
        rank = min(self.rank, h.shape[1])
        basis = gaussian((self.seed, self._step, 0), slot, (h.shape[1], rank), _START)
        for _ in range(self.iterations):
            basis = orthonormal(h.T @ (h @ basis), haar=False)
        slot.buffers["activation_basis"] = basis
        self._inputs_first[slot.id] = inputs_first

    def looked_up(self, parameter: Tensor) -> None:
        """The clean forward used a weight as an embedding."""
        slot = self._matrices.get(id(parameter))
        if slot is not None:
            self._lookups.add(slot.id)
            self._inputs_first.pop(slot.id, None)
            slot.buffers.pop("activation_basis", None)

    def state_bytes(self, slot: Slot) -> int:
        if slot.id not in self._inputs_first:
            return 0
        inputs = slot.parameter.shape[0 if self._inputs_first[slot.id] else 1]
        return min(self.rank, inputs) * inputs * slot.state_itemsize

    def direction(self, slot: Slot, key: Key) -> Direction:
        if slot.id not in self._inputs_first:
            return Drawn.normal(key, slot.id)
        basis = slot.buffers["activation_basis"]
        rows, columns = slot.parameter.shape
        if self._inputs_first[slot.id]:
            return LowRank(gaussian(key, slot, (basis.shape[1], columns)), left=basis)
        return LowRank(gaussian(key, slot, (rows, basis.shape[1])), right=basis)
