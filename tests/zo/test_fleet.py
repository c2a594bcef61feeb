"""Runs side by side are the runs alone: same noise, same records, losses equal to rounding."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.small_models import MASKED, small_model
from zobench.build import build, build_optimizer
from zobench.interface import Interface
from zobench.models.loaded import LoadedModel
from zobench.schema import composed
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.side_by_side import side_by_side
from zobench.zo.fleet import Fleet, copies_of
from zobench.zo.ledger import Record

CPU = torch.device("cpu")
STEPS = 5
LONGEST = 14


@functools.cache
def settings(tuning: str, method: str, *more: str) -> dict[str, Any]:
    task = ("task=random_tokens", "task.length=12")
    return composed(*task, f"tuning={tuning}", f"optimizer={method}", *more)


@dataclass
class Subject:
    """A small model, tuned some way, and a problem of it."""

    kind: str
    tuning: str
    model: Any = field(init=False)
    problem: ChoiceProblem = field(init=False)

    def __post_init__(self) -> None:
        node = settings(self.tuning, "mezo")
        self.model = build(node["tuning"])(small_model(self.kind)).eval()
        interface = Interface.MASKED if self.kind in MASKED else Interface.CAUSAL
        loaded = LoadedModel(self.model, None, interface)
        self.problem = build(node["task"]).prepare(loaded, CPU)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:  # LoRA's B begins at zero
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))

    def batch(self, run: int, step: int, *, ragged: bool = True) -> Any:
        """Three examples, whose lengths and numbers of choices are the run's and step's own."""
        generator = torch.Generator().manual_seed(100 * run + step)
        examples = []
        for number in range(3):
            length = int(torch.randint(3, LONGEST, (), generator=generator)) if ragged else 12
            context = torch.randint(5, 300, (length,), generator=generator).tolist()
            choices = 2 + (run + number) % 2 * ragged
            targets = [(9 + k, *([20] * (run % 2))) for k in range(choices)]
            candidates = [Candidate((*context, *t[:-1]), t) for t in targets]
            examples.append(Encoded(tuple(candidates), number % 2))
        return self.problem.reading.batch(examples, CPU)

    def losses(self, batches: Sequence[Any]) -> Any:
        return side_by_side(batches, lambda batch: self.problem.loss(self.model, batch))

    def alone(self, run: "Run", steps: int = STEPS, *, ragged: bool = True) -> "Run":
        """The run by itself, on the model; the model's weights are put back."""
        first = [p.detach().clone() for p in self.model.parameters()]
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        optimizer = run.optimizer_over(trained)
        for step in range(steps):
            batch = self.batch(run.number, step, ragged=ragged)
            optimizer.step(functools.partial(self.problem.loss, self.model, batch))
            run.records.append(optimizer.record)
        run.ends = [p.detach().clone() for _, p in trained]
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), first, strict=True):
                parameter.copy_(value)
        return run

    def together(
        self, runs: Sequence["Run"], most: int = 64, steps: int = STEPS, *, ragged: bool = True
    ) -> list["Run"]:
        """The runs in one fleet."""
        copies = [copies_of(self.model) for _ in runs]
        members = [run.optimizer_over(own.items()) for run, own in zip(runs, copies, strict=True)]
        fleet = Fleet[Any](self.model, members, most)
        for step in range(steps):
            batches = {n: self.batch(run.number, step, ragged=ragged) for n, run in enumerate(runs)}
            ends = fleet.step(batches, self.losses)
            assert all(isinstance(end, float) for end in ends.values())
            for run, member in zip(runs, members, strict=True):
                run.records.append(member.record)
        for run, own in zip(runs, copies, strict=True):
            run.ends = [p.detach().clone() for p in own.values()]
        return list(runs)


@dataclass
class Run:
    """Settings of one run, and what became of it."""

    number: int
    method: str
    more: tuple[str, ...] = ()
    tuning: str = "lora"
    records: list[Any] = field(default_factory=list)
    ends: list[Tensor] = field(default_factory=list)
    optimizer: Any = None

    def optimizer_over(self, trained: Any) -> Any:
        rates = (f"optimizer.lr={1e-3 * (1 + self.number)}", f"seed={self.number}")
        rates += ("optimizer.eps=1e-2",)
        node = settings(self.tuning, self.method, *rates, *self.more)["optimizer"]
        self.optimizer = build_optimizer(node, trained)
        return self.optimizer


def near(one: Run, other: Run, rounding: float = 1e-5) -> None:
    """Records and last weights are the same but for rounding; rates and counts exactly."""
    for record, twin in zip(one.records, other.records, strict=True):
        assert isinstance(record, Record) and record.lr == twin.lr
        assert record.losses == pytest.approx(twin.losses, abs=rounding)
        assert len(record.coefficients) == len(twin.coefficients)
    for end, twin in zip(one.ends, other.ends, strict=True):
        torch.testing.assert_close(end, twin, rtol=0.0, atol=2e-4)
    assert one.optimizer.engine.forwards == other.optimizer.engine.forwards


METHODS = ["mezo", "ldsd_sgd", "loren", "conmezo"]


@pytest.mark.parametrize("kind", ["opt", "bert"])
@pytest.mark.parametrize("tuning", ["lora", "head"])
@pytest.mark.parametrize("method", METHODS)
def test_every_run_is_what_it_is_alone(method: str, tuning: str, kind: str) -> None:
    """Seeds, rates and batches differ, in length and number of choices; five steps are equal."""
    subject = Subject(kind, tuning)
    alone = [subject.alone(Run(n, method, tuning=tuning)) for n in range(3)]
    together = subject.together([Run(n, method, tuning=tuning) for n in range(3)])
    for one, other in zip(alone, together, strict=True):
        near(one, other)
        assert max(one.records[0].losses) - min(one.records[0].losses) > 1e-5
    assert together[0].records[0].losses != together[1].records[0].losses
