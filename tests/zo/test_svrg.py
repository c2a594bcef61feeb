"""MeZO-SVRG: the anchor from the log, the paper's update, the batches, the limit that is MeZO."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.estimators.svrg import SVRG
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.activation_basis import ActivationBasis
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.block_cycle import BlockCycle
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.diagonal_hessian import DiagonalHessian
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.magnitude_mask import MagnitudeMask
from zobench.zo.samplers.random_mask import RandomMask
from zobench.zo.samplers.sphere import Sphere
from zobench.zo.samplers.tensor_inclusion import TensorInclusion

SHAPES = {"h.0.weight": (4, 3), "h.0.bias": (3,), "h.1.weight": (2, 5), "head": (6,)}
EPS, LR, FACTOR = 0.05, 0.02, 7.0
State = dict[str, Tensor]
PAST: list[Callable[[], Sampler]] = [
    Gaussian,
    Sphere,
    partial(RandomMask, sparsity=0.5, resample=2),
    lambda: BlockCycle(Gaussian(), blocks=2),
    lambda: BlockCycle(Gaussian(), order="random"),
]


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def copies(parameters: dict[str, nn.Parameter]) -> State:
    return {name: p.detach().clone() for name, p in parameters.items()}


def loss_of(w: State | dict[str, nn.Parameter], batch: int) -> float:
    """Each batch pulls to a place of its own; not a quadratic, so slopes depend on the weights."""
    x = torch.cat([w[name].detach().double().flatten() for name in SHAPES])
    place = torch.sin(torch.arange(len(x), dtype=torch.float64) * (batch + 1))
    return float((0.5 * (x - place).square() + 0.1 * x.pow(4)).mean())


def optimizer_of(
    parameters: dict[str, nn.Parameter],
    estimator: SVRG | TwoSided,
    sampler: Sampler | None = None,
    rule: Rule | None = None,
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        arithmetic=Arithmetic(walk="inplace"),
        lr=LR,
        eps=EPS,
        sampler=sampler or Gaussian(),
        estimator=estimator,
        rule=rule or SGD(),
    )


def own(step: int) -> int:
    """The batch that the run hands to a step; anchors count theirs from 0."""
    return 1000 + step


def z_of(optimizer: ZOOptimizer, step: int) -> State:
    """The direction of the step that has just been taken, dense, 0 where a slot sat out."""
    out = {}
    for slot in optimizer.engine.slots:
        z = optimizer.engine.sampler.direction(slot, Key(0, step, 0))
        dense = torch.zeros(slot.numel, dtype=torch.float64)
        if z is not None:
            z.add_to(dense, 0, 1.0)
        out[slot.name] = dense.view(slot.parameter.shape)
    return out


def plus(w: State, z: State, scale: float) -> State:
    return {name: w[name] + scale * z[name] for name in w}


def slope(w: State, z: State, batches: range) -> float:
    """The central difference of the batches' mean loss."""
    both = (loss_of(plus(w, z, s * EPS), b) * s for b in batches for s in (1, -1))
    return sum(both) / len(batches) / (2 * EPS)


