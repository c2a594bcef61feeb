"""Runs side by side are the runs alone: same noise, same records, losses equal to rounding."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.small_models import MASKED, small_model
from zobench.build import build, build_optimizer
from zobench.interface import Interface
from zobench.models.loaded import LoadedModel
from zobench.schema import composed
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.side_by_side import side_by_side
from zobench.zo.batched_points import BranchesDiffer, SameBranch
from zobench.zo.batched_runs import BatchedRuns, copies_of
from zobench.zo.engine import Diverged
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.svrg import SVRG
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.ledger import Record
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.activation_basis import ActivationBasis
from zobench.zo.samplers.gaussian import Gaussian

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
        return self.problem.encoder.batch(examples, CPU)

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
        """The runs in one batch."""
        copies = [copies_of(self.model) for _ in runs]
        members = [run.optimizer_over(own.items()) for run, own in zip(runs, copies, strict=True)]
        batch = BatchedRuns[Any](self.model, members, most)
        for step in range(steps):
            batches = {n: self.batch(run.number, step, ragged=ragged) for n, run in enumerate(runs)}
            ends = batch.step(batches, self.losses)
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
        lr, seed = f"optimizer.lr={1e-3 * (1 + self.number)}", f"seed={self.number}"
        rates = (lr, seed, "optimizer.eps=1e-2")
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


@pytest.mark.parametrize("most", [2, 5])
def test_methods_that_ask_for_different_numbers_of_points_step_together(most: int) -> None:
    """Two, six and five and one; rows are cut into calls anywhere, and nothing depends on where."""
    subject = Subject("opt", "lora")
    alone = [subject.alone(Run(n, method), 3) for n, method in enumerate(METHODS)]
    batch = subject.together([Run(n, method) for n, method in enumerate(METHODS)], most, 3)
    for one, other in zip(alone, batch, strict=True):
        near(one, other)
    counts = {len(run.records[0].losses) for run in batch}
    assert {2, 6} <= counts


def test_batches_of_one_length_share_the_short_way() -> None:
    """Where no batch is padded the model looks at no mask, side by side as alone."""
    subject = Subject("opt", "lora")
    alone = [subject.alone(Run(n, "mezo"), 2, ragged=False) for n in range(2)]
    together = subject.together([Run(n, "mezo") for n in range(2)], steps=2, ragged=False)
    for one, other in zip(alone, together, strict=True):
        near(one, other)


def test_the_ledger_of_a_member_is_that_of_a_packed_run_and_its_state_goes_on_alone() -> None:
    """Replaying its records alone gives its weights bit for bit: noise and state are the run's."""
    subject = Subject("opt", "lora")
    runs = subject.together([Run(n, method) for n, method in enumerate(METHODS)], steps=3)
    for run in runs:
        own = copies_of(subject.model)
        again = Run(run.number, run.method).optimizer_over(own.items())
        for record in run.records:
            again.replay(record)
        for value, end in zip(own.values(), run.ends, strict=True):
            assert torch.equal(value, end)
        saved, state = run.optimizer.state_dict(), again.state_dict()
        assert saved["steps"] == state["steps"] == 3
        for name, buffers in saved["buffers"].items():
            assert all(torch.equal(buffers[k], state["buffers"][name][k]) for k in buffers)


def test_a_run_can_leave_its_batch() -> None:
    """Three steps side by side, then state and weights go to an optimizer alone: the lone run."""
    subject = Subject("opt", "head")
    for method in METHODS:
        whole = subject.alone(Run(1, method, tuning="head"))
        runs = [Run(n, method, tuning="head") for n in range(2)]
        begun = subject.together(runs, steps=3)[1]
        trained = [(n, p) for n, p in subject.model.named_parameters() if p.requires_grad]
        first = [p.detach().clone() for _, p in trained]
        last = Run(1, method, tuning="head")
        optimizer = last.optimizer_over(trained)
        optimizer.load_state_dict(begun.optimizer.state_dict())
        with torch.no_grad():
            for (_, parameter), end in zip(trained, begun.ends, strict=True):
                parameter.copy_(end)
            for step in range(3, STEPS):
                batch = subject.batch(1, step)
                optimizer.step(functools.partial(subject.problem.loss, subject.model, batch))
                last.records.append(optimizer.record)
            last.records = [*begun.records, *last.records]
            last.ends = [p.detach().clone() for _, p in trained]
            for (_, parameter), value in zip(trained, first, strict=True):
                parameter.copy_(value)
        near(whole, last)


