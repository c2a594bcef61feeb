"""The engine: evaluates the estimator's points, counts forwards, applies the update."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Direction
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import GRAD, MOVE, Feedback, Key, Point, Replay, Request, Step
from zobench.zo.passes.move import Move, carry_out
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

Answer = Callable[[Request], tuple[float, ...]]  # (loss,), or (loss, slope) of a request `along`


class Diverged(FloatingPointError):
    """A loss was NaN or infinite; the weights are back at the step's clean point."""


class Engine:
    """Runs one step at a time; no direction is ever stored.

    arithmetic: how the weights are displaced and rounded; by their dtype unless given.
    `forwards` counts every evaluation since the start; `losses` holds those of the last step.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        sampler: Sampler,
        seed: int,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.slots = slots
        self.sampler = sampler
        self.seed = seed
        self.forwards = 0
        self.losses: list[float] = []
        self.arithmetic = arithmetic or Arithmetic()
        self.walk = self.arithmetic.begin(slots, sampler)
        sampler.bind(slots, seed)

    def evaluate(
        self, estimator: Estimator, answer: Answer, *, step: int, eps: float, lr: float
    ) -> Feedback:
        """Evaluate the estimator's points; weights may stay at the last one until `update`.

        Raises Diverged for a loss that is not finite. Whatever is raised, by the loss too, the
        weights are restored first.
        """
        self.sampler.begin_step(step)
        self.losses = []
        plan = estimator.estimate(Step(self.seed, step, eps, lr, self.sampler.layers))
        try:
            asked = next(plan)
            while True:
                values = self._answer(asked, answer, step)
                asked = plan.send(values[0] if len(values) == 1 else values)
        except StopIteration as stop:
            feedback: Feedback = stop.value
            return feedback
        except BaseException:
            self.walk.leave()
            raise

    def _answer(self, asked: Point | Request, answer: Answer, step: int) -> tuple[float, ...]:
        request = asked if isinstance(asked, Request) else Request(asked)
        watched = not self.losses and not request.point  # the clean weights, before any direction
        with self.walk.evaluating(request), self.sampler.watch() if watched else nullcontext():
            values = answer(request)
        self.forwards += len(values)
        for name, value in zip(("loss", "slope"), values, strict=False):
            if not math.isfinite(value):
                doubt = self.walk.doubt if self.forwards == len(values) else ""
                raise Diverged(f"the {name} is {value} at step {step}{doubt}")
        self.losses.extend(values)
        return values

    def update(self, feedback: Feedback, rule: Rule, *, step: int, lr: float) -> None:
        """Restore the weights and apply the feedback, one pass; then let the sampler learn.

        What rule and sampler do to all slots is carried out together, the rule's moves first.
        """
        self.arithmetic.begin_update(self.seed, step)
        rule.begin_step(feedback.channels.get(GRAD, {}), step=step)
        asked = [key for channel in feedback.channels.values() for key in channel]
        recalled = dict.fromkeys(rule.recall())
        keys = dict.fromkeys([*self.walk.at, *asked, *recalled])
        seen: list[tuple[Slot, list[Replay]]] = []
        moves: list[Move | None] = []
        for slot in self.slots:
            at = {} if slot.restore() else self.walk.at
            drawn = [(key, self.sampler.direction(slot, key)) for key in keys]
            replays = [self._replay(slot, k, z, at, feedback) for k, z in drawn if z is not None]
            replays = self.sampler.revise(slot, replays)
            moving = [
                r for r in replays if GRAD in r.coefficients or r.restore or r.key in recalled
            ]
            moves.append(rule.update(slot, moving, lr=lr, step=step))
            seen.append((slot, replays))
        carry_out(move for move in moves if move)
        self.arithmetic.end_update()
        self.walk.at = {}
        learnt = [self.sampler.observe(slot, replays) for slot, replays in seen]
        carry_out(move for move in learnt if move)
        self.sampler.end_step()

    def _replay(
        self, slot: Slot, key: Key, direction: Direction, at: Point, feedback: Feedback
    ) -> Replay:
        coefficients = {name: c[key] for name, c in feedback.channels.items() if key in c}
        if GRAD in coefficients:
            coefficients[GRAD] *= self.sampler.weight(slot)
        restore = coefficients.get(MOVE, 0.0) - at.get(key, 0.0)
        return Replay(key, direction, restore, coefficients)
