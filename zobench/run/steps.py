"""One step of a run: its batch, its rate and the optimizer's part; or all that from the ledger."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zobench.errors import UserError
from zobench.run.closure import CountedLoss, GraphedSteps, Parts, shares_of
from zobench.run.progress import BudgetClock
from zobench.run.resume import ResumePoint
from zobench.settings import Train
from zobench.tasks.problem import AnyBatch, ByLength, Problem
from zobench.zo.engine import Diverged
from zobench.zo.feedback import Request
from zobench.zo.fingerprint import fingerprint
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


class Steps:
    """The steps of a run: those that the ledger has are replayed, the others are taken `live`.

    loss: the problem's, maybe captured. The attribute counts the tokens of both; the optimizer,
    where it is a zeroth-order one, the forwards.
    """

    def __init__(
        self,
        train: Train,
        seed: int,
        model: Any,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        budget: BudgetClock,
        resume: ResumePoint,
        loss: Callable[[Any, Any], torch.Tensor],
        ledger: Ledger | None = None,
    ) -> None:
        self.train, self.seed = train, seed
        self.problem, self.optimizer, self.budget, self.resume = problem, optimizer, budget, resume
        self.ledger = ledger
        precision = self.train.precision
        autocast = None if precision is None else getattr(torch, precision)
        self.loss = CountedLoss(model, loss, autocast)
        self.anchor = partial(self.batch, stream=1)  # in an order of its own
        clip, sound = self.train.grad_clip, self.train.nonfinite == "skip"
        self.live = step_of(optimizer, self.loss, self.anchor, clip, sound)
        self._rates = [group.get("lr") for group in optimizer.param_groups]

    def batch(self, step: int, stream: int = 0) -> Any:
        """The batch of a step; in parts where `train.micro_batch_size` asks for them.

        Neighbours in length share a part, which leaves little to pad.
        """
        size, wanted = self.problem.sizes["train"], self.train.batch_size
        indices = batch_of(step, size=size, batch_size=wanted, seed=self.seed, stream=stream)
        numbers, part = indices.tolist(), self.train.micro_batch_size or wanted
        if part >= len(numbers):
            return self.problem.batch(numbers)
        if isinstance(self.problem, ByLength):
            numbers.sort(key=self.problem.length)
        batches = [
            self.problem.batch(numbers[at : at + part]) for at in range(0, len(numbers), part)
        ]
        return Parts(batches, [self.problem.weight(batch) for batch in batches])

    def replayed(self, step: int) -> bool:
        """Whether the ledger has step number `step`."""
        return step < self.resume.end

    def replay(self, step: int, batch: Any) -> float:
        """Take it again; returns the loss, or raises Diverged as it did. Its batch is only counted.

        Raises UserError where the ledger is not that of this run.
        """
        assert isinstance(self.optimizer, ZOOptimizer)
        record = self.resume.records[step - self.resume.start]

        def seen(asked: Sequence[Request]) -> None:
            other = asked[0].batch
            self.loss.count(batch if other is None else self.anchor(other), len(asked))

        try:
            loss = self.optimizer.replay(record, seen)
        except ValueError as error:
            raise UserError(f"ledger.bin: {error}") from error
        finally:
            self.optimizer.engine.forwards += len(record.losses)
        return loss

    def prepare(self, step: int) -> None:
        """Set the learning rate for a step that somebody is about to take, on its batch."""
        share = 1.0 + (self.train.final_lr - 1.0) * self.budget.share(step)
        share *= min(1.0, (step + 1) / ((self.train.warmup or 0) + 1))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate * share

    def taken(self) -> None:
        """That step has been taken: it goes to the ledger."""
        if self.ledger is not None and isinstance(self.optimizer, ZOOptimizer):
            assert self.optimizer.record is not None
            self.ledger.append(self.optimizer.record)

    def mark(self, step: int) -> None:
        """After `step` steps: note the weights' fingerprint, or compare it with an earlier one.

        Raises UserError where replaying has led elsewhere.
        """
        if self.ledger is None or not isinstance(self.optimizer, ZOOptimizer):
            return
        now = fingerprint(slot.parameter for slot in self.optimizer.engine.slots)
        then = self.resume.marks.get(step)
        if then is None and step >= self.resume.end:
            self.ledger.mark(now)
            self.resume.marks[step] = now
        elif then not in (None, now):
            raise UserError(
                f"ledger.bin: after {step} steps the weights are not those that the run had; it"
                " began on another kind of machine, or with another version of zobench or torch."
                " Go on there, or remove the run's folder to begin anew"
            )

    @property
    def forwards(self) -> int:
        """What training cost so far, as the engine counts it."""
        if isinstance(self.optimizer, ZOOptimizer):
            return self.optimizer.engine.forwards
        return self.loss.forwards


def step_of(
    optimizer: torch.optim.Optimizer,
    loss: CountedLoss,
    anchor: Callable[[int], AnyBatch] | None = None,
    grad_clip: float | None = None,
    sound: bool = False,
) -> Callable[[AnyBatch], float]:
    """One optimizer step as a function of the batch, returning the loss.

    The only place that knows whether an optimizer back-propagates.

    anchor: the n-th batch of the training set, for optimizers that look at more than the step's.
    grad_clip: the largest norm of a gradient by back-propagation. A batch in parts is
    back-propagated part by part, so that one part's activations are alive at a time.
    sound: also look at the norm of a gradient, which a finite loss does not make finite.
    The step raises Diverged, with the weights as before it, when a loss is not finite.
    """

    def zeroth_order(batch: AnyBatch) -> float:
        assert isinstance(optimizer, ZOOptimizer)
        engine = optimizer.engine
        others = (lambda n: loss(anchor(n), engine.at_once)) if anchor else None
        return optimizer.step(lambda: loss(batch, engine.at_once), others)

    def first_order(batch: AnyBatch) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.count(batch)
        whole = 0.0
        for share, part in shares_of(batch):
            value = share * loss.part(part)
            whole += float(value.detach())
            if not math.isfinite(whole):
                raise Diverged(f"the loss is {whole}")
            value.backward()
        if grad_clip is not None or sound:
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            most = math.inf if grad_clip is None else grad_clip
            norm = torch.nn.utils.clip_grad_norm_(trained, most)
            if sound and not norm.isfinite():
                raise Diverged(f"the norm of the gradient is {float(norm)}")
        optimizer.step()
        return whole

    if isinstance(optimizer, ZOOptimizer) and optimizer.graph:
        return GraphedSteps(optimizer, loss)
    return zeroth_order if isinstance(optimizer, ZOOptimizer) else first_order


def batch_of(
    step: int, *, size: int, batch_size: int, seed: int, stream: int = 0
) -> npt.NDArray[np.int64]:
    """Indices of the batch: without replacement within an epoch, anew each epoch.

    stream: names an order of its own under the same seed. Depends on its arguments only, so a run
    can begin at any step. The last size % batch_size examples of an epoch's order sit that epoch
    out; a batch is never larger than the data.
    """
    batch_size = min(batch_size, size)
    epoch, place = divmod(step, size // batch_size)
    order = np.random.default_rng([seed, epoch, *([stream] if stream else [])]).permutation(size)
    return order[place * batch_size :][:batch_size]