@pytest.mark.parametrize("make", PAST)
def test_the_update_is_the_papers_with_stored_copies(make: Callable[[], Sampler]) -> None:
    """Over three cycles, w - lr_1 g at an anchor and w - lr (g_I(w) - g_I(anchor) + g) between,
    with z, g and the anchor weights kept dense, while the learning rate changes.
    """
    parameters = weights()
    estimator = SVRG(every=4, anchor_batches=3, anchor_factor=FACTOR)
    optimizer = optimizer_of(parameters, estimator, make())
    w = copies(parameters)
    anchor, g = w, w
    for step in range(12):
        lr = optimizer.param_groups[0]["lr"] = LR / (1 + step)
        optimizer.step(partial(loss_of, parameters, own(step)), partial(loss_of, parameters))
        z = z_of(optimizer, step)
        if step % 4 == 0:
            c = slope(w, z, range(step // 4 * 3, step // 4 * 3 + 3))
            anchor, g = w, {name: c * z[name] for name in w}
            w = plus(w, g, -lr * FACTOR)
        else:
            batch = range(own(step), own(step) + 1)
            c = slope(w, z, batch) - slope(anchor, z, batch)
            w = plus(w, {name: c * z[name] + g[name] for name in w}, -lr)
        for name, p in parameters.items():
            torch.testing.assert_close(p.detach(), w[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", PAST)
def test_the_replayed_anchor_is_the_stored_one(make: Callable[[], Sampler]) -> None:
    """Between anchors the first pair is evaluated at the anchor weights +- eps z, to 1e-12, and the
    second at today's.
    """
    parameters = weights()
    optimizer = optimizer_of(
        parameters, SVRG(every=5, anchor_batches=2, anchor_factor=FACTOR), make()
    )
    anchor = copies(parameters)
    for step in range(15):
        clean = copies(parameters)
        points: list[State] = []

        def closure(n: int = 0, points: list[State] = points, step: int = step) -> float:
            points.append(copies(parameters))
            return loss_of(parameters, own(step) + n)

        optimizer.step(closure, closure)
        z, signs = z_of(optimizer, step), [1, -1, 1, -1]
        if step % 5 == 0:
            anchor, bases, signs = clean, [clean] * 4, [1, 1, -1, -1]
        else:
            bases = [anchor, anchor, clean, clean]
        assert len(points) == 4
        for point, base, sign in zip(points, bases, signs, strict=True):
            for name, expected in plus(base, z, sign * EPS).items():
                torch.testing.assert_close(point[name], expected, rtol=0, atol=1e-12)


def test_each_anchor_looks_at_its_own_batches() -> None:
    """An anchor asks for the next `anchor_batches` batches, all at +eps z, then all at -eps z; the
    steps between ask for none.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters, SVRG(every=3, anchor_batches=3))
    seen: list[list[int | None]] = []

    def note(n: int | None = None) -> float:
        seen[-1].append(n)
        return 1.0

    for _ in range(9):
        seen.append([])
        optimizer.step(note, note)
    between = [[None] * 4] * 2
    assert seen == [
        *([0, 1, 2, 0, 1, 2], *between),
        *([3, 4, 5, 3, 4, 5], *between),
        *([6, 7, 8, 6, 7, 8], *between),
    ]
    assert optimizer.engine.forwards == 42 == pytest.approx(9 * optimizer.estimator.forwards)
    costs = [optimizer.estimator.cost(steps) for steps in range(10)]
    assert costs == [0, 6, 10, 14, 20, 24, 28, 34, 38, 42]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_anchor_in_every_step_is_mezo_bit_for_bit(dtype: torch.dtype) -> None:
    """every = 1 with one anchor batch, the step's own, at MeZO's rate takes MeZO's path."""
    ends = []
    for estimator in (TwoSided(), SVRG(every=1, anchor_batches=1, anchor_factor=1.0)):
        parameters = weights(dtype)
        optimizer = optimizer_of(parameters, estimator)
        for step in range(8):
            optimizer.step(partial(loss_of, parameters, step), partial(loss_of, parameters))
        ends.append(copies(parameters))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in SHAPES)


@pytest.mark.parametrize(
    ("sampler", "refusal"),
    [
        (lambda: Cone(steps=10), "SVRG needs past directions.*Cone"),
        (MagnitudeMask, "SVRG needs past directions.*MagnitudeMask"),
        (TensorInclusion, "SVRG needs past directions.*TensorInclusion"),
        (lambda: BlockCycle(MagnitudeMask()), "SVRG needs past directions"),
        (ActivationBasis, "ActivationBasis needs clean point first"),
        (DiagonalHessian, "DiagonalHessian needs curvature"),
    ],
)
def test_samplers_whose_past_is_gone_are_refused(
    sampler: Callable[[], Sampler], refusal: str
) -> None:
    """A law that has changed since cannot take the weights back to the anchor: one sentence."""
    with pytest.raises(ValueError, match=refusal) as caught:
        optimizer_of(weights(), SVRG(), sampler())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rule", [Momentum, Adam, partial(SGD, weight_decay=0.1), partial(Momentum, beta=0.0)]
)
def test_rules_that_are_not_plain_descent_are_refused(rule: Callable[[], Rule]) -> None:
    """The log holds what -lr g moved, so a rule that moves otherwise is refused: one sentence."""
    with pytest.raises(ValueError, match="SVRG needs plain descent") as caught:
        optimizer_of(weights(), SVRG(), rule=rule())
    assert "\n" not in str(caught.value)


def test_a_step_without_anchor_batches_is_refused() -> None:
    """step(closure) alone is a ValueError in one sentence, and the weights are as before."""
    parameters = weights(torch.float32)
    before = copies(parameters)
    optimizer = optimizer_of(parameters, SVRG())
    with pytest.raises(ValueError, match=r"SVRG.*call step\(closure, anchor\)") as caught:
        optimizer.step(partial(loss_of, parameters, 0))
    assert "\n" not in str(caught.value)
    assert optimizer.steps == 0
    for name, then in before.items():
        torch.testing.assert_close(parameters[name].detach(), then, rtol=1e-6, atol=1e-7)


def test_a_failed_step_does_not_change_the_log() -> None:
    """A step that is repeated after a closure failed ends where it would have ended at once."""
    ends = []
    for failing in (False, True):
        parameters = weights()
        optimizer = optimizer_of(parameters, SVRG(every=4, anchor_batches=2))
        for step in range(6):
            left = 3 if failing else -1

            def closure(
                n: int = 0, step: int = step, w: dict[str, nn.Parameter] = parameters
            ) -> float:
                nonlocal left
                left -= 1
                if left == 0:
                    raise RuntimeError("out of memory")
                return loss_of(w, own(step) + n)

            if failing:
                with pytest.raises(RuntimeError):
                    optimizer.step(closure, closure)
            optimizer.step(closure, closure)
        ends.append(copies(parameters))
    for name in SHAPES:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["every", "anchor_batches"])
def test_impossible_settings_are_refused(name: str) -> None:
    """Both counts are at least 1."""
    with pytest.raises(ValueError, match=rf"estimator\.{name}=0"):
        SVRG(**{name: 0})
