"""Several runs in one process, side by side: their steps are rows of one batch.

The runs differ in their optimizers and seeds (`sharing_key`). Each has its folder, data order,
evaluations, selection and result as if it were alone; the frozen model is in memory once. Seconds
are those of a run's own turns and its share of the common steps; a peak of memory is the process's.
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
from zobench.run.loggers.base import Afterwards
from zobench.run.loop import RunCoroutine, StepRequest
from zobench.run.meter import Meter
from zobench.run.runner import Made, check_gradient, made_of, recorded
from zobench.settings import RunSettings, canonical
from zobench.tasks.side_by_side import side_by_side
from zobench.zo.batched_runs import BatchedRuns, copies_of
from zobench.zo.engine import Diverged
from zobench.zo.optimizer import ZOOptimizer


class RunClock:
    """Seconds that one of several runs has had: its turns, and its shares of common work."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._spent + running

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time inside is the run's."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._since = self(), None

    def add(self, seconds: float) -> None:
        self._spent += seconds


def lend(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Let the model be that of a run: its parameters share memory with the run's copies."""
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name].data


Place = tuple[int, Any]  # a row's batch: the number of its run, and the batch itself


class Member(NamedTuple):
    """One of the runs: its time, its weights, and what it does with them."""

    clock: RunClock
    weights: Mapping[str, Tensor]
    optimizer: ZOOptimizer
    work: RunCoroutine


def run_together(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Carry out the runs of these folders; what their results hold, in the same order.

    Raises UserError, before any file of results is opened, for runs that cannot go together.
    """
    settings = [folder.fitting() for folder in folders]
    if len({sharing_key(own) for own in settings} | {None}) != 2:
        raise UserError("pack_runs: these runs differ in more than seed and optimizer")
    device = device_for(settings[0])
    clocks = [RunClock() for _ in folders]
    meters = [Meter(device, clock) for clock in clocks]
    with clocks[0].turn(), meters[0].phase("load"):
        made = made_of(settings[0], device)
    if made.capture:
        raise UserError("pack_runs: model.capture=true is for one run at a time; set it to null")
    members = []
    for folder, own, clock, meter in zip(folders, settings, clocks, meters, strict=True):
        with clock.turn(), meter.phase("load"):
            weights = _first_weights(own, settings[0], made, device)
            optimizer = _optimizer(own.optimizer, weights)
        check_gradient(own.train, made.problem, optimizer)
        logger = Afterwards(build(own.logger, "logger"))
        its = made._replace(trainable=list(weights.items()), base=None)
        work = recorded(folder, own, its, optimizer, meter, logger)
        members.append(Member(clock, weights, optimizer, work))
    if not made.problem.differentiable:
        raise UserError("pack_runs: this task's loss is not one computation on tensors")
    rows = sum(own.optimizer.get("pack") or 1 for own in settings)
    try:
        batched = BatchedRuns[Place](
            made.model, [member.optimizer for member in members], max(rows, 2)
        )
    except ValueError as error:
        raise UserError(f"pack_runs: {error}") from error
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(closing(member.work))
        return _results(batched, made.model, members)


def _first_weights(
    own: RunSettings, first: RunSettings, made: Made, device: torch.device
) -> dict[str, torch.nn.Parameter]:
    """What trains, as the run alone would find it: drawn by its own tuning's seed."""
    model = made.model if own.tuning == first.tuning else tuned_of(own)[1]
    return copies_of(model, device)


def _optimizer(node: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ZOOptimizer:
    """The run's optimizer over its own weights; the batched step evaluates it."""
    alone = {key: value for key, value in node.items() if key != "pack"}
    optimizer = build_optimizer(alone, weights.items())
    if not isinstance(optimizer, ZOOptimizer):
        raise UserError("pack_runs: only zeroth-order optimizers step side by side")
    return optimizer


def _results(
    batched: BatchedRuns[Place], model: Any, members: Sequence[Member]
) -> list[dict[str, Any]]:
    """Let every run go on to its next step, take the steps together, and so on to the last."""
    wanted: dict[int, StepRequest] = {}
    results: dict[int, dict[str, Any]] = {}

    def go_on(number: int, go: Callable[[Any], StepRequest], value: object) -> None:
        """The run's turn: the model is its own until it wants its next step."""
        lend(model, members[number].weights)
        with members[number].clock.turn():
            try:
                wanted[number] = go(value)
            except StopIteration as stop:
                results[number] = stop.value

    def losses(places: Sequence[Place]) -> Any:
        for number, batch in places:
            wants[number].loss.count(batch)
        loss = wants[places[0][0]].loss.part
        return side_by_side([batch for _, batch in places], loss)

    def anchor(number: int, nth: int) -> Place:
        return number, wants[number].anchor(nth)

    for number, member in enumerate(members):
        go_on(number, member.work.send, None)
    while wanted:
        wants = {number: want.steps for number, want in wanted.items()}
        batches = {number: (number, want.batch) for number, want in wanted.items()}
        wanted.clear()
        begun = time.perf_counter()
        ends = batched.step(batches, losses, anchor)
        share = (time.perf_counter() - begun) / len(ends)
        for number, end in ends.items():
            members[number].clock.add(share)
            work = members[number].work
            go_on(number, work.throw if isinstance(end, Diverged) else work.send, end)
    return [results[number] for number in range(len(members))]


_SHARED = ("model", "task", "train", "evaluation", "budget", "device", "threads")


def sharing_key(settings: RunSettings) -> str | None:
    """What the settings share with those that they can be trained beside; None for none.

    A tuning's seed may differ, since it draws the first values of what trains. Left to itself is a
    run that counts seconds, evaluates batches in parts, looks at gradients or captures its steps.
    """
    in_parts = settings.train.micro_batch_size
    if settings.budget.steps is None or in_parts or settings.diagnose.every:
        return None
    if settings.optimizer.get("graph"):
        return None
    shared = {part: settings.plain[part] for part in _SHARED}
    shared["tuning"] = {k: v for k, v in settings.tuning.items() if k != "seed"}
    return json.dumps(canonical(shared), sort_keys=True)
