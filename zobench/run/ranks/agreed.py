"""What all ranks must hold alike: weights, when to stop, and what time it is."""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
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

_SIGN = 2**63  # fingerprints are unsigned, what is sent is not


class Apart(UserError):
    """The ranks' weights differ; `agreed` is the last step after which they did not."""

    def __init__(self, message: str, agreed: int) -> None:
        super().__init__(message)
        self.agreed = agreed


class Agreed:
    """Stands for a run's Stop and, where a budget is in seconds, for its Meter.

    A signal to any rank is only noted there; all ranks hear of it when they next meet, which is
    between two steps or two rounds of an evaluation. Time is the first rank's. What is trained is
    compared at evaluations, before checkpoints and every `ranks.check_every` steps.
    """

    def __init__(
        self,
        group: Group,
        stop: Stop,
        meter: Meter,
        trained: Sequence[tuple[str, Tensor]],
        check_every: int | None,
        seed: int,
    ) -> None:
        self.group, self._stop, self._meter = group, stop, meter
        self._weights = [tensor for _, tensor in trained]
        self._every, self._seed = check_every, seed
        self._name: str | None = None
        self._seconds = 0.0
        self._compared = 0
        stop.hold()

    @property
    def asked(self) -> bool:
        return self._name is not None

    def seconds(self, phase: str) -> float:
        """Of training, when the ranks last met."""
        assert phase == "train"
        return self._seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """As a Stop's."""
        yield
        self._leave()

    def meet(self, step: int, *, due: bool = False, compare: bool = False) -> bool:
        """After so many steps: hear of signals and of the time; whether a checkpoint is due.

        The weights are compared where that is asked for, and every so many steps. Raises Apart on
        all ranks where they differ.
        """
        microseconds = round(1e6 * self._meter.seconds("train"))
        met = self.group.words([_number(self._stop.name), microseconds, due])
        self._hear([number for number, *_ in met])
        self._seconds = met[0][1] / 1e6
        due = any(is_due for *_, is_due in met)
        regularly = self._every is not None and step % self._every == 0
        if regularly or due or compare:
            self._compare(step)
        if not self.group.first:
            seed_dropout(self._seed, step, self.group.rank)
        return due

    def map_over_ranks(self, find: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """As `map`, for items that stand alone: one for each rank in turn, found for all."""
        given, found = list(items), []
        size = self.group.size
        for at in range(0, len(given), size):
            mine = given[at + self.group.rank : at + self.group.rank + 1]
            own = [find(item) for item in mine]
            told = self.group.all((_number(self._stop.name), own))
            self._hear([number for number, _ in told])
            self._leave()
            found += [one for _, some in told for one in some]
        return found

    def _compare(self, step: int) -> None:
        if step == self._compared > 0:
            return
        all_of_them = [one for (one,) in self.group.words([fingerprint(self._weights) - _SIGN])]
        odd = [rank for rank, one in enumerate(all_of_them) if one != all_of_them[0]]
        if odd:
            raise Apart(
                f"after {step} steps the weights of rank {', '.join(map(str, odd))} are not those"
                f" of rank 0, as they were after {self._compared}: machines that do not calculate"
                " alike, or damaged memory. Launched again, the run goes on from there",
                self._compared,
            )
        self._compared = step

    def _hear(self, numbers: Sequence[int]) -> None:
        heard = [number for number in numbers if number]
        if heard:
            self._name = signal.Signals(heard[0]).name

    def _leave(self) -> None:
        if self._name is not None:
            raise Stopped(self._name)


def _number(name: str | None) -> int:
    return 0 if name is None else int(signal.Signals[name])


def check_ranks(model: Node, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError where one process alone can carry out the run."""
    if model.get("device_map") is not None:
        raise UserError("model.device_map: under torchrun each rank has one device; leave it out")
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
            f"sampler {name} draws from the activations of a batch, of which each rank sees a part;"
            " run it without torchrun"
        )


def check_alike(
    group: Group,
    settings: RunSettings,
    made_of: tuple[str, Inputs],
    sizes: Mapping[str, int],
    resume: ResumePoint,
) -> None:
    """Raise UserError on all ranks unless all have the same settings, weights, data and resume.

    made_of: the hash of the weights before training, and the files of data and model.
    """
    base, inputs = made_of
    parts = ("settings", "weights before training", "sizes of the data", "steps done before")
    names = (*parts, "files of data and model")
    done = (resume.start, resume.end)
    mine = (identity(settings.plain), base, dict(sizes), done, digests_in(inputs))
    for name, *values in zip(names, *group.all(mine), strict=True):
        odd = [rank for rank, value in enumerate(values) if value != values[0]]
        if odd:
            raise UserError(f"rank {', '.join(map(str, odd))}: its {name} are not those of rank 0")
