"""Acc-ZOM: where it looks back to, the corrected momentum, and its limits."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.recursive import Recursive
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.block_cycle import BlockCycle
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.previous_step import PreviousStep

CPU = torch.device("cpu")
SHAPES = {"a": (4, 3), "b": (5,), "c": (2, 2, 2)}
EPS, LR, BETA = 0.05, 0.03, 0.8
State = dict[str, Tensor]


def weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).double())
        for name, shape in SHAPES.items()
    }


def copies(parameters: dict[str, nn.Parameter]) -> State:
    return {name: p.detach().clone() for name, p in parameters.items()}


def loss_of(w: State | dict[str, nn.Parameter], batch: int) -> float:
    """Each batch pulls to a place of its own; not a quadratic, so slopes depend on the weights."""
    x = torch.cat([w[name].detach().flatten() for name in SHAPES])
    place = torch.sin(torch.arange(len(x), dtype=torch.float64) * (batch + 1))
    return float((0.5 * (x - place).square() + 0.1 * x.pow(4)).mean())


def linear(w: State | dict[str, nn.Parameter], batch: int) -> float:
    """A slope that is the same everywhere."""
    x = torch.cat([w[name].detach().flatten() for name in SHAPES])
    return float(torch.sin(torch.arange(len(x), dtype=torch.float64) * (batch + 1)) @ x)


def optimizer_of(
    parameters: dict[str, nn.Parameter],
    beta: float = BETA,
    *,
    sampler: Sampler | None = None,
    estimator: Estimator | None = None,
    rule: Rule | None = None,
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        lr=LR,
        eps=EPS,
        sampler=sampler or PreviousStep(),
        estimator=estimator or Recursive(beta=beta),
        rule=rule or Momentum(beta=beta),
    )


def z_of(optimizer: ZOOptimizer, step: int, query: int = 0) -> State:
    """The step's direction, dense."""
    out = {}
    for slot in optimizer.engine.slots:
        z = Drawn.normal(Key(0, step, query), slot.id).draw(0, slot.numel, CPU)
        out[slot.name] = z.double().view(slot.parameter.shape)
    return out


def plus(w: State, z: State, scale: float) -> State:
    return {name: w[name] + scale * z[name] for name in w}


def slope(w: State, z: State, batch: int) -> float:
    difference = loss_of(plus(w, z, EPS), batch) - loss_of(plus(w, z, -EPS), batch)
    return difference / (2 * EPS)


def momenta(optimizer: ZOOptimizer) -> State:
    return {
        s.name: s.buffers["momentum"].view(s.parameter.shape).clone()
        for s in optimizer.engine.slots
    }


def close(one: State, other: State) -> None:
    for name in SHAPES:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-12)


def test_it_looks_back_to_the_weights_before_the_last_step() -> None:
    """From the second step on the first pair is evaluated at the previous clean weights +- eps z,
    while the learning rate changes, and the second at today's; the first step has two directions.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters)
    before = copies(parameters)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = LR / (1 + step)
        clean = copies(parameters)
        points: list[State] = []

        def closure(points: list[State] = points, step: int = step) -> float:
            points.append(copies(parameters))
            return loss_of(parameters, step)

        optimizer.step(closure)
        z = z_of(optimizer, step)
        first = (clean, z) if step == 0 else (before, z)
        second = (clean, z_of(optimizer, step, 1) if step == 0 else z)
        expected = [plus(*pair, scale) for pair in (first, second) for scale in (EPS, -EPS)]
        assert len(points) == 4
        for point, where in zip(points, expected, strict=True):
            close(point, where)
        before = clean


def test_the_momentum_is_corrected_for_the_last_step() -> None:
    """m_t = g_t(w_t) + beta (m_{t-1} - g_t(w_{t-1})), w <- w - lr m, both g_t from one batch and
    direction; m_0 averages two directions: 12 steps with stored copies.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters)
    w = copies(parameters)
    before, m = w, w
    for step in range(12):
        lr = optimizer.param_groups[0]["lr"] = LR / (1 + step)
        loss = optimizer.step(partial(loss_of, parameters, step))
        z = z_of(optimizer, step)
        now = {name: slope(w, z, step) * z[name] for name in w}
        if step == 0:
            other = z_of(optimizer, step, 1)
            c = slope(w, other, step)
            m = {name: (now[name] + c * other[name]) / 2 for name in w}
        else:
            then = {name: slope(before, z, step) * z[name] for name in w}
            m = {name: now[name] + BETA * (m[name] - then[name]) for name in w}
        assert loss == pytest.approx(loss_of(w, step), abs=0.1)
        before, w = w, plus(w, m, -lr)
        close(momenta(optimizer), m)
        close(copies(parameters), w)


def test_without_beta_it_is_mezo_from_the_second_step_on() -> None:
    """beta = 0 has the steps of Gaussian x TwoSided x SGD, to float64 rounding: it keeps nothing of
    what it looks back for.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters, 0.0)
    optimizer.step(partial(loss_of, parameters, 0))
    twin = weights()
    with torch.no_grad():
        for name, p in twin.items():
            p.copy_(parameters[name])
    mezo = optimizer_of(twin, sampler=Gaussian(), estimator=TwoSided(), rule=SGD())
    mezo.steps = 1
    for step in range(1, 8):
        optimizer.step(partial(loss_of, parameters, step))
        mezo.step(partial(loss_of, twin, step))
        close(copies(parameters), copies(twin))


def test_on_a_linear_loss_it_is_the_damped_average() -> None:
    """Where slopes do not depend on the weights the correction is exactly -beta g_t, so that
    m_t = beta m_{t-1} + (1 - beta) g_t.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters)
    optimizer.step(partial(linear, parameters, 0))
    for step in range(1, 10):
        m = momenta(optimizer)
        optimizer.step(partial(linear, parameters, step))
        z = z_of(optimizer, step)
        c = linear(z, step)
        close(momenta(optimizer), {n: BETA * m[n] + (1 - BETA) * c * z[n] for n in m})


@pytest.mark.parametrize(
    "rule", [SGD, partial(Momentum, per_query=True), partial(Momentum, vectors=False)]
)
def test_rules_without_a_whole_momentum_are_refused(rule: Callable[[], Rule]) -> None:
    """What the last step moved must be the rule's momentum: one sentence says so."""
    with pytest.raises(ValueError, match="PreviousStep needs momentum") as caught:
        optimizer_of(weights(), rule=rule())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", [Gaussian, lambda: BlockCycle(PreviousStep())])
def test_a_sampler_without_the_previous_step_is_refused(sampler: Callable[[], Sampler]) -> None:
    """Recursive needs a way back: Gaussian has none, and momentum moves more than one block."""
    with pytest.raises(ValueError, match="Recursive needs previous step") as caught:
        optimizer_of(weights(), sampler=sampler())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("beta", [1.0, -0.1])
def test_impossible_betas_are_refused(beta: float) -> None:
    """beta must be in [0, 1)."""
    with pytest.raises(ValueError, match=r"estimator\.beta"):
        Recursive(beta=beta)
