"""LOREN: the shaped noise against explicit matrices, the score against finite differences."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.zo.directions import z_of
from zobench.zo import noise
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.feedback import GRAD, POLICY, Key, Step
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
from zobench.zo.samplers.sphere import Sphere
from zobench.zo.space import Slot

CPU = torch.device("cpu")
RHO, KEY = 0.3, Key(0, 0, 2)
SHAPES = {"matrix": (5, 7), "vector": (11,), "kernel": (4, 2, 3)}
FORMS = [(form, root) for form in ("rows", "tiled") for root in ("principal", "reflection")]


def optimizer_of(sampler: RankOneCurvature, rule: object = None, lr: float = 0.0) -> ZOOptimizer:
    generator = torch.Generator().manual_seed(0)
    parameters = [
        (name, nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)))
        for name, shape in SHAPES.items()
    ]
    rule = rule or SGD()
    return ZOOptimizer(
        parameters,
        lr=lr,
        eps=1e-3,
        sampler=sampler,
        estimator=RLOO(queries=4),
        rule=rule,  # type: ignore[arg-type]
    )


def sampler_of(form: str, root: str, **settings: float) -> RankOneCurvature:
    return RankOneCurvature(eps=1e-3, rho=RHO, form=form, root=root, **settings)  # type: ignore[arg-type]


def parts(slot: Slot, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """a, the rank-one vector that acts on a row, and u as the rows that it acts on (float64)."""
    a = slot.buffers["curvature"].double()
    stream = noise.Stream(noise.mix(*KEY), slot.id)
    u = noise.draw(noise.Law.NORMAL16, stream, 0, slot.numel, CPU).double()
    rows = slot.numel // a.numel()
    acting = a.repeat(rows) if form == "tiled" else a
    return a, acting, u.view(-1, acting.numel())


def half_inverse(acting: Tensor, root: str) -> Tensor:
    """The root of (rho I + a a^T)^-1 that the form asks for, from its eigenvectors."""
    n = len(acting)
    unit = acting / acting.norm()
    along = math.sqrt(RHO + float(acting @ acting)) ** -1 * (1 if root == "principal" else -1)
    across = RHO**-0.5
    return across * torch.eye(n, dtype=torch.float64) + (along - across) * torch.outer(unit, unit)


@pytest.mark.parametrize(("form", "root"), FORMS)
def test_directions_are_the_root_of_the_inverse_times_noise(form: str, root: str) -> None:
    """z = H^{-1/2} u row by row (`rows`), sqrt(rho) H^{-1/2} u on the whole tensor (`tiled`)."""
    sampler = sampler_of(form, root)
    optimizer = optimizer_of(sampler)
    sampler.begin_step(0)
    for slot in optimizer.engine.slots:
        _, acting, u = parts(slot, form)
        matrix = half_inverse(acting, root)
        covariance = matrix @ matrix.T
        h = RHO * torch.eye(len(acting), dtype=torch.float64) + torch.outer(acting, acting)
        torch.testing.assert_close(covariance @ h, torch.eye(len(acting), dtype=torch.float64))
        scale = math.sqrt(RHO) if form == "tiled" else 1.0
        expected = scale * (u @ matrix.T).flatten()
        direction = z_of(sampler, slot, KEY)
        torch.testing.assert_close(direction.draw(0, slot.numel, CPU), expected)
        torch.testing.assert_close(direction.draw(3, slot.numel - 5, CPU), expected[3:-2])


@pytest.mark.parametrize(("form", "root"), FORMS)
def test_the_covariance_is_the_inverse_of_h(
    form: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed with unit vectors for u, z spans a root of H^-1, times rho for `tiled`, to 1e-12."""
    sampler = sampler_of(form, root)
    slots = optimizer_of(sampler).engine.slots
    axis = {noise.mix(0, 0, i): i for i in range(max(slot.numel for slot in slots))}

    def unit(
        law: noise.Law, stream: noise.Stream, start: int, count: int, device: torch.device
    ) -> Tensor:
        del law
        out = torch.zeros(count, dtype=torch.float64, device=device)
        if 0 <= (place := axis[stream.key] - start) < count:
            out[place] = 1.0
        return out

    for slot in slots:
        _, acting, u = parts(slot, form)
        h = RHO * torch.eye(len(acting), dtype=torch.float64) + torch.outer(acting, acting)
        inverse = torch.linalg.inv(h).contiguous() * (RHO if form == "tiled" else 1.0)
        expected = torch.kron(torch.eye(len(u), dtype=torch.float64), inverse)
        with monkeypatch.context() as patch:
            patch.setattr(noise, "draw", unit)
            sampler.begin_step(0)
            z = [
                z_of(sampler, slot, Key(0, 0, i)).draw(0, slot.numel, CPU)
                for i in range(slot.numel)
            ]
        matrix = torch.stack(z)
        torch.testing.assert_close(matrix.T @ matrix, expected, rtol=1e-12, atol=1e-12)


