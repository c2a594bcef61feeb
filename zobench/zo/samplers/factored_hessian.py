"""HiZOO-L (Zhao et al. 2025, arXiv 2402.15173): HiZOO's H in rows and columns, see `hessian`.

H_ij = R_i C_j / mean(R), as Adafactor keeps a second moment; R and C are moving averages of the row
and column means of kappa H u^2. The authors' exact form is not known to us; they report about 10 %
more memory than MeZO. A vector keeps its H whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.samplers.hessian import Hessian
from zobench.zo.space import Slot


def _shape(slot: Slot) -> tuple[int, int]:
    """Rows and columns of the slot; a vector is one column."""
    rows = slot.parameter.shape[0] if slot.parameter.dim() > 0 else 1
    return rows, slot.numel // rows


class FactoredHessian(Hessian):
    """HiZOO-L's law: HiZOO's curvature in rows and columns.

    State: a row and a column vector per matrix, in float32. The arguments are those of `Hessian`.

    Formula:
        ```text
        z = u / sqrt(H),  u ~ N(0, I),  H_ij = R_i C_j / mean(R)
        R <- (1 - alpha) R + alpha (means of kappa H u^2 over each row),  C likewise over columns
        kappa = |f+ + f- - 2 f0| / (2 eps^2)
        ```

    References:
        Zhao et al. 2025, HiZOO-L, arXiv 2402.15173.
    """

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        for slot in slots:
            rows, columns = _shape(slot)
            ones = torch.ones_like(slot.flat[:1], dtype=slot.state_dtype)
            slot.buffers["hessian_rows"] = ones.repeat(rows)
            if columns > 1:
                slot.buffers["hessian_columns"] = ones.repeat(columns)

    def state_bytes(self, slot: Slot) -> int:
        rows, columns = _shape(slot)
        return (rows + (columns if columns > 1 else 0)) * slot.state_itemsize

    def diagonal(self, slot: Slot, start: int, stop: int) -> Tensor:
        rows = slot.buffers["hessian_rows"]
        if "hessian_columns" not in slot.buffers:
            return rows[start:stop]
        columns = slot.buffers["hessian_columns"]
        width = columns.numel()
        first, last = start // width, -(-stop // width)
        block = torch.outer(rows[first:last] / rows.mean(), columns).view(-1)
        return block[start - first * width :][: stop - start]

    def learn(self, slot: Slot, key: Key, curvature: float) -> None:
        """Both factors move by means of the old H, so that their own means stay equal."""
        rows = slot.buffers["hessian_rows"]
        columns = slot.buffers.get("hessian_columns")
        width = _shape(slot)[1]
        row_means = torch.zeros_like(rows)
        column_sums = torch.zeros(width, dtype=rows.dtype, device=rows.device)
        for start, stop in slot.spans():
            seen = self.noise_squared(slot, key, start, stop)
            seen.mul_(self.diagonal(slot, start, stop)).mul_(curvature)
            block = seen.view(-1, width)
            row_means[start // width : stop // width] = block.mean(1)
            column_sums.add_(block.sum(0))
        rows.lerp_(row_means, self.alpha)
        if columns is not None:
            columns.lerp_(column_sums.div_(len(rows)), self.alpha)
