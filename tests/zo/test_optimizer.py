"""What every combination of sampler, estimator and rule keeps."""

import contextlib
import functools
import io
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zobench.build import build
from zobench.methods import rows
from zobench.models.language_model import load
from zobench.schema import composed
from zobench.zo.directions import Drawn
from zobench.zo.engine import Diverged, Engine
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.svrg import SVRG
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import GRAD, MOVE, PLAIN, Feedback, Key
from zobench.zo.moves import Direction, Term
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes.apply import apply_moves
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import ReplayClass
from zobench.zo.samplers.block_cycle import BlockCycle
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.diagonal_hessian import DiagonalHessian
from zobench.zo.samplers.factored_hessian import FactoredHessian
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.hessian import Hessian
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.magnitude_mask import MagnitudeMask
from zobench.zo.samplers.rademacher import Rademacher
from zobench.zo.samplers.random_mask import RandomMask
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
from zobench.zo.samplers.sphere import Sphere
from zobench.zo.samplers.tensor_inclusion import TensorInclusion
from zobench.zo.samplers.tensor_subset import TensorSubset
from zobench.zo.space import Slot

SAMPLERS = [Gaussian, Rademacher, Sphere]
ESTIMATORS = [
    lambda: TwoSided(),
    lambda: TwoSided(queries=3),
    lambda: OneSided(),
    lambda: OneSided(queries=3),
]
RULES = [SGD, Momentum, Adam]
Build = Callable[..., ZOOptimizer]
ONE_QUERY = [TwoSided, OneSided]
VARIANTS: list[tuple[Callable[[], object], ...]] = [
    *itertools.product(SAMPLERS, ESTIMATORS, RULES),
    (lambda: Cone(steps=300), OneSided, Adam),
    (TensorInclusion, OneSided, Momentum),
    (lambda: TensorInclusion(variant="released"), TwoSided, SGD),
    (lambda: RankOneCurvature(eps=1e-3), RLOO, Adam),
    (lambda: RankOneCurvature(eps=1e-3, form="tiled"), RLOO, Momentum),
    (lambda: LearnedMean(gamma_mu=1e-2), BestOfK, Adam),
    (Gaussian, partial(BestOfK, choice="mean_top"), SGD),
    (Gaussian, partial(BestOfK, candidates=2, choice="mean_top"), SGD),
    (Gaussian, partial(BestOfK, choice="random"), SGD),
    (Gaussian, partial(BestOfK, variant="released"), SGD),
    (lambda: TensorSubset(Cone(steps=300), share=0.7), TwoSided, SGD),
    (lambda: DiagonalHessian(alpha=1e-3, variant="released"), ThreePoint, SGD),
    (lambda: FactoredHessian(alpha=1e-3), ThreePoint, Momentum),
    (lambda: MagnitudeMask(sparsity=0.5), OneSided, Adam),
    (lambda: RandomMask(resample=2), TwoSided, SGD),
    (lambda: BlockCycle(Gaussian(), order="random", blocks=2), TwoSided, Adam),
    (Gaussian, partial(SVRG, every=3, anchor_batches=2), SGD),
    (Sphere, partial(ForwardGradient, queries=2), Adam),
]


@functools.cache
def settings_of(row: str) -> Mapping[str, Any]:
    """The settings of `optimizer=row` on the tiny model."""
    node: Mapping[str, Any] = composed(f"optimizer={row}")["optimizer"]
    return node


def parts_of(row: str) -> tuple[Callable[[], object], ...]:
    """Makers of the row's sampler, estimator and rule; composing waits until they are called."""
    return tuple(
        lambda part=part: build(settings_of(row)[part]) for part in ("sampler", "estimator", "rule")
    )


def names(combination: tuple[Callable[[], object], ...]) -> str:
    """The combination as a test id."""
    return "-".join(type(make()).__name__ for make in combination)


