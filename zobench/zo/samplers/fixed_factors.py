"""TeZO's law (arXiv 2501.19057): factors fixed for the run, and a fresh diagonal between them.

On an m x n matrix Z = U diag(tau) V^T / sqrt(r): U (m x r) and V (n x r) Gaussian and drawn once,
tau ~ N(0, I_r) fresh. The normalisation is our choice, it makes E |Z|^2 = m n as for MeZO. A weight
that starts outside the r directions u_i v_i^T cannot be reached. The paper chooses r layer by layer
from the spectra of the weights (about 31.5 on average); its exact criterion is not known to us.
"""

import math
from collections.abc import Sequence

import torch

from zobench.zo.matrix import MatrixView
from zobench.zo.samplers.keyed_bases import KeyedBases
from zobench.zo.space import Slot


class FixedFactors(KeyedBases):
    """TeZO's law: factors fixed for the run, and a fresh diagonal between them.

    State: U and V, r (m + n) floats a matrix.

    Formula:
        ```text
        Z = U diag(tau) V^T / sqrt(r),  tau ~ N(0, I_r),  U and V drawn once
        ```

    Args:
        rank: r, at most.
        spectrum: Count the first weight's singular values above this share of its largest, in [0,
            1), and take as many, up to `rank`; None takes `rank` everywhere.

    Raises:
        ValueError: An argument is out of range.

    References:
        TeZO, arXiv 2501.19057.
    """

    has_left = has_right = True

    def __init__(self, *, rank: int = 32, spectrum: float | None = None) -> None:
        if spectrum is not None and not 0.0 <= spectrum < 1.0:
            raise ValueError(f"sampler.spectrum={spectrum}: must be in [0, 1)")
        super().__init__(rank, None)
        self.spectrum = spectrum

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        if self.spectrum is None:
            return
        for slot in slots:
            if slot.id in self._views:
                view = self._views[slot.id]
                weights = slot.flat.to(slot.state_dtype).view(view.rows, view.cols)
                values = torch.linalg.svdvals(weights)
                count = int((values > self.spectrum * values[0]).sum())
                self._see(slot, view._replace(rank=min(max(1, count), view.rank)))

    def coordinates_of(self, view: MatrixView) -> tuple[int, ...]:
        return (view.rank,)

    def scale_of(self, view: MatrixView) -> float:
        return 1.0 / math.sqrt(view.rank)

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back the ranks too: the weights have moved since they were counted."""
        super().load_state_dict(state)
        for slot in self.slots:
            if slot.id in self._views and "left_basis" in slot.buffers:
                rank = slot.buffers["left_basis"].shape[1]
                self._see(slot, self._views[slot.id]._replace(rank=rank))
