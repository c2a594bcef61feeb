"""The base of rules that keep their state in the coordinates of a law with bases."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from zobench.zo.directions import stored
from zobench.zo.feedback import COORDINATES, GRAD, DrawnTerm, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.moves import Direction
from zobench.zo.rules.base import BlockChange, Change, Kind, Rule, SlotChange
from zobench.zo.space import Slot


class CoordinateRule(Rule):
    """Updates a matrix in coordinates; the product with the bases is formed block by block.

    A matrix that takes no part in a step has no bases and does not move.

    Args:
        vectors: The rule of slots without coordinates.
        vector_lr: Factor of the learning rate on those, at least 0.

    Raises:
        ValueError: `vector_lr` is negative.
    """

    def __init__(self, vectors: Rule, vector_lr: float) -> None:
        if vector_lr < 0.0:
            raise ValueError(f"rule.vector_lr={vector_lr}: must not be negative")
        self.needs = frozenset({GRAD, COORDINATES}) | vectors.needs
        self.vectors, self.vector_lr = vectors, vector_lr
        self._epochs: dict[str, int] = {}  # of the bases that a slot's state is written in

    @abstractmethod
    def linear_state(self) -> Iterable[str]:
        """Names of buffers that are linear in the estimate: they follow a change of bases."""

    @abstractmethod
    def moved(
        self, slot: Slot, law: LowRank, projected: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Direction:
        """The step of a matrix's weights, between the bases of `law`.

        projected: the directions' coordinates, flat, with their coefficients.
        """

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        self.vectors.begin_step(grad, step=step)

    def past_keys(self) -> Iterable[Key]:
        return self.vectors.past_keys()

    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | BlockChange | SlotChange | None:
        if not kind.coordinates:
            return self.vectors.change(grad, kind, lr=lr * self.vector_lr, step=step)
        if not grad:
            return None

        def stepped(slot: Slot, z: Mapping[Key, Direction]) -> Direction:
            laws = {key: law for key, law in z.items() if isinstance(law, LowRank)}
            assert len(laws) == len(z), "a sampler that gives coordinates has them everywhere"
            law = max(laws.values(), key=lambda low_rank: low_rank.epoch)
            self._follow(slot, law)
            known = {key: {GRAD: coefficient} for key, coefficient in grad.items()}
            projected = [
                DrawnTerm(key, _in_coordinates(own, law), 0.0, known.get(key, {}))
                for key, own in laws.items()
            ]
            return self.moved(slot, law, projected, lr=lr, step=step)

        return SlotChange(stepped)

    def _follow(self, slot: Slot, law: LowRank) -> None:
        """Write the slot's linear state in the bases of `law`."""
        epoch = self._epochs.setdefault(slot.name, law.epoch)
        if law.transport is None or epoch == law.epoch:
            return
        self._epochs[slot.name] = law.epoch
        for name in self.linear_state():
            if name in slot.buffers:
                state = slot.buffers[name]
                carried = law.transport(state.view(law.coordinates.shape), epoch)
                state.copy_(carried.reshape(-1))

    def state_dict(self) -> dict[str, object]:
        return {"epochs": dict(self._epochs), "vectors": self.vectors.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._epochs = dict(state["epochs"])  # type: ignore[call-overload]
        self.vectors.load_state_dict(state["vectors"])  # type: ignore[arg-type]


def _in_coordinates(own: LowRank, law: LowRank) -> Direction:
    """A direction in the coordinates of `law`; that of earlier bases is projected on them."""
    coordinates = own.coordinates
    if law.transport is not None and own.epoch != law.epoch:
        coordinates = law.transport(coordinates, own.epoch)
    return stored(coordinates.reshape(-1))