COMBINATIONS = [
    *(pytest.param(parts_of(row), id=row) for row in rows()),
    *(pytest.param(c, id=names(c)) for c in VARIANTS),
]
each = pytest.mark.parametrize("combination", COMBINATIONS)


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small network whose tensors have odd sizes, a scalar shape and an untrained part."""
    generator = torch.Generator().manual_seed(0)
    layers = {"q_proj": nn.Linear(13, 37), "act": nn.Tanh(), "norm": nn.LayerNorm(37)}
    net = nn.Sequential(OrderedDict(layers | {"head": nn.Linear(37, 1)}))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    net[2].bias.requires_grad_(False)
    return net.to(dtype)


X = torch.randn(32, 13, generator=torch.Generator().manual_seed(1))
Y = X[:, :1] - 0.5 * X[:, 1:2]


def loss_of(net: nn.Module) -> Tensor:
    dtype = next(net.parameters()).dtype
    return torch.nn.functional.mse_loss(net(X.to(dtype)).float(), Y)


def optimizer_of(
    net: nn.Module, combination: tuple[object, ...], *, lr: float = 1e-3, seed: int = 0
) -> ZOOptimizer:
    sampler, estimator, rule = (make() for make in combination)  # type: ignore[operator]
    return ZOOptimizer(
        net.named_parameters(),
        lr=lr,
        eps=1e-3,
        seed=seed,
        sampler=sampler,
        estimator=estimator,
        rule=rule,
    )


def direction_of(optimizer: ZOOptimizer, slot: Slot, key: Key) -> Direction | None:
    """The sampler's direction for one slot."""
    return optimizer.engine.sampler.direction(slot, key)


