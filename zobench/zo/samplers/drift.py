"""DiZO's space (arXiv 2502.03304): Gaussian directions, and the layers' drifts from first weights.

z ~ N(0, I) for the queries from 0 up. The query -1 - l is w_l - w_l^0 on layer l and nothing
elsewhere, w^0 the weights the run began with: moving along it by s takes the layer to w^0 + (1 + s)
(w - w^0), which is how DiZO's projection chooses how far a layer has gone.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from zobench.zo.directions import Drawn, stored
from zobench.zo.feedback import LAYERS, Key
from zobench.zo.moves import Direction
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Drift(Sampler):
    """DiZO's space: Gaussian directions, and the layers' drifts from their first weights.

    State: w^0 of the projected matrices, in their dtype; while a projection lasts, their drifts
    too.

    Formula:
        ```text
        z ~ N(0, I)
        drift of layer l: D_l = w_l - w_l^0,  w^0 the first weights
        ```

    Args:
        match: Regular expression, found in the names of the matrices that are projected.

    Raises:
        ValueError: The model has matrices and none of them matches; known once it is bound.

    References:
        DiZO, arXiv 2502.03304.
    """

    gives = frozenset({LAYERS})

    def __init__(self, *, match: str = r"q_proj|v_proj|query|value") -> None:
        self.match = match

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        matrices = [slot for slot in slots if slot.parameter.dim() > 1]
        chosen = [slot for slot in matrices if re.search(self.match, slot.name)]
        if matrices and not chosen:
            raise ValueError(f"sampler.match={self.match}: no trainable matrix has such a name")
        for slot in chosen:
            slot.buffers["origin"] = slot.flat.clone()
        self._layer = {slot.id: layer for layer, slot in enumerate(chosen)}
        self.layers = len(chosen)
        self._drifts: dict[int, Tensor] = {}

    def begin_step(self, step: int) -> None:
        del step
        self._drifts = {}

    def state_bytes(self, slot: Slot) -> int:
        return slot.numel * slot.parameter.element_size() if slot.id in self._layer else 0

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        if key.query >= 0:
            return Drawn.normal(key, slot.id)
        if self._layer.get(slot.id) != -1 - key.query:
            return None
        if slot.id not in self._drifts:  # first needed by a step's first point: w is clean
            self._drifts[slot.id] = slot.flat - slot.buffers["origin"]
        return stored(self._drifts[slot.id])

    def end_step(self) -> None:
        self._drifts = {}
