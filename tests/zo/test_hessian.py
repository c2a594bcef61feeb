"""HiZOO and HiZOO-L: the recursions, the paper's and the released; what H learns; alpha = 0."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes import apply
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.diagonal_hessian import DiagonalHessian
from zobench.zo.samplers.factored_hessian import FactoredHessian
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.hessian import Hessian
from zobench.zo.space import Slot

CPU = torch.device("cpu")
SHAPES = {"matrix": (6, 4), "cube": (2, 3, 2), "vector": (5,), "column": (7, 1), "row": (1, 5)}
EPS, LR, ALPHA = 1e-3, 0.02, 0.2
State = dict[str, Tensor]
FORMS: list[type[Hessian]] = [DiagonalHessian, FactoredHessian]


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def loss_of(w: State | dict[str, nn.Parameter]) -> Tensor:
    """Curved differently everywhere, with a cubic term."""
    x = torch.cat([w[name].detach().double().flatten() for name in SHAPES])
    scale = torch.linspace(0.1, 1.0, len(x), dtype=torch.float64)
    return (scale * (0.5 * x.square() + 0.1 * x.pow(3))).sum()


def optimizer_of(
    parameters: dict[str, nn.Parameter],
    sampler: Sampler,
    estimator: Estimator | None = None,
    lr: float = LR,
) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        arithmetic=Arithmetic(walk="inplace"),
        lr=lr,
        eps=EPS,
        sampler=sampler,
        estimator=estimator or ThreePoint(),
        rule=SGD(),
    )


def noise_of(slots: list[Slot], step: int) -> State:
    """The step's u, shaped as the weights."""
    return {
        s.name: Drawn.normal(Key(0, step, 0), s.id)
        .draw(0, s.numel, CPU)
        .double()
        .view(s.parameter.shape)
        for s in slots
    }


class DenseDiagonal:
    """H of every tensor, whole."""

    def __init__(self) -> None:
        self.h = {n: torch.ones(s, dtype=torch.float64) for n, s in SHAPES.items()}

    def diagonal(self) -> State:
        return dict(self.h)

    def learn(self, u: State, kappa: float) -> None:
        for n, h in self.h.items():
            self.h[n] = (1 - ALPHA) * h + ALPHA * kappa * h * u[n].square()


class DenseFactored:
    """Row and column averages; vectors are one column, so their rows are their H."""

    def __init__(self) -> None:
        self.rows, self.columns = {}, {}
        for name, shape in SHAPES.items():
            self.rows[name] = torch.ones(shape[0], 1, dtype=torch.float64)
            self.columns[name] = torch.ones(1, math.prod(shape[1:]), dtype=torch.float64)

    def diagonal(self) -> State:
        return {
            n: (self.rows[n] @ self.columns[n] / self.rows[n].mean()).view(shape)
            for n, shape in SHAPES.items()
        }

    def learn(self, u: State, kappa: float) -> None:
        for n, h in self.diagonal().items():
            seen = (kappa * h * u[n].square()).view(len(self.rows[n]), -1)
            self.rows[n] = (1 - ALPHA) * self.rows[n] + ALPHA * seen.mean(1, keepdim=True)
            self.columns[n] = (1 - ALPHA) * self.columns[n] + ALPHA * seen.mean(0, keepdim=True)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("form", FORMS)