def weights_of(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def step(optimizer: ZOOptimizer, net: nn.Module) -> float:
    """One step on the whole data, which is also every anchor batch."""
    return optimizer.step(lambda: loss_of(net), lambda _: loss_of(net))


def constant_step(optimizer: ZOOptimizer, net: nn.Module) -> float:
    """One step on a loss that is 1 everywhere, computed by way of the network."""
    return optimizer.step(lambda: 0 * loss_of(net) + 1, lambda _: 0 * loss_of(net) + 1)


@each
def test_it_learns(combination: tuple[object, ...]) -> None:
    """Within 200 steps the loss loses a quarter for some learning rate of a fixed ladder."""
    for lr in (1e-2, 3e-3, 1e-3, 3e-4, 3e-2, 0.1, 1e-5, 1e-6, 1.0, 10.0):
        net = network()
        optimizer = optimizer_of(net, combination, lr=lr)
        first = float(loss_of(net).detach())
        with contextlib.suppress(Diverged):
            for tens in range(20):
                for _ in range(10):
                    step(optimizer, net)
                now = float(loss_of(net).detach())
                if now < 0.75 * first:
                    return
                if tens >= 4 and now > 0.98 * first:
                    break  # too small a rate, or too large
    pytest.fail("no learning rate of the ladder worked")


@each
def test_two_runs_are_bit_identical_and_seeds_differ(combination: tuple[object, ...]) -> None:
    """Same seed, same bits; another seed, other weights."""
    results = []
    for seed in (5, 5, 6):
        net = network()
        optimizer = optimizer_of(net, combination, seed=seed)
        for _ in range(5):
            step(optimizer, net)
        results.append(torch.cat([w.flatten() for w in weights_of(net)]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@each
def test_a_step_leaves_no_trace_but_its_own(combination: tuple[object, ...]) -> None:
    """No .grad, no graph, torch's global generator alone; what is not trained keeps its bits."""
    net = network()
    optimizer = optimizer_of(net, combination)
    before = torch.get_rng_state()
    fixed = net.norm.bias.clone()  # type: ignore[union-attr, operator]

    def closure(n: int = 0) -> Tensor:
        del n
        assert torch.equal(net.norm.bias, fixed)  # type: ignore[union-attr, arg-type]
        loss = loss_of(net)
        assert not loss.requires_grad
        return loss

    for _ in range(2):
        optimizer.step(closure, closure)
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(net.norm.bias, fixed)  # type: ignore[union-attr, arg-type]


@each
def test_forwards_and_state_are_what_the_parts_declare(combination: tuple[object, ...]) -> None:
    """The closure is called, and the engine counts, as declared; so many bytes are kept, no more.

    A slope in forward mode is one call and two forwards.
    """
    net = network()
    optimizer = optimizer_of(net, combination, lr=1e-6)
    estimator, calls = optimizer.estimator, 0

    def closure(n: int = 0) -> Tensor:
        nonlocal calls
        del n
        calls += 1
        return loss_of(net)

    steps = 40 if estimator.forwards > 9 else 101
    steps = 12 if float(estimator.forwards).is_integer() else steps  # all steps cost the same
    for done in range(steps):
        optimizer.step(closure, closure)
        assert optimizer.engine.forwards == estimator.cost(done + 1)
    tangents = isinstance(estimator, ForwardGradient)
    assert estimator.cost(1000 * steps) == pytest.approx(estimator.forwards * 1000 * steps, 1e-3)
    assert calls * (2 if tangents else 1) == optimizer.engine.forwards
    parts = (optimizer.engine.sampler, estimator, optimizer.rule)
    for slot in optimizer.engine.slots:
        kept = sum(b.numel() * b.element_size() for b in slot.buffers.values())
        assert kept == sum(part.state_bytes(slot) for part in parts), slot.name


@pytest.mark.parametrize(
    ("make", "forwards"),
    [
        (TwoSided, 2),
        (partial(TwoSided, queries=3), 6),
        (OneSided, 2),
        (partial(OneSided, queries=3), 4),
        (partial(RLOO, queries=6), 6),
        (partial(BestOfK, candidates=5), 6),
        (partial(BestOfK, candidates=5, choice="random"), 6),
        (partial(BestOfK, candidates=5, choice="mean_top"), 7),
        (partial(BestOfK, candidates=5, variant="released"), 7),
    ],
)
def test_the_forwards_of_a_step_are_the_methods(
    make: Callable[[], TwoSided | OneSided | RLOO | BestOfK], forwards: int
) -> None:
    """Two-sided costs 2 q, one-sided q + 1, RLOO K, best of K K + 1, or K + 2 to look again."""
    assert make().forwards == forwards


@each
def test_replaying_the_records_gives_the_same_bits(combination: tuple[object, ...]) -> None:
    """Records alone rebuild weights and state, without data or a forward pass, or are refused."""
    net, copy = network(), network()
    optimizer, other = optimizer_of(net, combination), optimizer_of(copy, combination)
    for number in range(6):
        optimizer.param_groups[0]["lr"] = 1e-3 / (number + 1)
        step(optimizer, net)
        assert optimizer.record is not None
        if optimizer.engine.sampler.replay_class is ReplayClass.DATA:
            with pytest.raises(ValueError, match="cannot be replayed without the data"):
                other.replay(optimizer.record)
            return
        other.replay(optimizer.record)
    assert all(map(torch.equal, weights_of(net), weights_of(copy)))
    for mine, theirs in zip(optimizer.engine.slots, other.engine.slots, strict=True):
        assert mine.buffers.keys() == theirs.buffers.keys()
        assert all(torch.equal(mine.buffers[k], theirs.buffers[k]) for k in mine.buffers)
    assert other.engine.forwards == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each
def test_state_dict_continues_the_same_bits(
    combination: tuple[object, ...], dtype: torch.dtype
) -> None:
    """Saved to a file and loaded in the middle, a run ends with an uninterrupted one's bits."""
    net = network(dtype)
    optimizer = optimizer_of(net, combination)
    for _ in range(3):
        step(optimizer, net)
    copy = network(dtype)
    copy.load_state_dict(net.state_dict())
    other = optimizer_of(copy, combination)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        step(optimizer, net)
        step(other, copy)
    assert all(map(torch.equal, weights_of(net), weights_of(copy)))
    for mine, theirs in zip(optimizer.engine.slots, other.engine.slots, strict=True):
        assert mine.buffers.keys() == theirs.buffers.keys()
        assert all(torch.equal(mine.buffers[k], theirs.buffers[k]) for k in mine.buffers)
    assert other.engine.forwards == optimizer.engine.forwards


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), RuntimeError("out of memory")])
def test_a_failed_step_restores_the_weights(
    combination: tuple[object, ...], bad: float | Exception
) -> None:
    """A loss that is not finite, or a closure that raises, leaves the weights where they were."""
    net = network()
    optimizer = optimizer_of(net, combination)
    before = weights_of(net)
    last = min(2, round(optimizer.estimator.forwards))
    if isinstance(optimizer.estimator, ForwardGradient):
        last = 1
    calls = 0

    def closure(n: int = 0) -> Tensor:
        nonlocal calls
        del n
        calls += 1
        if calls < last:
            return loss_of(net)
        if isinstance(bad, Exception):
            raise bad
        return loss_of(net) * bad

    with pytest.raises(RuntimeError if isinstance(bad, Exception) else Diverged):
        optimizer.step(closure, closure)
    assert calls == last
    for now, then in zip(weights_of(net), before, strict=True):
        torch.testing.assert_close(now, then, rtol=1e-6, atol=1e-7)
    assert optimizer.steps == 0


