"""One step of a run: batch, learning rate and optimizer step, or its replay from the ledger."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zobench.errors import UserError
from zobench.run.closure import CountedLoss, GraphedSteps, Parts, shares_of
from zobench.run.examples import wants_examples
from zobench.run.progress import BudgetClock
from zobench.run.resume import ResumePoint
from zobench.settings import Train
from zobench.tasks.problem import AnyBatch, ByLength, Problem
from zobench.tasks.sampling import Redrawn
from zobench.zo.engine import Diverged
from zobench.zo.feedback import Request
from zobench.zo.fingerprint import fingerprint
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


class Steps:
    """The steps of a run: those in the ledger are replayed, the others are taken `live`.

    The attribute `loss` counts the tokens of both. A zeroth-order optimizer counts the forwards.
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
        self.loss = CountedLoss(model, loss, autocast, wants_examples(optimizer))
        self.anchor = partial(self.batch, stream=1)  # batches in a separate order
        clip, sound = self.train.grad_clip, self.train.nonfinite == "skip"
        self.live = step_of(optimizer, self.loss, self.anchor, clip, sound)
        self._rates = [group.get("lr") for group in optimizer.param_groups]

    def batch(self, step: int, stream: int = 0) -> Any:
        """The batch of a step, in parts of `train.micro_batch_size`, sorted by length."""
        size, batch_size = self.problem.sizes["train"], self.train.batch_size
        indices = batch_of(step, size=size, batch_size=batch_size, seed=self.seed, stream=stream)
        numbers, part = indices.tolist(), self.train.micro_batch_size or batch_size

        def batch(numbers: Sequence[int]) -> Any:
            made = self.problem.batch(numbers)
            return made.drawn(step, stream) if isinstance(made, Redrawn) else made

        if part >= len(numbers):
            return batch(numbers)
        if isinstance(self.problem, ByLength):
            numbers.sort(key=self.problem.length)
        batches = [batch(numbers[at : at + part]) for at in range(0, len(numbers), part)]
        return Parts(batches, [self.problem.weight(batch) for batch in batches])

    def replayed(self, step: int) -> bool:
        """Whether the ledger has the step."""
        return step < self.resume.end

    def replay(self, step: int, batch: Any) -> float:
        """Replay the step; returns its loss or raises Diverged. The batch is only counted.

        Raises UserError if the ledger is not that of this run.
        """
        assert isinstance(self.optimizer, ZOOptimizer)
        record = self.resume.records[step - self.resume.start]

        def count(requests: Sequence[Request]) -> None:
            other = requests[0].batch
            self.loss.count(batch if other is None else self.anchor(other), len(requests))

        try:
            loss = self.optimizer.replay(record, count)
        except ValueError as error:
            raise UserError(f"ledger.bin: {error}") from error
        finally:
            self.optimizer.engine.forwards += len(record.losses)
        return loss

    def prepare(self, step: int) -> None:
        """Set the learning rate of a step."""
        share = lr_share(self.train, self.budget, step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate * share

    def taken(self) -> None:
        """Append the last step to the ledger."""
        if self.ledger is not None and isinstance(self.optimizer, ZOOptimizer):
            assert self.optimizer.record is not None
            self.ledger.append(self.optimizer.record)

    def mark(self, step: int) -> None:
        """Write the weights' fingerprint to the ledger; UserError if an earlier one differs."""
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
                " Resume it there, or remove the run's folder to start over"
            )

    @property
    def forwards(self) -> int:
        """Forwards of training so far."""
        if isinstance(self.optimizer, ZOOptimizer):
            return self.optimizer.engine.forwards
        return self.loss.forwards


def lr_share(train: Train, budget: BudgetClock, step: int) -> float:
    """The share of the learning rate that a step takes, by warm-up and linear decay."""
    share = 1.0 + (train.final_lr - 1.0) * budget.share(step)
    return share * min(1.0, (step + 1) / ((train.warmup or 0) + 1))


def step_of(
    optimizer: torch.optim.Optimizer,
    loss: CountedLoss,
    anchor: Callable[[int], AnyBatch] | None = None,
    grad_clip: float | None = None,
    sound: bool = False,
) -> Callable[[AnyBatch], float]:
    """One optimizer step as a function of the batch, returning the loss.

    Batches in parts are back-propagated part by part, to keep the activations of only one. The step
    raises Diverged, with the weights as before it, if a loss is not finite.

    Args:
        optimizer: zeroth-order or by back-propagation.
        loss: of a batch, counted.
        anchor: the n-th batch of the training set, for optimizers that use more than the step's.
        grad_clip: the largest norm of a gradient by back-propagation.
        sound: also check that the norm of the gradient is finite.
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
            norm = torch.nn.utils.clip_grad_norm_(trained, grad_clip or math.inf)
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
    """Indices of a batch, drawn without replacement within an epoch.

    A function of its arguments only, so a run can begin at any step. The last size % batch_size
    examples of an epoch are not used; a batch is at most as large as the data. stream: selects
    another order under the same seed.
    """
    batch_size = min(batch_size, size)
    epoch, place = divmod(step, size // batch_size)
    order = np.random.default_rng([seed, epoch, *([stream] if stream else [])]).permutation(size)
    return order[place * batch_size :][:batch_size]
