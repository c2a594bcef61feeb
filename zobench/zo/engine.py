"""The engine: evaluates the estimator's points, counts forwards, applies the update."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from typing import TypeVar

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.drift_meter import DriftMeter
from zobench.zo.estimators.base import Ask, Estimator
from zobench.zo.feedback import GRAD, PLAIN, Feedback, Request, Step
from zobench.zo.plan import Plan, Update
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler
from zobench.zo.scalars import Scalar, current_scalars
from zobench.zo.space import Slot

# The losses of requests for one batch, in order; or (loss, slope) of a single one `along`.
Evaluate = Callable[[Sequence[Request]], Sequence[float]]
Result = TypeVar("Result")
# Requests go out, as `Evaluate` gets them, and their losses come in, until there is a result.
AskTell = Generator[Sequence[Request], Sequence[float], Result]


class Diverged(FloatingPointError):
    """A loss was NaN or infinite; the weights are back at the step's clean point."""


def drive(steps: AskTell[Result], evaluate: Evaluate) -> Result:
    """Evaluate what the generator asks for until it returns; it is closed whatever is raised."""
    with closing(steps):
        values = None
        while True:
            try:
                requests = steps.send(values)  # type: ignore[arg-type]
            except StopIteration as stop:
                result: Result = stop.value
                return result
            values = evaluate(requests)


class Engine:
    """Runs one step at a time; no direction is ever stored.

    Args:
        slots: The trainable tensors.
        sampler: The law of z; it is bound to the slots here.
        seed: The run's seed, the first part of every key.
        arithmetic: How the weights are displaced and rounded; by their dtype unless given.
        pack: More than 1 hands up to so many points at once to the caller, with the weights left
            clean.

    Attributes:
        forwards: Evaluations since the start; a slope in forward mode counts as two.
        at_once: Evaluations of the call that is under way.
        bare: True while that call needs nothing but the loss of the weights as they stand.
        walked: True hands all points of an ask at once to the caller, who leaves the weights at the
            last one.
        losses: Losses of the last step, also where it ended at one of them.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        sampler: Sampler,
        seed: int,
        arithmetic: Arithmetic | None = None,
        pack: int = 1,
    ) -> None:
        self.slots = slots
        self.sampler = sampler
        self.seed = seed
        self.pack = pack
        self.at_once = 1
        self.bare = False
        self.walked = False
        self.forwards = 0
        self.losses: list[float] = []
        self.arithmetic = arithmetic or Arithmetic()
        self.plan = Plan(slots, sampler)
        self.displacement = self.arithmetic.begin(slots, self.plan)
        half = [slot for slot in slots if slot.parameter.dtype.itemsize < 4]
        alone = [slot for slot in half if slot.rounding.remainder is None]
        self.drift = DriftMeter(alone) if alone and self.displacement is self.plan else None
        sampler.bind(slots, seed)

    def evaluation(
        self, estimator: Estimator, *, step: int, eps: float, lr: float
    ) -> AskTell[Feedback]:
        """Ask for the estimator's points; weights may stay at the last one until `update`.

        While it waits for losses the weights are at the requested point. On every exception, and
        when it is closed early, the weights are restored first.

        Args:
            estimator: Whose points are evaluated.
            step: Number of the step, from 0.
            eps: Perturbation radius.
            lr: Learning rate, for estimators that look at it.

        Yields:
            Requests for one batch; send their losses, in order.

        Returns:
            The estimator's feedback.

        Raises:
            Diverged: A loss is not finite.
        """
        self.sampler.begin_step(step)
        self.plan.begin_step()
        self.losses = []
        asks = estimator.estimate(Step(self.seed, step, eps, lr, self.sampler.layers))
        try:
            ask = next(asks)
            while True:
                values = yield from self._tell(ask, step)
                ask = asks.send(values)
        except StopIteration as stop:
            feedback: Feedback = stop.value
            return feedback
        except BaseException:
            self.displacement.leave()
            raise

    def _tell(self, ask: Ask, step: int) -> AskTell[float | Sequence[float]]:
        """What the estimator receives: a loss, a list of losses, or (loss, slope) for `along`."""
        if isinstance(ask, list):
            requests = [Request(point) for point in ask]
            losses: list[float] = []
            most = len(ask) if self.walked else self.pack
            for at in range(0, len(ask), most):
                losses += yield from self._ask(requests[at : at + most], step)
            return losses
        request = ask if isinstance(ask, Request) else Request(ask)
        values = yield from self._ask([request], step)
        return values[0] if len(values) == 1 else values

    def _ask(self, requests: Sequence[Request], step: int) -> AskTell[Sequence[float]]:
        first, along = requests[0], requests[0].along
        watched = not self.losses and not first.point  # the clean weights, before any direction
        self.at_once = 1 if self.walked else len(requests)
        moved = not self.walked and (self.pack == 1 or along is not None)
        there = self.displacement.evaluating(first) if moved else nullcontext()
        onlooker = self.sampler.watch() if watched else nullcontext()
        alone = moved and self.pack == 1 and along is None and isinstance(onlooker, nullcontext)
        with there, onlooker:
            self.bare = alone and self.displacement is self.plan
            try:
                values = yield requests
            finally:
                self.bare = False
        self.forwards += len(values)
        self.losses.extend(values)
        names = ("loss",) * len(requests) if along is None else ("loss", "slope")
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, Scalar) and not math.isfinite(value):
                hint = self.displacement.hint if self.forwards == len(values) else ""
                raise Diverged(f"the {name} is {value} at step {step}{hint}")
        return values

    def update(self, feedback: Feedback, rule: Rule, *, step: int, lr: float) -> None:
        """Restore the weights and apply the feedback, one pass; then let the sampler learn.

        Args:
            feedback: What `evaluation` returned.
            rule: How the estimate moves the weights.
            step: Number of the step, from 0.
            lr: Learning rate.
        """
        self.arithmetic.begin_update(self.seed, step)
        rule.begin_step(feedback.channels.get(GRAD, {}), step=step)
        if self.drift is not None and PLAIN in rule.gives and current_scalars() is None:
            estimated = [key for channel in feedback.channels.values() for key in channel]
            keys = dict.fromkeys([*self.plan.at, *estimated])
            for slot in self.drift.slots:
                drawn = self.plan.drawn_terms(slot, feedback, keys)
                self.drift.follow(slot, self.sampler.released_update(slot, drawn), lr)
        taking, sums = self.plan.update(Update(rule, feedback, lr, step))
        self.arithmetic.end_update()
        self.sampler.observe(taking, feedback.channels, sums)
        self.sampler.end_step()