@each
def test_a_direction_is_one_vector_for_a_whole_step(combination: tuple[object, ...]) -> None:
    """Whenever a step asks for z, for evaluation or update, it is the same; plain descent moves by
    -lr * sum of coefficient * z and by nothing else.
    """
    net = network()
    optimizer = optimizer_of(net, combination, lr=0.01)
    sampler = optimizer.engine.sampler
    direction = sampler.direction
    seen: dict[tuple[str, Key], Tensor | None] = {}

    def noted(slot: Slot, key: Key) -> Direction | None:
        z = direction(slot, key)
        drawn = None if z is None else z.draw(0, slot.numel, slot.parameter.device).clone()
        first = seen.setdefault((slot.name, key), drawn)
        assert (drawn is None) == (first is None)
        assert drawn is None or first is None or torch.equal(drawn, first)
        return z

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "direction", noted)
        for _ in range(4):
            seen.clear()
            clean = weights_of(net)
            feedback: list[Feedback] = []
            patch.setattr(optimizer.engine, "update", spying_on(optimizer.engine, feedback))
            step(optimizer, net)
            moved_plainly = PLAIN in optimizer.rule.gives and MOVE not in optimizer.estimator.gives
            if not moved_plainly or (isinstance(sampler, Hessian) and sampler.released):
                continue
            for slot, then in zip(optimizer.engine.slots, trained(net, clean), strict=True):
                grad = feedback[0].channels[GRAD]
                for key in grad:  # nobody has asked for those that one plan for all slots draws
                    if (slot.name, key) not in seen:
                        noted(slot, key)
                uses = [(c, seen[slot.name, k]) for k, c in grad.items()]
                step_z = [c * sampler.weight(slot) * z for c, z in uses if z is not None]
                expected = -0.01 * sum(step_z, torch.zeros(slot.numel))
                actual = slot.flat - then.flatten()
                size = 1e-5 + float(then.abs().max()) + float(expected.abs().max())
                torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-6 * size)


def trained(net: nn.Module, values: list[Tensor]) -> list[Tensor]:
    """Those of the values that belong to trained parameters."""
    return [v for p, v in zip(net.parameters(), values, strict=True) if p.requires_grad]


def spying_on(engine: Engine, notes: list[Feedback]) -> Callable[..., None]:
    """The engine's update, noting the feedback that it is given."""
    update = type(engine).update

    def noting(feedback: Feedback, rule: Rule, **more: Any) -> None:
        notes.append(feedback)
        update(engine, feedback, rule, **more)

    return noting


class Spy(Gaussian):
    """Keeps what it handed out, per slot and key, as full vectors."""

    def begin_step(self, step: int) -> None:
        super().begin_step(step)
        self.seen: dict[tuple[str, Key], list[Tensor]] = {}

    def direction(self, slot: Slot, key: Key) -> "Recorded":
        return Recorded(Drawn.normal(key, slot.id), self.seen.setdefault((slot.name, key), []))


