"""What rules share that keep their state in the coordinates of a law with bases."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from zobench.zo.directions import Direction, Multiple
from zobench.zo.feedback import COORDINATES, GRAD, Key, Replay
from zobench.zo.lifted import Lifted
from zobench.zo.passes.move import Move
from zobench.zo.rules.base import Rule
from zobench.zo.space import Slot


class CoordinateRule(Rule):
    """Moves a matrix by coordinates, which are lifted block by block on their way to the weights.

    A matrix that takes no part in a step has no bases to be lifted with, and stays.

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
        self, slot: Slot, law: Lifted, cores: Sequence[Replay], *, lr: float, step: int
    ) -> Direction:
        """The step of a matrix's weights, lifted as `law` is; the cores are flat vectors."""

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        self.vectors.begin_step(grad, step=step)

    def recall(self) -> Iterable[Key]:
        return self.vectors.recall()

    def update(self, slot: Slot, replays: Sequence[Replay], *, lr: float, step: int) -> Move | None:
        if slot.core is None:
            return self.vectors.update(slot, replays, lr=lr * self.vector_lr, step=step)
        if not replays:
            return None
        laws = [replay.direction for replay in replays]
        lifted = [law for law in laws if isinstance(law, Lifted)]
        assert len(lifted) == len(laws), "a sampler that gives coordinates has them everywhere"
        law = max(lifted, key=lambda lifted: lifted.epoch)
        self._follow(slot, law)
        cores = [_core_of(replay, own, law) for replay, own in zip(replays, lifted, strict=True)]
        move = self.moved(slot, law, cores, lr=lr, step=step)
        for start, weights in slot.edit():
            for replay in replays:
                if replay.restore:
                    replay.direction.add_to(weights, start, replay.restore)
            move.add_to(weights, start, 1.0)
        return None

    def _follow(self, slot: Slot, law: Lifted) -> None:
        """Write the slot's linear state in the bases of `law`."""
        epoch = self._epochs.setdefault(slot.name, law.epoch)
        if law.transport is None or epoch == law.epoch:
            return
        self._epochs[slot.name] = law.epoch
        for name in self.linear_state():
            if name in slot.buffers:
                state = slot.buffers[name]
                carried = law.transport(state.view(law.core.shape), epoch)
                state.copy_(carried.reshape(-1))

    def state_dict(self) -> dict[str, object]:
        return {"epochs": dict(self._epochs), "vectors": self.vectors.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._epochs = dict(state["epochs"])  # type: ignore[call-overload]
        self.vectors.load_state_dict(state["vectors"])  # type: ignore[arg-type]


def _core_of(replay: Replay, own: Lifted, law: Lifted) -> Replay:
    """The replay in the coordinates of `law`; a direction of earlier bases is projected on them."""
    core = own.core
    if law.transport is not None and own.epoch != law.epoch:
        core = law.transport(core, own.epoch)
    return Replay(replay.key, Multiple(core.reshape(-1), 1.0), 0.0, replay.coefficients)
