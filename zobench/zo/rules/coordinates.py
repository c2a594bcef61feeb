"""Any rule in the coordinates of a subspace (SubZero+, arXiv 2608.15665; LOZO-M, arXiv 2410.07698).

The estimate of a matrix is sum of coefficient * scale * U X V^T. Its coordinates, the sum of
coefficient * X, are small; the inner rule gets them as if they were the parameter's gradient, and
its state has their size. The step in coordinates becomes a step of the matrix like a direction,
with the law's scale: plain descent is unchanged, and Adam on SubZero's law moves an entry of W by
about lr, as in full space. When the bases change, linear state is projected on the new ones;
squares stay in their coordinates, where the law is the same before and after.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from zobench.zo.feedback import GRAD, DrawnTerm, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.passes.apply import apply_moves
from zobench.zo.rules.base import Kind, Rule
from zobench.zo.rules.coordinate_rule import CoordinateRule
from zobench.zo.space import Slot


class InCoordinates(CoordinateRule):
    """Another rule in the coordinates of a subspace; its state has the coordinates' size.

    The inner rule cannot decay a matrix: its coordinates begin every step at 0.

    Formula:
        ```text
        direction Z_k = scale U X_k V^T;  x = sum_k c_k X_k goes to the inner rule as its gradient g
        the inner rule's step s is lifted: W <- W + scale U s V^T
        ```

    Args:
        inner: The rule in coordinates.
        vectors: The rule of slots without them; `inner` unless given.
        vector_lr: Factor of the learning rate on those, at least 0.

    Raises:
        ValueError: `vector_lr` is negative.

    References:
        SubZero+, arXiv 2608.15665; LOZO-M, arXiv 2410.07698.
    """

    def __init__(self, inner: Rule, *, vectors: Rule | None = None, vector_lr: float = 1.0) -> None:
        super().__init__(inner if vectors is None else vectors, vector_lr)
        self.inner, self.shared = inner, vectors is None
        self.needs |= inner.needs

    def linear_state(self) -> Iterable[str]:
        return self.inner.linear

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        super().begin_step(grad, step=step)
        if not self.shared:
            self.inner.begin_step(grad, step=step)

    def past_keys(self) -> Iterable[Key]:
        return [*super().past_keys(), *(() if self.shared else self.inner.past_keys())]

    def moved(
        self, slot: Slot, law: LowRank, projected: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> LowRank:
        moving = torch.zeros_like(law.coordinates)
        inner = Slot(slot.name, moving, slot.id, slot.buffers)
        grad = {term.key: term.grad for term in projected if GRAD in term.coefficients}
        change = self.inner.change(grad, Kind.of(inner), lr=lr, step=step)
        move = change.move(inner, projected) if change else None
        apply_moves([move] if move else [])
        return law.with_coordinates(moving)

    def state_bytes(self, slot: Slot) -> int:
        if slot.coordinates_shape is None:
            return self.vectors.state_bytes(slot)
        coordinates = torch.empty(slot.coordinates_shape, dtype=slot.state_dtype, device="meta")
        return self.inner.state_bytes(Slot(slot.name, coordinates, slot.id))

    def state_dict(self) -> dict[str, object]:
        return super().state_dict() | {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.inner.load_state_dict(state["inner"])  # type: ignore[arg-type]
