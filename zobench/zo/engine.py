"""The engine: walks the weights from point to point, counts forwards, applies the update.

The walk goes through the clean point: leaving w + a z for w + b z adds -a z, then b z, in one pass
with one draw. A float32 sum within one binade that is undone by the same number comes back to its
bits, so the walk drifts at binade borders only; -2 eps z in one sum would drift at every step.
"""

import math
from collections.abc import Callable, Sequence

from zobench.zo.directions import Direction
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import GRAD, Feedback, Key, Point, Replay
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
        sampler.bind(slots, seed)

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
            at = {} if slot.restore() else self._at
            drawn = [(key, self.sampler.direction(slot, key)) for key in keys]
            replays = [self._replay(slot, k, z, at, feedback) for k, z in drawn if z is not None]
            moving = [r for r in replays if GRAD in r.coefficients or r.restore]
            rule.update(slot, moving, lr=lr, step=step)
            self.sampler.observe(slot, replays)
        self._at = {}
        self.sampler.end_step()

    def _replay(
        self, slot: Slot, key: Key, direction: Direction, at: Point, feedback: Feedback
    ) -> Replay:
        coefficients = {name: c[key] for name, c in feedback.channels.items() if key in c}
        if GRAD in coefficients:
            coefficients[GRAD] *= self.sampler.weight(slot)
        return Replay(key, direction, -at.get(key, 0.0), coefficients)

    def _go_to(self, point: Point) -> None:
        """Take every slot to the point, through the clean weights, in one pass."""
        target = {key: scale for key, scale in point.items() if scale != 0.0}
        if target == self._at:
            return
        keys = {**self._at, **target}
        for slot in self.slots:
            drawn = [(k, z) for k in keys if (z := self.sampler.direction(slot, k)) is not None]
            if not drawn:
                continue
            at = {} if slot.restore() else self._at
            if target:
                slot.keep()
            slot.move([(z, -at.get(k, 0.0), target.get(k, 0.0)) for k, z in drawn])
        self._at = target
