"""State that all ranks must agree on: the weights, when to stop, and the time."""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.first_order.groups import LayersInTurn
from zobench.first_order.in_backward import InBackward
from zobench.run.base_model import seed_dropout
from zobench.run.inputs import Inputs, digests_in
from zobench.run.meter import Meter
from zobench.run.ranks.group import Group
from zobench.run.resume import ResumePoint
from zobench.run.stop import Stop, Stopped
from zobench.settings import Node, RunSettings, identity
from zobench.zo.fingerprint import fingerprint
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.samplers.base import ReplayClass

_SIGN = 2**63  # fingerprints are unsigned, sent numbers are signed


class WeightsDiffer(UserError):
    """The ranks' weights differ; `agreed` is the last step after which they were equal."""

    def __init__(self, message: str, agreed: int) -> None:
        super().__init__(message)
        self.agreed = agreed


@dataclass(eq=False)
class Agreed:
    """Replaces a run's Stop and, for a budget in seconds, its Meter.

    A rank that gets a signal only records it; all ranks learn of it when they next synchronize:
    between steps, or between rounds of an evaluation. The time is the first rank's. Trained weights
    are compared at evaluations, before checkpoints and every `ranks.check_every` steps.
    """

    group: Group
    stop: Stop
    meter: Meter
    trained: Sequence[tuple[str, Tensor]]
    check_every: int | None
    seed: int
    _name: str | None = field(default=None, init=False)
    _seconds: float = field(default=0.0, init=False)
    _compared: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.stop.hold()

    @property
    def requested(self) -> bool:
        return self._name is not None

    def seconds(self, phase: str) -> float:
        """Seconds of training at the last synchronization."""
        assert phase == "train"
        return self._seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise Stopped only at the end of the block."""
        yield
        self._raise_if_stopped()

    def synchronize(self, step: int, *, due: bool = False, compare: bool = False) -> bool:
        """Exchange signals, time and `due` after `step` steps; whether a checkpoint is due.

        Raises WeightsDiffer on all ranks if the weights are compared and differ.
        """
        microseconds = round(1e6 * self.meter.seconds("train"))
        rows = self.group.words([_number(self.stop.name), microseconds, due])
        self._note_signals([number for number, *_ in rows])
        self._seconds = rows[0][1] / 1e6
        due = any(is_due for *_, is_due in rows)
        regularly = self.check_every is not None and step % self.check_every == 0
        if regularly or due or compare:
            self._compare(step)
        if not self.group.first:
            seed_dropout(self.seed, step, self.group.rank)
        return due

    def map_over_ranks(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`map`, with the items distributed over the ranks; all ranks get all results."""
        inputs, results = list(items), []
        size = self.group.size
        for start in range(0, len(inputs), size):
            own = inputs[start + self.group.rank : start + self.group.rank + 1]
            answer = (_number(self.stop.name), [function(item) for item in own])
            answers = self.group.all(answer)
            self._note_signals([number for number, _ in answers])
            self._raise_if_stopped()
            results += [result for _, of_rank in answers for result in of_rank]
        return results

    def _compare(self, step: int) -> None:
        if step == self._compared > 0:
            return
        own = fingerprint(tensor for _, tensor in self.trained)
        hashes = [value for (value,) in self.group.words([own - _SIGN])]
        odd = [rank for rank, value in enumerate(hashes) if value != hashes[0]]
        if odd:
            raise WeightsDiffer(
                f"after {step} steps the weights of rank {', '.join(map(str, odd))} differ from"
                f" those of rank 0; after {self._compared} they were equal. The machines compute"
                " differently, or memory is damaged. The next launch resumes from there",
                self._compared,
            )
        self._compared = step

    def _note_signals(self, numbers: Sequence[int]) -> None:
        if received := [number for number in numbers if number]:
            self._name = signal.Signals(received[0]).name

    def _raise_if_stopped(self) -> None:
        if self._name is not None:
            raise Stopped(self._name)


def _number(name: str | None) -> int:
    return 0 if name is None else int(signal.Signals[name])


def check_ranks(model: Node, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError if the run cannot be split over ranks."""
    if model.get("device_map") is not None:
        raise UserError("model.device_map: under torchrun each rank has one device; leave it out")
    if model.get("offload") is not None:
        raise UserError("model.offload: under torchrun each rank has a whole model; leave it out")
    if isinstance(optimizer, InBackward):
        raise UserError(
            "optimizer: it moves weights inside the backward pass, before the ranks can average"
            " gradients; run it without torchrun"
        )
    if isinstance(optimizer, LayersInTurn):
        raise UserError(
            "optimizer: what trains changes, and torch's DistributedDataParallel averages the"
            " gradients of one set of tensors; run it without torchrun"
        )
    if not isinstance(optimizer, ZOOptimizer):
        return
    if optimizer.graph:
        raise UserError(
            "optimizer.graph=true: a captured step cannot wait for other ranks; set it to null, or"
            " run without torchrun"
        )
    if optimizer.engine.sampler.replay_class is ReplayClass.DATA:
        name = type(optimizer.engine.sampler).__name__
        raise UserError(
            f"sampler {name} draws from the activations of a batch, but each rank sees only a part"
            " of it; run it without torchrun"
        )
    if optimizer.estimator.by_example:
        raise UserError(
            f"estimator {type(optimizer.estimator).__name__} needs the loss of each example, and"
            " ranks share one of the batch; run it without torchrun"
        )


def check_alike(
    group: Group,
    settings: RunSettings,
    origin: tuple[str, Inputs],
    sizes: Mapping[str, int],
    resume: ResumePoint,
) -> None:
    """Raise UserError on all ranks unless settings, weights, data and resume points are equal.

    origin: the hash of the weights before training, and the files of data and model.
    """
    base, inputs = origin
    parts = ("settings", "weights before training", "sizes of the data", "steps done before")
    names = (*parts, "files of data and model")
    done = (resume.start, resume.end)
    own = (identity(settings.plain), base, dict(sizes), done, digests_in(inputs))
    for name, *values in zip(names, *group.all(own), strict=True):
        odd = [rank for rank, value in enumerate(values) if value != values[0]]
        if odd:
            raise UserError(f"rank {', '.join(map(str, odd))}: its {name} are not those of rank 0")
