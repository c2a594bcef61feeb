"""The engine: walks the weights from point to point, counts forwards, applies the update.

The walk goes through the clean point: leaving w + a z for w + b z adds -a z, then b z, in one pass
with one draw. A float32 sum within one binade that is undone by the same number comes back to its
bits, so the walk drifts at binade borders only; -2 eps z in one sum would drift at every step.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from zobench.zo.directions import Direction
from zobench.zo.estimators.base import Asked, Estimator
from zobench.zo.feedback import GRAD, MOVE, Feedback, Key, Point, Replay, Request, Step
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

# The losses of requests for one batch, in order; or (loss, slope) of a single one `along`.
Answer = Callable[[Sequence[Request]], Sequence[float]]


class Diverged(FloatingPointError):
    """A loss was NaN or infinite; the weights are back at the step's clean point."""


class Engine:
    """Runs one step at a time in the `inplace` walk: no copy of the weights, no stored direction.

    pack: more than 1 hands up to so many points at once to who answers, with the weights left
    clean. `forwards` counts every evaluation since the start, `at_once` those of the call that is
    under way; `losses` holds those of the last step.
    """

    def __init__(self, slots: Sequence[Slot], sampler: Sampler, seed: int, pack: int = 1) -> None:
        self.slots = slots
        self.sampler = sampler
        self.seed = seed
        self.pack = pack
        self.at_once = 1
        self.forwards = 0
        self.losses: list[float] = []
        self._at: dict[Key, float] = {}  # displacement of the weights from the clean point
        sampler.bind(slots, seed)

    def evaluate(
        self, estimator: Estimator, answer: Answer, *, step: int, eps: float, lr: float
    ) -> Feedback:
        """Evaluate the estimator's points; the weights stay at the last one, for `update`.

        Raises Diverged for a loss that is not finite. Whatever is raised, by the loss too, the
        weights are restored first.
        """
        self.sampler.begin_step(step)
        self.losses = []
        plan = estimator.estimate(Step(self.seed, step, eps, lr, self.sampler.layers))
        try:
            asked = next(plan)
            while True:
                asked = plan.send(self._told(asked, answer, step))
        except StopIteration as stop:
            feedback: Feedback = stop.value
            return feedback
        except BaseException:
            self._go_to({})
            raise

    def _told(self, asked: Asked, answer: Answer, step: int) -> float | Sequence[float]:
        """What the plan receives: a loss, (loss, slope) of a request `along`, a list of losses."""
        if isinstance(asked, list):
            requests = [Request(point) for point in asked]
            groups = [requests[at : at + self.pack] for at in range(0, len(asked), self.pack)]
            return [loss for group in groups for loss in self._answer(group, answer, step)]
        request = asked if isinstance(asked, Request) else Request(asked)
        values = self._answer([request], answer, step)
        return values[0] if len(values) == 1 else values

    def _answer(self, requests: Sequence[Request], answer: Answer, step: int) -> Sequence[float]:
        point, along = requests[0].point, requests[0].along
        self._go_to(point if self.pack == 1 or along is not None else {})
        watched = not self.losses and not point  # the clean weights, before any direction
        self.at_once = len(requests)
        with self.sampler.watch() if watched else nullcontext():
            values = answer(requests)
        self.forwards += len(values)
        names = ("loss",) * len(requests) if along is None else ("loss", "slope")
        for name, value in zip(names, values, strict=True):
            if not math.isfinite(value):
                raise Diverged(f"the {name} is {value} at step {step}")
        self.losses.extend(values)
        return values

    def update(self, feedback: Feedback, rule: Rule, *, step: int, lr: float) -> None:
        """Restore the weights and apply the feedback, one pass; then let the sampler learn."""
        rule.begin_step(feedback.channels.get(GRAD, {}), step=step)
        asked = [key for channel in feedback.channels.values() for key in channel]
        recalled = dict.fromkeys(rule.recall())
        keys = dict.fromkeys([*self._at, *asked, *recalled])
        for slot in self.slots:
            at = {} if slot.restore() else self._at
            drawn = [(key, self.sampler.direction(slot, key)) for key in keys]
            replays = [self._replay(slot, k, z, at, feedback) for k, z in drawn if z is not None]
            replays = self.sampler.revise(slot, replays)
            moving = [
                r for r in replays if GRAD in r.coefficients or r.restore or r.key in recalled
            ]
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
        restore = coefficients.get(MOVE, 0.0) - at.get(key, 0.0)
        return Replay(key, direction, restore, coefficients)

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
