"""AIM-ZO's law: rank-one directions in a maintained subspace of what a layer is fed.

For a linear layer y = x W^T the gradient's rows lie in the span of the inputs. A wide orthonormal
basis Q of their main subspace is kept from step to step and turned by Oja's rule every few steps,
with the inputs of the clean forward, which the estimator takes anyway. Each direction uses Q's
first columns, which follow the largest variance, and a fresh random choice of the others. All else
gets Gaussian directions: vectors, embeddings (tied heads too), layers that no clean forward
reached. AGZO (`activation_basis`) makes its basis anew from each batch.

Written from the description, the settings and the formulas of the authors' repository
(github.com/EkkoXy/AIM-ZO), which is the only source there is. Left out: their radius falls with a
cosine to a quarter over the run, and with it the step; our eps is constant.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import CLEAN, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import gaussian, orthonormal
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.samplers.layer_inputs import LayerInputs
from zobench.zo.space import Slot

_START, _COORDINATES, _TAIL = 17, 18, 19  # stream numbers of the first Q, of b, and of the tail
_BASIS = "oja_basis"


class OjaBasis(Sampler):
    """AIM-ZO's law: rank-one directions in a maintained subspace of a layer's inputs.

    If a layer is called several times in one forward, the last call counts. State: Q, K floats per
    input of a layer. It depends on the batches, so a ledger of this law cannot be replayed without
    the data.

    Formula:
        ```text
        Q <- orthonormal(Q + eta H^T H Q / T) every few steps,  H (T x inputs) the layer's inputs
        P = the first h columns of Q and t random ones of the others, drawn for each direction
        Z = sqrt(m n) a (P b)^T / (|a| |b|),  a (m) and b (h + t) Gaussian, W an m x n matrix
        ```

    Args:
        width: K, at least 1; at most the inputs count.
        head: h, columns in all directions.
        tail: t, columns drawn for each direction; head + tail is at least 1 and at most `width`.
        eta: Step size of Oja's rule, above 0.
        every: Steps from one turn of the basis to the next, at least 1.
        tokens: Inputs that a turn looks at, the first of the batch; at least 1.

    Raises:
        ValueError: An argument is out of range.

    References:
        AIM-ZO, github.com/EkkoXy/AIM-ZO.
    """

    needs = frozenset({CLEAN})
    replay_class = ReplayClass.DATA

    def __init__(
        self,
        *,
        width: int = 128,
        head: int = 48,
        tail: int = 16,
        eta: float = 0.3,
        every: int = 10,
        tokens: int = 128,
    ) -> None:
        if not 1 <= head + tail <= width or min(head, tail) < 0:
            raise ValueError(
                f"sampler.head={head}, sampler.tail={tail}: together from 1 to"
                f" sampler.width={width}"
            )
        if eta <= 0.0 or every < 1 or tokens < 1:
            raise ValueError(
                f"sampler.eta={eta}, sampler.every={every}, sampler.tokens={tokens}: above 0"
            )
        self.width, self.head, self.tail = width, head, tail
        self.eta, self.every, self.tokens = eta, every, tokens

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self._matrices = {id(s.parameter): s for s in slots if s.parameter.dim() == 2}
        self._inputs_first: dict[str, bool] = {}  # by slot: is it W's first dimension?
        self._lookups: set[str] = set()
        self._turned: dict[str, Tensor] = {}  # bases of this step, not committed

    def begin_step(self, step: int) -> None:
        self._turns, self._turned = step % self.every == 0, {}

    def watch(self) -> AbstractContextManager[object]:
        return LayerInputs(self.seen, self.looked_up) if self._turns else nullcontext()

    def seen(self, parameter: Tensor, inputs: Tensor, inputs_first: bool) -> None:
        """The clean forward multiplied (..., d_in) inputs with a weight."""
        slot = self._matrices.get(id(parameter))
        if slot is None or slot.name in self._lookups:
            return
        size = inputs.shape[-1]
        h = inputs.reshape(-1, size)[: self.tokens].to(slot.state_dtype)
        basis = slot.buffers.get(_BASIS)
        if basis is None:
            start = gaussian((self.seed, 0, 0), slot, (size, min(self.width, size)), _START)
            basis = orthonormal(start, haar=False)
        turned = basis + (self.eta / len(h)) * (h.T @ (h @ basis))
        self._turned[slot.name] = orthonormal(turned, haar=False)
        self._inputs_first[slot.name] = inputs_first

    def looked_up(self, parameter: Tensor) -> None:
        """The clean forward used a weight as an embedding."""
        slot = self._matrices.get(id(parameter))
        if slot is not None:
            self._lookups.add(slot.name)
            self._inputs_first.pop(slot.name, None)
            self._turned.pop(slot.name, None)

    def end_step(self) -> None:
        """Keep the turned bases."""
        for slot in self.slots:
            if slot.name in self._turned:
                slot.buffers[_BASIS] = self._turned[slot.name]
        self._turned = {}

    def direction(self, slot: Slot, key: Key) -> Direction:
        basis = self._turned.get(slot.name, slot.buffers.get(_BASIS))
        if basis is None:
            return Drawn.normal(key, slot.id)
        inputs_first = self._inputs_first[slot.name]
        active = self._active(slot, key, basis)
        a = gaussian(key, slot, (slot.parameter.shape[1 if inputs_first else 0], 1))
        b = gaussian(key, slot, (active.shape[1], 1), _COORDINATES)
        along = active @ (b * (math.sqrt(slot.numel) / (a.norm() * b.norm())))
        left, right = (along, a) if inputs_first else (a, along)
        return LowRank(a.new_ones(1), left, right)

    def _active(self, slot: Slot, key: Key, basis: Tensor) -> Tensor:
        """The head of the basis and the direction's own choice of the tail."""
        others = basis.shape[1] - self.head
        if others <= self.tail:
            return basis[:, : self.head + self.tail]
        order = gaussian(key, slot, (others,), _TAIL).argsort(stable=True)
        places = torch.arange(self.head, device=order.device)
        return basis[:, torch.cat([places, order[: self.tail] + self.head])]

    def state_bytes(self, slot: Slot) -> int:
        if slot.name not in self._inputs_first:
            return 0
        inputs = slot.parameter.shape[0 if self._inputs_first[slot.name] else 1]
        return min(self.width, inputs) * inputs * slot.state_itemsize

    def state_dict(self) -> dict[str, object]:
        return {"inputs_first": dict(self._inputs_first), "lookups": sorted(self._lookups)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._inputs_first = dict(state["inputs_first"])  # type: ignore[call-overload]
        self._lookups = set(state["lookups"])  # type: ignore[call-overload]