def score_of(sampler: RankOneCurvature, slot: Slot, key: Key) -> Tensor:
    """grad_a log p of a direction (`tiled`: times sqrt(rho))."""
    [laws] = sampler._laws
    place, (outer, energy) = sampler.slots.index(slot), sampler.score_sums(slot, {key: 1.0})
    inner = laws.inner[place] + laws.energy[place] * energy
    return laws.score[place] * (outer - inner * slot.buffers["curvature"])


def log_density(a: Tensor, z: Tensor) -> Tensor:
    """log N(z; 0, H^-1) of independent rows z, less its constant, for a complex `a` too."""
    acting = a.repeat(z.shape[1] // len(a))
    h = RHO * torch.eye(z.shape[1], dtype=a.dtype) + torch.outer(acting, acting)
    rows = z.to(a.dtype)
    return 0.5 * len(z) * torch.log(torch.linalg.det(h)) - 0.5 * (rows @ h * rows).sum()


@pytest.mark.parametrize(("form", "root"), FORMS)
def test_the_score_is_the_gradient_of_the_log_density(form: str, root: str) -> None:
    """Against the difference quotient of log N(z; 0, H^-1) in a, relative error below 1e-12.

    The step is imaginary, so that nothing cancels: Im f(a + i h e) / h is exact to O(h^2).
    """
    sampler = sampler_of(form, root)
    optimizer = optimizer_of(sampler)
    sampler.begin_step(0)
    for slot in optimizer.engine.slots:
        a, acting, u = parts(slot, form)
        z = u @ half_inverse(acting, root).T
        units = torch.eye(len(a), dtype=torch.complex128)
        numeric = torch.stack([log_density(a + 1e-20j * e, z).imag / 1e-20 for e in units])
        if form == "tiled":
            numeric *= math.sqrt(RHO)
        score = score_of(sampler, slot, KEY)
        assert score.dtype == torch.float64
        assert float((score - numeric).norm()) < 1e-12 * float(numeric.norm())


@pytest.mark.parametrize("form", ["rows", "tiled"])
def test_a_step_reads_nothing_back_to_the_host(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the losses no tensor becomes a Python number: the host never waits for a device.

    A sphere sampler, which measures a norm, shows that such reads are noticed.
    """
    reads: list[str] = []
    parameters = [(name, nn.Parameter(torch.ones(shape))) for name, shape in SHAPES.items()]
    samplers: list[Sampler] = [
        RankOneCurvature(eps=1e-3, rho=RHO, lr_cov=1.0, form=form),
        Sphere(),
    ]
    counts = []
    for sampler in samplers:
        optimizer = ZOOptimizer(
            parameters,
            lr=1e-3,
            eps=1e-3,
            sampler=sampler,
            estimator=RLOO(queries=4),
            rule=Momentum(vectors=False),
        )
        losses = iter([0.5, 0.1, 0.4, 0.8] * 3)
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__"):
                real = getattr(Tensor, name)

                def noted(tensor: Tensor, name: str = name, real: Any = real) -> object:
                    reads.append(name)
                    return real(tensor)

                patch.setattr(Tensor, name, noted)
            for _ in range(3):
                optimizer.step(lambda losses=losses: next(losses))  # type: ignore[misc]
        counts.append(len(reads))
    assert counts[0] == 0 < counts[1]


def rloo_weights(losses: list[float]) -> list[float]:
    """The policy channel for these losses."""
    estimate = RLOO(queries=len(losses)).estimate(Step(0, 0, 0.1))
    next(estimate)
    try:
        estimate.send(losses)
    except StopIteration as stop:
        return [stop.value.channels[POLICY][Key(0, 0, k)] for k in range(len(losses))]
    raise AssertionError("the estimator asked for more losses than it should")


def test_rloo_weights_are_the_leave_one_out_ones() -> None:
    """w_k = (F_k - mean of the others) / K, c_k = w_k / eps; K forwards."""
    losses = [0.5, 0.1, 0.4, 0.8]
    estimate = RLOO(queries=4).estimate(Step(0, 0, 0.1))
    next(estimate)
    feedback = None
    try:
        estimate.send(losses)
    except StopIteration as stop:
        feedback = stop.value
    assert feedback is not None
    for k, loss in enumerate(losses):
        others = [x for j, x in enumerate(losses) if j != k]
        weight = (loss - sum(others) / 3) / 4
        assert feedback.channels[POLICY][Key(0, 0, k)] == pytest.approx(weight)
        assert feedback.channels[GRAD][Key(0, 0, k)] == pytest.approx(weight / 0.1)


@given(
    losses=st.lists(st.floats(-10, 10), min_size=2, max_size=8),
    constant=st.floats(-100, 100),
)
def test_rloo_ignores_constants(losses: list[float], constant: float) -> None:
    """The weights sum to 0 and do not change when a constant is added to the loss."""
    weights = rloo_weights(losses)
    assert sum(weights) == pytest.approx(0, abs=1e-12)
    shifted = rloo_weights([loss + constant for loss in losses])
    assert shifted == pytest.approx(weights, abs=1e-10)


def test_two_queries_are_the_antisymmetric_pair() -> None:
    """K = 2: the estimate is (F_1 - F_2) (z_1 - z_2) / (2 eps)."""
    assert rloo_weights([0.7, 0.4]) == pytest.approx([0.15, -0.15])


@pytest.mark.laws
def test_rloo_is_unbiased_for_the_smoothed_loss() -> None:
    """For f = sum x^3 the mean estimate is 3 x^2 + 3 eps^2, which is not the gradient at x."""
    steps, eps = 6000, 1.0
    start = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
    x = nn.Parameter(start.clone())
    optimizer = ZOOptimizer(
        [("x", x)], lr=1.0, eps=eps, sampler=Gaussian(), estimator=RLOO(queries=6), rule=SGD()
    )
    samples = torch.empty(steps, 3, dtype=torch.float64)
    for step in range(steps):
        x.data.copy_(start)
        optimizer.step(lambda: float(x.detach().pow(3).sum()))
        samples[step] = start - x.detach()
    error = samples.std(0) / steps**0.5
    assert ((samples.mean(0) - 3 * start**2 - 3 * eps**2).abs() < 4 * error).all()
    assert (15 * error < 3 * eps**2).all()


@pytest.mark.parametrize("form", ["rows", "tiled"])
def test_the_vector_moves_by_all_scores_under_the_law_that_was_evaluated(form: str) -> None:
    """a <- a - lr_cov eps^2 sum_k w_k score_k, with a frozen until the last replay."""
    sampler = sampler_of(form, "principal", lr_cov=50.0)
    optimizer = optimizer_of(sampler)
    twin = sampler_of(form, "principal")
    copy = optimizer_of(twin)
    twin.begin_step(0)
    optimizer.step(lambda: float(sum(s.flat.square().sum() for s in optimizer.engine.slots)))
    assert optimizer.record is not None
    for mine, theirs in zip(optimizer.engine.slots, copy.engine.slots, strict=True):
        expected = theirs.buffers["curvature"].double()
        for k, c in enumerate(optimizer.record.coefficients):
            expected = expected - 50.0 * 1e-6 * (c * 1e-3) * score_of(twin, theirs, Key(0, 0, k))
        torch.testing.assert_close(mine.buffers["curvature"].double(), expected)


def test_controls() -> None:
    """lr_cov = 0 keeps a; a = 0, tiled, is plain Gaussian noise; one row vector a slot."""
    still = sampler_of("rows", "principal", lr_cov=0.0)
    optimizer = optimizer_of(still)
    before = [s.buffers["curvature"].clone() for s in optimizer.engine.slots]
    optimizer.step(lambda: float(sum(s.flat.square().sum() for s in optimizer.engine.slots)))
    for slot, then in zip(optimizer.engine.slots, before, strict=True):
        assert torch.equal(slot.buffers["curvature"], then)
    plain = RankOneCurvature(eps=1e-3, form="tiled", init="zero")
    optimizer = optimizer_of(plain)
    plain.begin_step(0)
    for slot in optimizer.engine.slots:
        stream = noise.Stream(noise.mix(*KEY), slot.id)
        u = noise.draw(noise.Law.NORMAL16, stream, 0, slot.numel, CPU)
        assert torch.equal(z_of(plain, slot, KEY).draw(0, slot.numel, CPU), u)
        assert list(slot.buffers) == ["curvature"]
    widths = [slot.buffers["curvature"].numel() for slot in optimizer.engine.slots]
    assert widths == [7, 11, 6]


@pytest.mark.parametrize("per_query", [False, True])
def test_momentum_per_query_decays_once_a_direction(per_query: bool) -> None:
    """Per step m <- beta m + sum g_k; per query m <- beta m + g_k, one after the other."""
    sampler = RankOneCurvature(eps=1e-3, form="tiled", init="zero")
    rule = Momentum(beta=0.5, per_query=per_query, vectors=False)
    optimizer = optimizer_of(sampler, rule, lr=0.1)
    matrix, vector, _ = optimizer.engine.slots
    starts = {s.name: s.flat.clone() for s in (matrix, vector)}
    moved = {s.name: torch.zeros(s.numel, dtype=torch.float64) for s in (matrix, vector)}
    momentum = torch.zeros(matrix.numel, dtype=torch.float64)
    for step in range(2):
        optimizer.step(lambda: float(sum(s.flat.square().sum() for s in optimizer.engine.slots)))
        assert optimizer.record is not None
        estimates = []
        for slot in (matrix, vector):
            keys = [noise.mix(0, step, k) for k in range(4)]
            u = [
                noise.draw(noise.Law.NORMAL16, noise.Stream(key, slot.id), 0, slot.numel, CPU)
                for key in keys
            ]
            pairs = zip(optimizer.record.coefficients, u, strict=True)
            estimates.append([c * x.double() for c, x in pairs])
        groups = [[one] for one in estimates[0]] if per_query else [estimates[0]]
        for group in groups:
            momentum = 0.5 * momentum + sum(group)
            moved[matrix.name] -= 0.1 * momentum
        moved[vector.name] -= 0.1 * sum(estimates[1])
    for slot in (matrix, vector):
        torch.testing.assert_close(
            slot.flat - starts[slot.name], moved[slot.name], rtol=1e-4, atol=1e-6
        )
    assert "momentum" not in vector.buffers


@pytest.mark.parametrize(("form", "momentum"), [("rows", True), ("rows", False), ("tiled", False)])
def test_state_is_a_vector_a_tensor_and_the_momentum_of_matrices(form: str, momentum: bool) -> None:
    """Without momentum LOREN is MeZO plus one row per tensor, in bytes; with it, plus matrices."""
    parameters = [(name, nn.Parameter(torch.ones(shape))) for name, shape in SHAPES.items()]
    optimizer = ZOOptimizer(
        parameters,
        lr=1e-3,
        eps=1e-3,
        sampler=RankOneCurvature(eps=1e-3, form=form),
        estimator=RLOO(),
        rule=Momentum(vectors=False) if momentum else SGD(),
    )
    for step in range(2):
        optimizer.step(lambda step=step: float(step))  # type: ignore[misc]
    state = sum(b.nbytes for slot in optimizer.engine.slots for b in slot.buffers.values())
    assert state == 4 * (7 + 11 + 6) + momentum * 4 * (5 * 7 + 4 * 2 * 3)


@pytest.mark.laws
@pytest.mark.parametrize(("lr_cov", "learns"), [(1e2, True), (1e-3, False)])
def test_the_vector_finds_the_stiff_shared_direction(lr_cov: float, learns: bool) -> None:
    """For a loss that is steep along X e, a turns to e; at the released lr_cov, 1e-3, it stays.

    The loss is 5 |X e|^2 + |X|^2 / 2 in units of eps, so that it varies by about 10 in a step. Then
    lr_cov must be around 1e2; with 1e-3 the vector moves by less than 1e-5 of its length.
    """
    eps = 1e-3
    e = torch.tensor([0.6, -0.3, 0.1, 0.5, -0.5], dtype=torch.float64)
    e /= e.norm()
    x = nn.Parameter(torch.zeros(6, 5, dtype=torch.float64))
    sampler = RankOneCurvature(eps=eps, lr_cov=lr_cov)
    optimizer = ZOOptimizer(
        [("x", x)], lr=0.0, eps=eps, sampler=sampler, estimator=RLOO(queries=10), rule=SGD()
    )

    def bowl() -> float:
        rows = x.detach() / eps
        return float(5.0 * (rows @ e).square().sum() + 0.5 * rows.square().sum())

    a = optimizer.engine.slots[0].buffers["curvature"]
    start = a.clone()
    for _ in range(1000 if learns else 100):
        optimizer.step(bowl)
    if learns:
        assert float((a @ e) ** 2 / (a @ a)) > 0.9
        assert sampler.metrics()["state_over_walk"] > 1.5
    else:
        assert 0.0 < float((a - start).norm() / start.norm()) < 1e-5
    assert float((start @ e) ** 2 / (start @ start)) < 0.5


@pytest.mark.parametrize("rule", [SGD, lambda: Momentum(vectors=False)])
def test_the_score_taken_in_the_update_is_the_score(
    rule: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors after three float32 steps, with threads 1 and 2, and with a pass of its own.

    Threads change no bit: sums belong to parts of a tensor, not to threads.
    """

    def trained(threads: int) -> list[Tensor]:
        weights = {
            "matrix": nn.Parameter(torch.linspace(-1, 1, 3100 * 1000).view(3100, 1000)),
            "vector": nn.Parameter(torch.linspace(-1, 1, 3000)),
        }
        sampler = RankOneCurvature(eps=1e-3, rho=RHO, lr_cov=1e3)
        optimizer = ZOOptimizer(
            weights.items(),
            lr=1e-6,
            eps=1e-3,
            sampler=sampler,
            estimator=RLOO(queries=2),
            rule=rule(),  # type: ignore[arg-type]
        )
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for _ in range(3):
                optimizer.step(lambda: 1e3 * math.sin(optimizer.engine.forwards))
        finally:
            torch.set_num_threads(usual)
        return [slot.buffers["curvature"] for slot in optimizer.engine.slots]

    one, two = trained(1), trained(2)
    monkeypatch.setattr(RankOneCurvature, "sums", Sampler.sums)
    apart = trained(2)
    for a, b, c in zip(one, two, apart, strict=True):
        assert torch.equal(a, b)
        assert float((a - c).norm()) < 1e-5 * float(a.norm())
