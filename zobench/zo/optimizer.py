"""ZOOptimizer: a sampler, an estimator and a rule with the interface of a torch optimizer."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import REMAINDER, Arithmetic
from zobench.zo.batched_points import BatchedPoints
from zobench.zo.engine import AskTell, Diverged, Engine, drive
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import GRAD, MOVE, PAST, Point, Request
from zobench.zo.forward_mode import loss_and_slope
from zobench.zo.ledger import Record
from zobench.zo.part import Part, PartError
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.space import slots_of

Closure = Callable[[], Tensor | float]
Walk = Callable[[Closure, Sequence[Point]], Sequence[Tensor | float]]


class ZOOptimizer(torch.optim.Optimizer):
    """Minimises a loss by forward evaluations only.

    Args:
        named_parameters: (name, tensor) pairs, such as `model.named_parameters()`. The tensors that
            require a gradient are trained: contiguous, of any float dtype and shape. A direction
            depends on the names, not on their order.
        lr: Learning rate, at least 0. It lives in `param_groups`, where torch's schedulers find it.
        eps: Perturbation radius, in units of the weights; also in `param_groups`.
        sampler: The law of the direction z.
        estimator: The points at which the loss is evaluated, and what the losses mean.
        rule: How the estimate moves the weights.
        seed: Names the run's noise. The global random state is neither read nor changed.
        arithmetic: How 16-bit weights are displaced and rounded; exactly, unless given.
        pack: Evaluate up to so many points in one call of the closure, which needs `model`; see
            `zobench.zo.batched_points`. None or 1 is one point at a time. A number; `auto` is for
            zobench's own runs, which replace it.
        model: The module whose parameters these are; for `pack` only.
        graph: The caller intends to capture whole steps on the GPU (see `zobench.zo.graph`); `step`
            itself never does.

    Attributes:
        engine: The `Engine`; `engine.forwards` counts the evaluations so far.
        steps: Steps taken so far.
        record: What a ledger needs of the last step; None before the first.
        loss: What the last step returned; None before the first.

    Raises:
        ValueError: `lr` or `eps` is out of range, the parts do not fit (feedback that no part
            gives, more directions a step than the sampler draws), or the points cannot be packed.

    References:
        Malladi et al. 2023, Fine-Tuning Language Models with Just Forward Passes, arXiv 2305.17333:
        the in-place evaluation with noise that is drawn again.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        lr: float,
        eps: float,
        sampler: Sampler,
        estimator: Estimator,
        rule: Rule,
        seed: int = 0,
        arithmetic: Arithmetic | None = None,
        pack: int | str | None = None,
        model: nn.Module | None = None,
        graph: bool | None = None,
    ) -> None:
        if lr < 0.0 or eps <= 0.0:
            raise ValueError(f"lr={lr}, eps={eps}: lr must not be negative, eps must be positive")
        _check_needs(sampler, estimator, rule)
        most = sampler.most_directions
        if most is not None and estimator.directions > most:
            raise ValueError(
                f"sampler {type(sampler).__name__} draws at most {most} direction a step, estimator"
                f" {type(estimator).__name__} needs {estimator.directions}"
            )
        slots = slots_of(named_parameters)
        super().__init__([slot.parameter for slot in slots], {"lr": lr, "eps": eps})
        pack = _checked_pack(pack, model, sampler, estimator)
        self.engine = Engine(slots, sampler, seed, arithmetic, pack)
        self._batched: BatchedPoints | None = None
        self._walk: Walk | None = None
        if pack > 1 and model is not None:
            sampler.begin_step(0)  # directions show which of them are low-rank
            self._batched = BatchedPoints(model, slots, pack, sampler)
        self.estimator = estimator
        self.rule = rule
        self.graph = bool(graph)
        self.steps = 0
        self.record: Record | None = None  # of the last step, for a ledger
        self.loss: float | None = None
        self._share_buffers()

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Closure | None = None, anchor: Callable[[int], Tensor | float] | None = None
    ) -> float:
        """Take one step.

        Args:
            closure: Evaluates the loss of one batch, the same batch at each call within a step;
                returns a 0-d tensor or a float, or for an estimator that is `by_example` the loss
                of each example, (B,). It runs without gradients.
            anchor: Gives the loss of the n-th batch of the training set, for estimators that look
                at more than the step's batch (SVRG).

        Returns:
            The estimator's loss: for most a mean over the evaluated points, not the loss at the
            clean weights.

        Raises:
            PartError: The first step is not what a part declares.
            Diverged: A loss is not finite; the weights are as before the step. The caller may skip
                the step: the next one uses the same directions on its own batch.
            ValueError: The estimator needs `anchor`, and there is none.
            TypeError: There is no closure.
        """
        if closure is None:
            raise TypeError(
                "ZOOptimizer.step needs a closure that returns the loss of the batch; in place of"
                " Hugging Face's Trainer use zobench.integrations.transformers.ZOTrainer"
            )

        def evaluate(requests: Sequence[Request]) -> Sequence[float]:
            loss, sampler, request = closure, self.engine.sampler, requests[0]
            if request.batch is not None:
                if anchor is None:
                    raise ValueError(
                        f"estimator {type(self.estimator).__name__} evaluates other batches than"
                        " the step's: call step(closure, anchor)"
                    )
                loss = partial(anchor, request.batch)
            if request.along is not None:
                return loss_and_slope(loss, self.engine.slots, sampler, request.along)
            if self._walk is not None:
                points = [r.point for r in requests]
                found = zip(points, self._walk(loss, points), strict=True)
                return [self.estimator.of_losses(point, value) for point, value in found]
            if self._batched is not None:
                return self._batched.losses(loss, sampler, [r.point for r in requests])
            return (self.estimator.of_losses(request.point, loss()),)

        return drive(self.stepping(), evaluate)

    def stepping(self) -> AskTell[float]:
        """Take a step as a generator that yields requests and receives losses.

        `step` drives it with a closure; packs and captured graphs drive it in other ways. Run it
        without gradients.

        Yields:
            The requests that are to be evaluated at the same weights, or together; send their
            losses.

        Returns:
            The estimator's loss, as `step` does.
        """
        group, step = self.param_groups[0], self.steps
        lr, eps = group["lr"], group["eps"]
        packed = self.engine.pack > 1
        try:
            feedback = yield from self.engine.evaluation(self.estimator, step=step, eps=eps, lr=lr)
        except Diverged:
            self.record = Record(lr, tuple(self.engine.losses), (), packed, skipped=True)
            raise
        self.engine.update(feedback, self.rule, step=step, lr=lr)
        if step == 0:
            self._compare(len(self.engine.losses))
        self.steps += 1
        applied = [c for name in (GRAD, MOVE) for c in feedback.channels.get(name, {}).values()]
        self.record = Record(lr, tuple(self.engine.losses), tuple(applied), packed)
        self.loss = feedback.loss
        return feedback.loss

    def evaluate_by(self, walk: Walk) -> None:
        """Leave the evaluation of points to a function that moves the weights by itself.

        Args:
            walk: Takes the closure and all points that do not depend on each other's losses;
                returns what the closure returns at each, and leaves weights and `engine.plan` at
                the last one, with the bits of the plan's own passes. A replay does not call it.
        """
        self._walk = walk
        self.engine.walked = True

    @torch.no_grad()
    def replay(
        self, record: Record, seen: Callable[[Sequence[Request]], None] | None = None
    ) -> float:
        """Take the step that a ledger record describes: same bits, no forward pass.

        Args:
            record: A record of this run, in order; its learning rate is set, too.
            seen: Is called with the requests that the step would have evaluated, one call at a
                time.

        Returns:
            The estimator's loss, as `step` did.

        Raises:
            Diverged: The record is of a skipped step, which `step` had raised in, too.
            ValueError: The record belongs to other settings than this optimizer's, or the law of z
                depends on activations, which no ledger holds.
        """
        if self.engine.sampler.replay_class is ReplayClass.DATA:
            raise ValueError(
                f"sampler {type(self.engine.sampler).__name__} draws from activations: its steps"
                " cannot be replayed without the data"
            )
        self.param_groups[0]["lr"] = record.lr
        losses, forwards = iter(record.losses), self.engine.forwards

        def recorded(requests: Sequence[Request]) -> Sequence[float]:
            count = len(requests) + (requests[0].along is not None)
            values = tuple(islice(losses, count))
            if seen is not None and values:
                seen(requests[: len(values)])
            missing = count - len(values) if record.skipped else 0
            return values + (math.nan,) * missing  # a smaller pack had evaluated no more of them

        pack = self.engine.pack
        # displacements round as in the step: with packed points the weights did not move
        self.engine.pack = max(pack, 2) if record.packed else 1
        walked, self.engine.walked = self.engine.walked, False
        try:
            loss = drive(self.stepping(), recorded)
        except Diverged:
            if not record.skipped:
                raise ValueError(f"step {self.steps} has a loss that is not finite") from None
            others = [Request({}) for _ in losses]  # which a larger pack had evaluated, too
            if seen is not None and others:
                seen(others)
            self.record = record
            raise
        finally:
            self.engine.pack, self.engine.forwards = pack, forwards
            self.engine.walked = walked
        if self.record != record:
            raise ValueError(f"the ledger's step {self.steps - 1} is not one of these settings")
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on.

        Returns:
            Counts, rates, the state vectors by parameter name, and the scalars of the three parts.
        """
        return {
            "steps": self.steps,
            "forwards": self.engine.forwards,
            "groups": [{"lr": g["lr"], "eps": g["eps"]} for g in self.param_groups],
            "buffers": {slot.name: dict(slot.buffers) for slot in self.engine.slots},
            "parts": [part.state_dict() for part in self._parts()],
            "drift": self.engine.drift and self.engine.drift.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the caller restores the weights.

        Args:
            state: What `state_dict` returned, of the same parts and parameters.
        """
        self.steps, self.engine.forwards = state["steps"], state["forwards"]
        for group, saved in zip(self.param_groups, state["groups"], strict=True):
            group.update(saved)
        for slot in self.engine.slots:
            slot.take_buffers(state["buffers"][slot.name])
        for part, saved in zip(self._parts(), state["parts"], strict=True):
            part.load_state_dict(saved)
        if self.engine.drift and state["drift"]:
            self.engine.drift.load_state_dict(state["drift"])
        self.engine.plan.forget()
        self._share_buffers()

    def _compare(self, forwards: int) -> None:
        """Raise PartError where the first step is not what the parts declare."""
        estimator, declared = self.estimator, self.estimator.cost(1)
        if forwards != declared:
            raise PartError(
                f"estimator {type(estimator).__name__}: its first step took {forwards} forwards,"
                f" and it declares {declared}; see forwards and cost"
            )
        for slot in self.engine.slots:
            kept = {name: b.nbytes for name, b in slot.buffers.items() if name != REMAINDER}
            known = sum(part.state_bytes(slot) for part in self._parts())
            if sum(kept.values()) > known:
                raise PartError(
                    f"{slot.name}: its state ({', '.join(sorted(kept))}) takes"
                    f" {sum(kept.values())} bytes, and the parts declare {known}; see state_bytes"
                )

    def _parts(self) -> tuple[Part, ...]:
        return self.engine.sampler, self.estimator, self.rule

    def _share_buffers(self) -> None:
        """Show the slots' buffers as torch's `state`, so that tools count and find them."""
        for slot in self.engine.slots:
            self.state[slot.parameter] = slot.buffers


