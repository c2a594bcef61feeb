"""LOREN: the shaped noise against explicit matrices, the score against finite differences."""

import math

import pytest
import torch
from torch import Tensor, nn

from zobench.zo import noise
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.feedback import GRAD, POLICY, Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
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
        direction = sampler.direction(slot, KEY)
        z = direction.draw(0, slot.numel, CPU).double()
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
        middle = direction.draw(3, slot.numel - 5, CPU)
        torch.testing.assert_close(middle.double(), expected[3:-2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("form", "root"), FORMS)
def test_the_score_is_the_gradient_of_the_log_density(form: str, root: str) -> None:
    """Against central differences of log N(z; 0, H^-1) in a, to 1e-6 of its size."""
    sampler = sampler_of(form, root)
    optimizer = optimizer_of(sampler)
    sampler.begin_step(0)
    for slot in optimizer.engine.slots:
        a, acting, u = parts(slot, form)
        z = u @ half_inverse(acting, root).T

        def log_p(a: Tensor, z: Tensor = z) -> float:
            acting = a.repeat(z.shape[1] // len(a))
            eye = torch.eye(z.shape[1], dtype=torch.float64)
            h = RHO * eye + torch.outer(acting, acting)
            return float(0.5 * len(z) * torch.logdet(h) - 0.5 * (z @ h * z).sum())

        step = 1e-5
        numeric = torch.stack(
            [
                torch.tensor(log_p(a + step * e) - log_p(a - step * e)) / (2 * step)
                for e in torch.eye(len(a), dtype=torch.float64)
            ]
        ).double()
        if form == "tiled":
            numeric *= math.sqrt(RHO)
        score = sampler.score(slot, KEY)
        assert float((score - numeric).norm()) < 1e-6 * float(1 + numeric.norm())


def test_rloo_weights_are_the_leave_one_out_ones() -> None:
    """w_k = (F_k - mean of the others) / K, c_k = w_k / eps; K forwards."""
    losses = [0.5, 0.1, 0.4, 0.8]
    estimate = RLOO(queries=4).estimate(lambda q: Key(0, 0, q), 0.1)
    next(estimate)
    feedback = None
    try:
        for loss in losses:
            estimate.send(loss)
    except StopIteration as stop:
        feedback = stop.value
    assert feedback is not None
    for k, loss in enumerate(losses):
        others = [x for j, x in enumerate(losses) if j != k]
        weight = (loss - sum(others) / 3) / 4
        assert feedback.channels[POLICY][Key(0, 0, k)] == pytest.approx(weight)
        assert feedback.channels[GRAD][Key(0, 0, k)] == pytest.approx(weight / 0.1)


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
            expected = expected - 50.0 * 1e-6 * (c * 1e-3) * twin.score(theirs, Key(0, 0, k))
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
        assert torch.equal(plain.direction(slot, KEY).draw(0, slot.numel, CPU), u)
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
        order = [3, 0, 1, 2]  # the direction that the weights stand at is restored first
        groups = [[estimates[0][k]] for k in order] if per_query else [estimates[0]]
        for group in groups:
            momentum = 0.5 * momentum + sum(group)
            moved[matrix.name] -= 0.1 * momentum
        moved[vector.name] -= 0.1 * sum(estimates[1])
    for slot in (matrix, vector):
        torch.testing.assert_close(
            slot.flat - starts[slot.name], moved[slot.name], rtol=1e-4, atol=1e-6
        )
    assert "momentum" not in vector.buffers
