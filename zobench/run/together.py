"""Several runs in one process: their steps are evaluated as one batch.

The runs differ in optimizer and seed (`sharing_key`). Each has its own folder, data order,
evaluations, selection and result; the frozen model is in memory once. A run's seconds are those of
its own work and its share of the batched steps; memory peaks are those of the process.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.run.base_model import device_for, tuned_of
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import DeferredLogger
from zobench.run.loop import RunCoroutine, StepRequest
from zobench.run.meter import Meter
from zobench.run.runner import Prepared, check_gradient, prepare_run, train_and_test
from zobench.settings import RunSettings, canonical
from zobench.tasks.side_by_side import side_by_side
from zobench.zo.batched_runs import BatchedRuns, copies_of
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer


class RunClock:
    """Seconds of one of several runs: its own turns, and its shares of batched steps."""

    def __init__(self) -> None:
        self._total = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._total + running

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Count the time of the block."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._total, self._since = self(), None

    def add(self, seconds: float) -> None:
        self._total += seconds


RunBatch = tuple[int, Any]  # the number of a run, and one of its batches


class Member(NamedTuple):
    """One of the runs: its clock, weights, optimizer and loop."""

    clock: RunClock
    weights: Mapping[str, Tensor]
    optimizer: ZOOptimizer
    work: RunCoroutine


def run_together(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Carry out the runs of these folders; returns their results.

    Raises UserError, before any file of results is opened, for runs that cannot share a process.
    """
    settings = [folder.run_settings() for folder in folders]
    if len({sharing_key(own) for own in settings} | {None}) != 2:
        raise UserError("pack_runs: these runs differ in more than seed and optimizer")
    device = device_for(settings[0])
    clocks = [RunClock() for _ in folders]
    meters = [Meter(device, clock) for clock in clocks]
    with clocks[0].turn(), meters[0].phase("load"):
        made = prepare_run(settings[0], device)
    if made.capture:
        raise UserError("pack_runs: model.capture=true is for one run at a time; set it to null")
    members = []
    for folder, own, clock, meter in zip(folders, settings, clocks, meters, strict=True):
        with clock.turn(), meter.phase("load"):
            weights = _first_weights(own, settings[0], made, device)
            optimizer = _optimizer(own.optimizer, weights)
        check_gradient(own.train, made.problem, optimizer)
        logger = DeferredLogger(build(own.logger, "logger"))
        member_parts = made._replace(trainable=list(weights.items()), base=None)
        work = train_and_test(folder, own, member_parts, optimizer, meter, logger)
        members.append(Member(clock, weights, optimizer, work))
    if not made.problem.differentiable:
        raise UserError("pack_runs: this task's loss cannot be computed for several runs at once")
    rows = sum(own.optimizer.get("pack") or 1 for own in settings)
    optimizers = [member.optimizer for member in members]
    try:
        batched = BatchedRuns[RunBatch](made.model, optimizers, max(rows, 2))
    except ValueError as error:
        raise UserError(f"pack_runs: {error}") from error
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(closing(member.work))
        return _results(batched, made.model, members)


def _first_weights(
    own: RunSettings, first: RunSettings, made: Prepared, device: torch.device
) -> dict[str, torch.nn.Parameter]:
    """The run's initial trainable weights, drawn with its own tuning's seed."""
    model = made.model if own.tuning == first.tuning else tuned_of(own)[1]
    return copies_of(model, device)


def _optimizer(node: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ZOOptimizer:
    """The run's optimizer over its own weights; the batched step evaluates it."""
    unpacked = {key: value for key, value in node.items() if key != "pack"}
    optimizer = build_optimizer(unpacked, weights.items())
    if not isinstance(optimizer, ZOOptimizer):
        raise UserError("pack_runs: only zeroth-order optimizers can be packed")
    return optimizer


def _results(
    batched: BatchedRuns[RunBatch], model: Any, members: Sequence[Member]
) -> list[dict[str, Any]]:
    """Advance every run to its next step, take these steps together, and repeat to the end."""
    requests: dict[int, StepRequest] = {}
    results: dict[int, dict[str, Any]] = {}

    def advance(number: int, resume: Callable[[Any], StepRequest], value: object) -> None:
        """Give the model the run's weights, and run its loop up to the next request."""
        weights = members[number].weights
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.data = weights[name].data
        with members[number].clock.turn():
            try:
                requests[number] = resume(value)
            except StopIteration as stop:
                results[number] = stop.value

    def losses(items: Sequence[RunBatch]) -> Any:
        for number, batch in items:
            steps[number].loss.count(batch)
        loss = steps[items[0][0]].loss.part
        return side_by_side([batch for _, batch in items], loss)

    def anchor(number: int, nth: int) -> RunBatch:
        return number, steps[number].anchor(nth)

    for number, member in enumerate(members):
        advance(number, member.work.send, None)
    while requests:
        steps = {number: request.steps for number, request in requests.items()}
        batches = {number: (number, request.batch) for number, request in requests.items()}
        requests.clear()
        begun = time.perf_counter()
        ends = batched.step(batches, losses, anchor)
        share = (time.perf_counter() - begun) / len(ends)
        for number, end in ends.items():
            members[number].clock.add(share)
            work = members[number].work
            advance(number, work.throw if isinstance(end, Diverged) else work.send, end)
    return [results[number] for number in range(len(members))]


_SHARED = ("model", "task", "train", "evaluation", "budget", "device", "threads")


def sharing_key(settings: RunSettings) -> str | None:
    """A key that is equal for runs that can share a process; None if the run cannot be shared.

    A tuning's seed may differ: it only draws initial values. Runs with a budget in seconds,
    micro-batches, diagnoses or captured steps cannot be shared.
    """
    unshared = (settings.train.micro_batch_size, settings.diagnose.every)
    if settings.budget.steps is None or any(unshared) or settings.optimizer.get("graph"):
        return None
    shared = {part: settings.plain[part] for part in _SHARED}
    shared["tuning"] = {k: v for k, v in settings.tuning.items() if k != "seed"}
    return json.dumps(canonical(shared), sort_keys=True)