def _checked_pack(
    pack: int | str | None, model: nn.Module | None, sampler: Sampler, estimator: Estimator
) -> int:
    """The number of points in a call; ValueError where several cannot be evaluated at once."""
    if isinstance(pack, str):
        raise ValueError(
            f"pack={pack}: give a number, or null; a run of zobench also takes auto, which it"
            " measures before its first step"
        )
    if pack is not None and pack < 1:
        raise ValueError(f"pack={pack}: must be at least 1")
    if pack is None or pack == 1:
        return 1
    if model is None:
        raise ValueError(f"pack={pack} needs model=, the module whose parameters are trained")
    if sampler.replay_class is ReplayClass.DATA:
        raise ValueError(
            f"pack={pack}: sampler {type(sampler).__name__} watches the activations of a forward"
            " of its own; set pack=1"
        )
    if estimator.by_example:
        raise ValueError(
            f"pack={pack}: estimator {type(estimator).__name__} needs the loss of each example, and"
            " points that are evaluated together have one each; set pack=1"
        )
    return pack


def _check_needs(sampler: Sampler, estimator: Estimator, rule: Rule) -> None:
    """Raise ValueError in one sentence when a part needs what no other gives."""
    parts: dict[str, Part] = {"sampler": sampler, "estimator": estimator, "rule": rule}
    given = frozenset().union(*(part.gives for part in parts.values()))
    if sampler.replay_class in (ReplayClass.PURE, ReplayClass.EPOCH) and not sampler.weighted:
        given |= {PAST}
    names = {kind: f"{kind} {type(part).__name__}" for kind, part in parts.items()}
    for kind, part in parts.items():
        if missing := sorted(part.needs - given):
            others = " nor ".join(name for other, name in names.items() if other != kind)
            raise ValueError(
                f"{names[kind]} needs {', '.join(missing)}, which neither {others} gives"
            )
