"""The engine: walks the weights from point to point, counts forwards, applies the update."""

import math
from collections.abc import Callable, Sequence

from zobench.zo.directions import Direction
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import Feedback, Key, Point, Replay
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Diverged(FloatingPointError):
    """A loss was NaN or infinite; the weights are back at the step's clean point."""


class Engine:
    """Runs one step at a time in the `inplace` walk: no copy of the weights, no stored direction.

    `forwards` counts every evaluation since the start; `losses` holds those of the last step.
    """

    def __init__(self, slots: Sequence[Slot], sampler: Sampler, seed: int) -> None:
        self.slots = slots
        self.sampler = sampler
        self.seed = seed
        self.forwards = 0
        self.losses: list[float] = []
        self._at: dict[Key, float] = {}  # displacement of the weights from the clean point
        sampler.bind(slots)

    def evaluate(
        self, estimator: Estimator, loss: Callable[[], float], *, step: int, eps: float
    ) -> Feedback:
        """Evaluate the estimator's points; the weights stay at the last one, for `update`.

        Raises Diverged for a loss that is not finite. Whatever is raised, by the loss too, the
        weights are restored first.
        """
        self.sampler.begin_step(step)
        self.losses = []
        points = estimator.estimate(lambda query: Key(self.seed, step, query), eps)
        try:
            point = next(points)
            while True:
                self._go_to(point)
                value = loss()
                self.forwards += 1
                if not math.isfinite(value):
                    raise Diverged(f"the loss is {value} at step {step}")
                self.losses.append(value)
                point = points.send(value)
        except StopIteration as stop:
            feedback: Feedback = stop.value
            return feedback
        except BaseException:
            self._go_to({})
            raise

    def update(self, feedback: Feedback, rule: Rule, *, step: int, lr: float) -> None:
        """Restore the weights and apply the feedback, one pass; then let the sampler learn."""
        keys = dict.fromkeys([*self._at, *(k for c in feedback.channels.values() for k in c)])
        for slot in self.slots:
            replays = [self._replay(slot, key, feedback) for key in keys]
            rule.update(slot, replays, lr=lr, step=step)
            self.sampler.observe(slot, replays)
        self._at = {}
        self.sampler.end_step()

    def _replay(self, slot: Slot, key: Key, feedback: Feedback) -> Replay:
        coefficients = {name: c[key] for name, c in feedback.channels.items() if key in c}
        direction = self.sampler.direction(slot, key)
        return Replay(direction, restore=-self._at.get(key, 0.0), coefficients=coefficients)

    def _go_to(self, point: Point) -> None:
        """Move every slot to the point by the difference to where it is, in one pass."""
        moves = {key: point.get(key, 0.0) - self._at.get(key, 0.0) for key in {**self._at, **point}}
        moves = {key: scale for key, scale in moves.items() if scale != 0.0}
        if not moves:
            return
        for slot in self.slots:
            terms: list[tuple[float, Direction]] = [
                (scale, self.sampler.direction(slot, key)) for key, scale in moves.items()
            ]
            slot.move(terms)
        self._at = {key: scale for key, scale in point.items() if scale != 0.0}