class Line(nn.Module):
    """(w . x)^2 of inputs that each run has its own of."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1.0, 1.0, 7))
        self.calls = 0

    def losses(self, batches: Sequence[Tensor]) -> tuple[dict[str, Tensor], Callable[..., Tensor]]:
        self.calls += 1
        return {"x": torch.stack(list(batches))}, lambda row: (self.w @ row["x"]).square()


X = [torch.linspace(0.0, 1.0 + n, 7) for n in range(3)]


def optimizer_of(trained: Any, seed: int, estimator: Callable[[], Any] = TwoSided) -> Any:
    more: dict[str, Any] = {"lr": 1e-2, "eps": 1e-2, "rule": SGD(), "sampler": Gaussian()}
    return ZOOptimizer(trained, estimator=estimator(), seed=seed, **more)


def members_of(net: nn.Module, count: int, estimator: Callable[[], Any] = TwoSided) -> Any:
    copies = [copies_of(net) for _ in range(count)]
    return copies, [optimizer_of(own.items(), n, estimator) for n, own in enumerate(copies)]


def test_a_run_that_diverges_leaves_the_others_going() -> None:
    """It says why and makes no step; its weights are clean, and the others' are as without it."""
    net = Line()
    ends: list[Any] = []
    for bad in (X[1], X[1] * torch.nan):
        copies, members = members_of(net, 3)
        batch = BatchedRuns[Tensor](net, members, 8)
        found = batch.step({0: X[0], 1: bad, 2: X[2]}, net.losses)
        ends.append((found, copies, members))
    assert net.calls == 2  # of six points each
    (fine, good, _), (found, copies, members) = ends
    assert isinstance(found[1], Diverged) and "the loss is nan at step 0" in str(found[1])
    assert torch.equal(copies[1]["w"], net.w) and not torch.equal(good[1]["w"], net.w)
    assert [member.steps for member in members] == [1, 0, 1]
    for n in (0, 2):
        assert found[n] == fine[n] and torch.equal(copies[n]["w"], good[n]["w"])
    later = BatchedRuns[Tensor](net, members, 8).step({0: X[0], 2: X[2]}, net.losses)
    assert list(later) == [0, 2] and [member.steps for member in members] == [2, 0, 2]


def test_what_a_loss_raises_leaves_all_weights_clean() -> None:
    """The model's and every member's; the step can be taken again."""
    net = Line()
    copies, members = members_of(net, 2)
    batch = BatchedRuns[Tensor](net, members, 2)

    def broken(batches: Sequence[Tensor]) -> Any:
        raise KeyError(len(batches))

    with pytest.raises(KeyError):
        batch.step({0: X[0], 1: X[1]}, broken)
    assert all(torch.equal(own["w"], net.w) for own in copies)
    assert all(
        isinstance(end, float) for end in batch.step(dict(enumerate(X[:2])), net.losses).values()
    )


@pytest.mark.parametrize(
    "estimator", [ForwardGradient, lambda: SVRG(every=2, anchor_batches=2, anchor_factor=1)]
)
def test_slopes_and_other_batches_are_answered_as_alone(estimator: Callable[[], Any]) -> None:
    """A slope is found by itself; an anchor's batch is a row like any other."""
    net = Line()
    _, members = members_of(net, 2, estimator)
    batch = BatchedRuns[Tensor](net, members, 4)
    for _ in range(4):
        batch.step(dict(enumerate(X[:2])), net.losses, lambda member, n: X[member] * (1 + n))
    for number, member in enumerate(members):
        own = Line()
        alone = optimizer_of(own.named_parameters(), number, estimator)
        for _ in range(4):
            alone.step(
                lambda own=own, x=X[number]: (own.w @ x).square(),
                lambda n, own=own, x=X[number]: (own.w @ (x * (1 + n))).square(),
            )
        assert member.record.losses == pytest.approx(alone.record.losses, rel=1e-4)
        assert member.engine.forwards == alone.engine.forwards


def test_rows_that_go_two_ways_are_evaluated_in_two_calls() -> None:
    """A loss may look at its inputs: each row gets the value of its own way, in its own place."""
    net = Line()
    _, members = members_of(net, 3)
    signs = [torch.ones(7), -torch.ones(7), torch.full((7,), 2.0)]

    def losses(batches: Sequence[Tensor]) -> tuple[dict[str, Tensor], Callable[..., Tensor]]:
        def of_row(row: Any) -> Tensor:
            value = (net.w @ row["x"]).square()
            return value + 1.0 if row["x"].sum() > 0 else value + 5.0

        return {"x": torch.stack(list(batches))}, of_row

    found = BatchedRuns[Tensor](net, members, 8).step(dict(enumerate(signs)), losses)
    assert [int(value) // 5 for value in found.values() if isinstance(value, float)] == [0, 1, 0]
    with SameBranch(), pytest.raises(BranchesDiffer) as error:
        torch.func.vmap(lambda x: x if x > 0 else -x)(torch.tensor([1.0, -1.0]))
    assert error.value.conditions == [True, False]


def test_runs_that_cannot_be_batched_say_why() -> None:
    """One row at a time, other tensors, watching activations, a missing anchor."""
    net = Line()
    _, members = members_of(net, 2)
    with pytest.raises(ValueError, match="pack=1: a batch of runs evaluates at least 2"):
        BatchedRuns[Tensor](net, members, 1)
    with pytest.raises(ValueError, match="must train copies of the same tensors"):
        BatchedRuns[Tensor](nn.Linear(3, 3), members, 4)
    watching = ZOOptimizer(
        copies_of(nn.Linear(3, 3)).items(),
        lr=0.1,
        eps=0.1,
        sampler=ActivationBasis(),
        estimator=OneSided(),
        rule=SGD(),
    )
    with pytest.raises(ValueError, match="ActivationBasis watches the activations"):
        BatchedRuns[Tensor](nn.Linear(3, 3), [watching], 4)
    _, asking = members_of(net, 2, SVRG)
    with pytest.raises(ValueError, match="estimator SVRG evaluates other batches"):
        BatchedRuns[Tensor](net, asking, 4).step(dict(enumerate(X[:2])), net.losses)
