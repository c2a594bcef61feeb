"""Laws with bases that change every few steps: the base of SubZero, LOZO, TeZO and ZO-Muon.

Every `refresh` steps the bases of all matrices are drawn anew, from noise named by the step of the
refresh: those of an earlier time can be drawn again, and with them every earlier direction. In
between they are kept in the slots' buffers. Vectors get plain Gaussian directions.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import COORDINATES, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.matrix import MatrixView, gaussian, view_of
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import Slot

_LEFT, _RIGHT = 4, 5  # stream numbers of the bases
_NAMES = ("left_basis", "right_basis")
_Bases = tuple[Tensor | None, Tensor | None]


class KeyedBases(Sampler):
    """z = scale * left @ coordinates @ right^T with fresh Gaussian coordinates.

    Args:
        rank: Of z, at most; at least 1.
        refresh: Steps from one draw of the bases to the next, at least 1; None for never.

    Raises:
        ValueError: An argument is below 1.
    """

    replay_class = ReplayClass.EPOCH
    gives = frozenset({COORDINATES})
    has_left: bool
    has_right: bool

    def __init__(self, rank: int, refresh: int | None) -> None:
        for name, value in (("rank", rank), ("refresh", refresh)):
            if value is not None and value < 1:
                raise ValueError(f"sampler.{name}={value}: must be at least 1")
        self.rank, self.refresh = rank, refresh

    @abstractmethod
    def coordinates_of(self, view: MatrixView) -> tuple[int, ...]:
        """Shape of the coordinates on such a matrix."""

    @abstractmethod
    def scale_of(self, view: MatrixView) -> float:
        """Factor in front of the three matrices."""

    def basis_of(self, noise: Tensor) -> Tensor:
        """The basis made from a (side, rank) matrix of standard normal noise."""
        return noise

    def gram_of(self, side: int) -> float:
        """basis^T basis is this multiple of the identity, on average."""
        return float(side)

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self._epoch = -1  # of the bases in the buffers
        self._earlier: dict[tuple[int, int], _Bases] = {}  # drawn again, for this step only
        self._views: dict[int, MatrixView] = {}
        for slot in slots:
            view = view_of(slot.parameter.shape, self.rank)
            if view is not None:
                self._see(slot, view)

    def _see(self, slot: Slot, view: MatrixView) -> None:
        self._views[slot.id], slot.coordinates_shape = view, self.coordinates_of(view)

    def _epoch_of(self, step: int) -> int:
        return 0 if self.refresh is None else step - step % self.refresh

    def begin_step(self, step: int) -> None:
        self._earlier = {}
        if self._epoch_of(step) == self._epoch:
            return
        self._epoch = self._epoch_of(step)
        for slot in self.slots:
            if slot.id in self._views:
                bases = dict(zip(_NAMES, self._draw(slot, self._epoch), strict=True))
                slot.buffers.update({k: basis for k, basis in bases.items() if basis is not None})

    def _draw(self, slot: Slot, epoch: int) -> _Bases:
        view, key = self._views[slot.id], (self.seed, epoch, 0)
        left = gaussian(key, slot, (view.rows, view.rank), _LEFT) if self.has_left else None
        right = gaussian(key, slot, (view.cols, view.rank), _RIGHT) if self.has_right else None
        return (
            None if left is None else self.basis_of(left),
            None if right is None else self.basis_of(right),
        )

    def _bases(self, slot: Slot, epoch: int) -> _Bases:
        if epoch == self._epoch:
            left, right = (slot.buffers.get(name) for name in _NAMES)
            return left, right
        if (slot.id, epoch) not in self._earlier:
            self._earlier[slot.id, epoch] = self._draw(slot, epoch)
        return self._earlier[slot.id, epoch]

    def direction(self, slot: Slot, key: Key) -> LowRank | Drawn:
        if slot.coordinates_shape is None:
            return Drawn.normal(key, slot.id)
        epoch = self._epoch_of(key.step)
        left, right = self._bases(slot, epoch)
        coordinates, scale = (
            gaussian(key, slot, slot.coordinates_shape),
            self.scale_of(self._views[slot.id]),
        )
        carry = None if self.refresh is None else partial(self._carry, slot, epoch)
        return LowRank(coordinates, left, right, scale, epoch, carry)

    def _carry(self, slot: Slot, epoch: int, state: Tensor, earlier: int) -> Tensor:
        """Coordinates of an earlier epoch in those of `epoch`: the lifted matrix, projected."""
        (left, right), (old_left, old_right) = self._bases(slot, epoch), self._draw(slot, earlier)
        if left is not None and old_left is not None:
            state = left.T @ old_left @ state / self.gram_of(len(left))
        if right is not None and old_right is not None:
            state = state @ (old_right.T @ right) / self.gram_of(len(right))
        return state

    def state_bytes(self, slot: Slot) -> int:
        if slot.id not in self._views:
            return 0
        view = self._views[slot.id]
        sides = self.has_left * view.rows + self.has_right * view.cols
        return sides * view.rank * slot.state_itemsize

    def state_dict(self) -> dict[str, object]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._epoch = state["epoch"]  # type: ignore[assignment]