class Recorded(Direction):
    """A direction that notes every vector it adds or draws; without a recipe, it always does."""

    def __init__(self, inner: Direction, notes: list[Tensor]) -> None:
        self.inner, self.notes = inner, notes

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        self.notes.append(self.inner.draw(start, out.numel(), out.device))
        self.inner.add_to(out, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        self.notes.append(self.inner.draw(start, count, device))
        return self.notes[-1].clone()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_z_of_the_update_is_the_z_of_the_evaluation(
    estimator: Callable[[], object], rule: type
) -> None:
    """Every time a step needs a direction it is the same vector, and the update uses just those.

    The displacement under plain descent must equal -lr * sum of coefficient * evaluated z.
    """
    net = network()
    optimizer = optimizer_of(net, (Spy, estimator, rule), lr=0.1)
    spy = optimizer.engine.sampler
    assert isinstance(spy, Spy)
    clean = weights_of(net)
    names = [n for n, _ in net.named_parameters()]
    points: list[list[Tensor]] = []

    def closure() -> float:
        points.append(weights_of(net))
        return float(loss_of(net).detach())

    optimizer.step(closure)
    assert optimizer.record is not None
    assert all(len(uses) >= 2 for uses in spy.seen.values())
    assert all(torch.equal(use, uses[0]) for uses in spy.seen.values() for use in uses)
    if rule is SGD:
        expected = {name: torch.zeros_like(w) for name, w in zip(names, clean, strict=True)}
        for query, coefficient in enumerate(optimizer.record.coefficients):
            for name in expected:
                uses = spy.seen.get((name, Key(0, 0, query)))
                if uses:
                    expected[name] -= 0.1 * coefficient * uses[0].view_as(expected[name])
        for name, then, now in zip(names, clean, weights_of(net), strict=True):
            torch.testing.assert_close(now - then, expected[name], rtol=1e-4, atol=1e-6)


def test_a_mezo_step_moves_the_weights_three_times() -> None:
    """+eps, -2 eps, then restore and update in one pass: each slot sees three moves, not four."""
    net = network()
    optimizer = optimizer_of(net, (Spy, TwoSided, SGD))
    optimizer.step(lambda: loss_of(net))
    assert isinstance(optimizer.engine.sampler, Spy)
    assert {len(uses) for uses in optimizer.engine.sampler.seen.values()} == {3}


@each
def test_zero_learning_rate_leaves_float32_weights(combination: tuple[object, ...]) -> None:
    """40 steps at learning rate 0 move float32 weights by rounding only (1e-6 relative)."""
    net = network()
    optimizer = optimizer_of(net, combination, lr=0.0)
    before = torch.cat([w.flatten() for w in weights_of(net)])
    for _ in range(40):
        constant_step(optimizer, net)
    after = torch.cat([w.flatten() for w in weights_of(net)])
    assert (after - before).norm() / before.norm() < 1e-6


@pytest.mark.parametrize("model", ["small network", "tiny"])
def test_zero_learning_rate_for_a_thousand_steps(model: str) -> None:
    """1,000 MeZO steps at learning rate 0 move float32 weights by less than 1e-6 relative."""
    net = load(path="zobench:tiny").model if model == "tiny" else network()
    optimizer = optimizer_of(net, (Gaussian, TwoSided, SGD), lr=0.0)
    before = torch.cat([w.flatten() for w in weights_of(net)])
    for _ in range(1000):
        optimizer.step(lambda: 1.0)
    after = torch.cat([w.flatten() for w in weights_of(net)])
    assert (after - before).norm() / before.norm() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each
def test_sixteen_bit_weights_keep_their_dtype_and_learn(
    combination: tuple[object, ...], dtype: torch.dtype
) -> None:
    """Storage stays 16 bit while arithmetic is float32: a move rounds the exact sum once."""
    net = network(dtype)
    optimizer = optimizer_of(net, combination)
    step(optimizer, net)
    assert {p.dtype for p in net.parameters()} == {dtype}
    drawn = [(s, direction_of(optimizer, s, Key(0, 0, 0))) for s in optimizer.engine.slots]
    slot, direction = next((s, z) for s, z in drawn if z is not None)
    stored = slot.rounding.widen(slot.flat, slice(0, slot.numel)).clone()
    apply_moves([slot.move([Term(direction, 0.25, -0.5)])])
    z = direction.draw(0, slot.numel, stored.device)
    exact = stored + 0.25 * z - 0.5 * z
    assert torch.equal(slot.flat, exact.to(dtype)) or torch.allclose(
        slot.flat.float(), exact, rtol=2 ** -(7 if dtype is torch.bfloat16 else 10), atol=0
    )


@each
def test_float64_weights_keep_float64_state(combination: tuple[object, ...]) -> None:
    """Double precision stays double in weights and in the rule's state."""
    net = network(torch.float64)
    optimizer = optimizer_of(net, combination)
    for _ in range(2):
        step(optimizer, net)
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    buffers = [b for slot in optimizer.engine.slots for b in slot.buffers.values()]
    assert {b.dtype for b in buffers} <= {torch.float64, torch.uint8}


@pytest.mark.laws
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("estimator", [TwoSided, OneSided])
def test_the_estimate_is_unbiased_on_a_quadratic(sampler: type, estimator: type) -> None:
    """E[c z] is the gradient: on a quadratic, within five Monte-Carlo standard errors."""
    d, draws = 24, 4000
    curvature = torch.linspace(0.1, 3.0, d, dtype=torch.float64)
    weight = nn.Parameter(torch.linspace(-1, 1, d, dtype=torch.float64))
    start = weight.detach().clone()
    gradient = curvature * start
    samples = torch.empty(draws, d, dtype=torch.float64)
    optimizer = ZOOptimizer(
        [("w", weight)],
        lr=1.0,
        eps=1e-5,
        sampler=sampler(),
        estimator=estimator(),
        rule=SGD(),
    )
    for draw in range(draws):
        with torch.no_grad():
            weight.copy_(start)
        optimizer.step(lambda: 0.5 * (curvature * weight.square()).sum())
        samples[draw] = start - weight.detach()
    error = samples.mean(0) - gradient
    standard = samples.std(0) / draws**0.5
    assert (error.abs() < 5 * standard + 1e-3).all()
    assert standard.max() < 0.2 * gradient.abs().max()


def test_queries_average_and_cost_no_memory() -> None:
    """q queries have the variance of one divided by q; what is kept is q numbers, no tensor."""
    net = network()
    optimizer = optimizer_of(net, (Gaussian, lambda: TwoSided(queries=8), SGD))
    optimizer.step(lambda: loss_of(net))
    assert optimizer.record is not None and len(optimizer.record.coefficients) == 8
    assert all(not slot.buffers for slot in optimizer.engine.slots)
    spread = {}
    for queries in (1, 8):
        norms = []
        for seed in range(200):
            weight = nn.Parameter(torch.ones(50, dtype=torch.float64))
            single = ZOOptimizer(
                [("w", weight)],
                lr=1.0,
                eps=1e-4,
                seed=seed,
                sampler=Gaussian(),
                estimator=TwoSided(queries=queries),
                rule=SGD(),
            )
            single.step(weight.sum)
            norms.append(float((weight.detach() - 0.0).square().sum()))
        spread[queries] = sum(norms) / len(norms)
    assert 4 < spread[1] / spread[8] < 16


def test_directions_depend_on_names_not_on_order() -> None:
    """Training fewer tensors, or listing them in another order, gives a tensor the same z."""
    net, other = network(), network()
    other[0].requires_grad_(False)  # type: ignore[index]
    whole = optimizer_of(net, (Gaussian, TwoSided, SGD))
    part = ZOOptimizer(
        reversed(list(other.named_parameters())),
        lr=0.0,
        eps=1e-3,
        sampler=Gaussian(),
        estimator=TwoSided(),
        rule=SGD(),
    )
    key = Key(0, 0, 0)
    mine = {s.name: whole.engine.sampler.direction(s, key) for s in whole.engine.slots}
    for slot in part.engine.slots:
        assert part.engine.sampler.direction(slot, key) == mine[slot.name]
    assert [s.name for s in part.engine.slots] != list(mine)


def test_tied_weights_are_one_slot() -> None:
    """A tensor with two names is perturbed once."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert len(optimizer_of(net, (Gaussian, TwoSided, SGD)).engine.slots) == 3


def test_sphere_has_norm_root_d() -> None:
    """Every sphere direction has length sqrt(d) over the whole model."""
    optimizer = optimizer_of(network(), (Sphere, TwoSided, SGD))
    optimizer.engine.sampler.begin_step(0)
    parts = []
    for slot in optimizer.engine.slots:
        direction = direction_of(optimizer, slot, Key(0, 0, 2))
        assert direction is not None
        parts.append(direction.draw(0, slot.numel, torch.device("cpu")))
    z = torch.cat(parts).double()
    assert abs(float(z.norm()) / len(z) ** 0.5 - 1) < 1e-6


def test_weight_decay_spares_vectors() -> None:
    """SGD decays matrices by 1 - lr * weight_decay and leaves biases and norms alone."""
    net = network()
    before = weights_of(net)
    optimizer = optimizer_of(net, (Gaussian, TwoSided, lambda: SGD(weight_decay=0.5)), lr=0.1)
    optimizer.step(lambda: 1.0)
    for parameter, then in zip(net.parameters(), before, strict=True):
        factor = 0.95 if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), then * factor, rtol=1e-5, atol=1e-6)


def test_adam_and_momentum_equal_torchs_on_the_same_estimate() -> None:
    """Fed with the estimate as .grad, torch's own optimizers take the same path."""
    for rule, reference in (
        (Momentum, lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)),
        (Adam, lambda p: torch.optim.Adam(p, lr=1e-2)),
    ):
        net, copy = network(), network()
        optimizer = optimizer_of(net, (Gaussian, TwoSided, rule), lr=1e-2)
        theirs = reference(copy.parameters())
        trained = {n: p for n, p in copy.named_parameters() if p.requires_grad}
        for step in range(5):
            optimizer.step(partial(loss_of, net))
            assert optimizer.record is not None
            for slot in optimizer.engine.slots:
                z = Drawn.normal((0, step, 0), slot.id)
                drawn = z.draw(0, slot.numel, torch.device("cpu"))
                grad = drawn.view(slot.parameter.shape) * optimizer.record.coefficients[0]
                trained[slot.name].grad = grad
            theirs.step()
        for a, b in zip(weights_of(net), weights_of(copy), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_torch_schedulers_see_the_learning_rate() -> None:
    """A torch learning-rate scheduler changes the step, and the record says which rate it was."""
    net = network()
    optimizer = optimizer_of(net, (Gaussian, TwoSided, SGD), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    rates = []
    for _ in range(3):
        optimizer.step(lambda: loss_of(net))
        schedule.step()
        assert optimizer.record is not None
        rates.append(optimizer.record.lr)
    assert rates == [0.5, 0.25, pytest.approx(1 / 6)]


class NeedsPolicy(Gaussian):
    """A sampler that learns from a channel no estimator here emits."""

    needs = frozenset({"policy"})


def bad_inputs() -> Iterator[tuple[Callable[[], object], str]]:
    """Constructions that must fail, with what the message must say."""
    net = network()
    yield lambda: optimizer_of(net, (NeedsPolicy, TwoSided, SGD)), "policy.*TwoSided"
    yield lambda: optimizer_of(net, (Gaussian, TwoSided, SGD), lr=-1.0), "lr=-1.0"
    yield lambda: optimizer_of(nn.Linear(2, 2).requires_grad_(False), VARIANTS[0]), "nothing"
    yield lambda: TwoSided(queries=0), "queries=0"
    yield lambda: Gaussian(law="rademacher"), "normal16 or normal"


@pytest.mark.parametrize("case", list(bad_inputs()), ids=lambda case: case[1])
def test_impossible_combinations_are_refused(case: tuple[Callable[[], object], str]) -> None:
    """What cannot work is a ValueError when it is put together, in one sentence."""
    with pytest.raises(ValueError, match=case[1]) as caught:
        case[0]()
    assert "\n" not in str(caught.value)