def test_the_steps_are_the_dense_recursion(form: type[Hessian], variant: str) -> None:
    """z = u / sqrt(H), H <- (1 - a) H + a kappa H u^2, w <- w - lr rho z for 10 steps; `released`
    evaluates with the old H and moves along u / sqrt(new H).
    """
    parameters = weights()
    optimizer = optimizer_of(parameters, form(alpha=ALPHA, variant=variant))
    reference = DenseDiagonal() if form is DiagonalHessian else DenseFactored()
    w = {name: p.detach().clone() for name, p in parameters.items()}
    for step in range(10):
        optimizer.step(partial(loss_of, parameters))
        u = noise_of(optimizer.engine.slots, step)  # type: ignore[arg-type]
        h = reference.diagonal()
        z = {n: u[n] / h[n].sqrt() for n in w}
        base, plus, minus = (
            float(loss_of({n: w[n] + s * EPS * z[n] for n in w})) for s in (0, 1, -1)
        )
        reference.learn(u, abs(plus + minus - 2 * base) / (2 * EPS**2))
        if variant == "released":
            z = {n: u[n] / reference.diagonal()[n].sqrt() for n in w}
        w = {n: w[n] - LR * (plus - minus) / (2 * EPS) * z[n] for n in w}
        assert optimizer.record is not None
        assert optimizer.record.losses == pytest.approx((base, plus, minus), rel=1e-12)
        sampler = optimizer.engine.sampler
        assert isinstance(sampler, Hessian)
        for slot in optimizer.engine.slots:
            learnt = sampler.diagonal(slot, 0, slot.numel).view(slot.parameter.shape)
            torch.testing.assert_close(learnt, reference.diagonal()[slot.name], rtol=1e-7, atol=0)
            torch.testing.assert_close(slot.parameter.detach(), w[slot.name], rtol=1e-8, atol=1e-10)
    spread = torch.cat([h.flatten() for h in reference.diagonal().values()])
    assert spread.min() < 0.5 and spread.max() > 1.5  # H has gone somewhere


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alpha_zero_is_mezo_bit_for_bit(
    form: type[Hessian], variant: str, dtype: torch.dtype
) -> None:
    """With alpha = 0 the path is that of Gaussian x TwoSided x SGD exactly: the clean loss is free
    of a walk, and the coefficient is the same expression of the same two losses.
    """
    ends = []
    pairs: list[tuple[Sampler, Estimator]] = [
        (Gaussian(), TwoSided()),
        (form(alpha=0.0, variant=variant), ThreePoint()),
    ]
    for sampler, estimator in pairs:
        parameters = weights(dtype)
        optimizer = optimizer_of(parameters, sampler, estimator)
        for _ in range(8):
            optimizer.step(partial(loss_of, parameters))
        ends.append([p.detach() for p in parameters.values()])
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize("form", FORMS)
def test_h_grows_where_the_curvature_is_larger(form: type[Hessian]) -> None:
    """One step from H = 1 on 0.5 sum d_i w_i^2 has E[H_i] = 1 - a + a (sum d / 2 + d_i), within
    five standard errors, and rows and columns have the means of that: what singles out a coordinate
    is its own curvature.
    """
    d, alpha, draws = torch.tensor([[0.0, 0.5], [1.0, 6.0]], dtype=torch.float64), 0.5, 2000
    w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = optimizer_of({"w": w}, form(alpha=alpha), lr=0.0)
    [slot] = optimizer.engine.slots
    samples: dict[str, list[Tensor]] = {name: [] for name in slot.buffers}
    for _ in range(draws):
        for buffer in slot.buffers.values():
            buffer.fill_(1.0)
        optimizer.step(lambda: 0.5 * (d * w.square()).sum())
        for name, buffer in slot.buffers.items():
            samples[name].append(buffer.clone())
    own = {"hessian": d.flatten(), "hessian_rows": d.mean(1), "hessian_columns": d.mean(0)}
    for name, values in samples.items():
        seen = torch.stack(values)
        error = seen.mean(0) - (1 - alpha + alpha * (d.sum() / 2 + own[name]))
        assert (error.abs() < 5 * seen.std(0) / draws**0.5).all()
        assert (seen.mean(0).diff() > 0).all()


@pytest.mark.parametrize("block", [1, 4, 9])
@pytest.mark.parametrize("form", FORMS)
def test_block_cuts_do_not_matter(
    form: type[Hessian], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H learnt in blocks of a few elements is H learnt at once, and any piece of it is its place in
    the whole.
    """
    learnt = []
    for size in (1 << 20, block):
        monkeypatch.setattr(apply, "BLOCK", size)
        sampler = form(alpha=ALPHA)
        slots = optimizer_of(weights(), sampler).engine.slots
        for step in range(4):
            for slot in slots:
                sampler.learn(slot, Key(0, step, 0), 0.7)
        learnt.append([sampler.diagonal(slot, 0, slot.numel).clone() for slot in slots])
        for slot, whole in zip(slots, learnt[-1], strict=True):
            for start in range(slot.numel):
                for stop in range(start + 1, slot.numel + 1):
                    assert torch.equal(sampler.diagonal(slot, start, stop), whole[start:stop])
    for one, other in zip(*learnt, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def test_the_means_of_the_factors_stay_equal() -> None:
    """mean(R) = mean(C) after every step, so that H's mean is theirs and neither runs away."""
    parameters = weights()
    optimizer = optimizer_of(parameters, sampler := FactoredHessian(alpha=ALPHA))
    for _ in range(12):
        optimizer.step(partial(loss_of, parameters))
        for slot in optimizer.engine.slots:
            if "hessian_columns" in slot.buffers:
                rows, columns = (slot.buffers[f"hessian_{n}"] for n in ("rows", "columns"))
                assert float(rows.mean()) == pytest.approx(float(columns.mean()), rel=1e-12)
                h = sampler.diagonal(slot, 0, slot.numel)
                assert float(h.mean()) == pytest.approx(float(rows.mean()), rel=1e-12)


@pytest.mark.parametrize("name", ["vector", "column", "row"])
def test_one_column_or_row_is_kept_whole(name: str) -> None:
    """A vector, a matrix of one column and one of one row learn the H of the diagonal form."""
    learnt = []
    makers: list[Callable[[], Hessian]] = [
        partial(DiagonalHessian, alpha=ALPHA),
        partial(FactoredHessian, alpha=ALPHA),
    ]
    for make in makers:
        sampler = make()
        slots = optimizer_of({name: weights()[name]}, sampler).engine.slots
        for step in range(5):
            sampler.learn(slots[0], Key(0, step, 0), 1.3)
        learnt.append(sampler.diagonal(slots[0], 0, slots[0].numel))
    torch.testing.assert_close(learnt[0], learnt[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "value"), [("alpha", 1.0), ("alpha", -0.1), ("variant", "code")])
def test_impossible_settings_are_refused(
    form: type[Hessian], name: str, value: float | str
) -> None:
    """alpha must be in [0, 1) and the variant one of the two."""
    with pytest.raises(ValueError, match=rf"sampler\.{name}={value}"):
        form(**{name: value})  # type: ignore[arg-type]


def test_an_estimator_without_curvature_is_refused() -> None:
    """HiZOO needs second differences: TwoSided is an error when the parts are joined."""
    with pytest.raises(ValueError, match=r"DiagonalHessian needs curvature.*TwoSided"):
        optimizer_of(weights(), DiagonalHessian(), TwoSided())
