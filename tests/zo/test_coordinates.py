"""Rules in coordinates: SubZero+, LOZO-M, TeZO-Adam and ZO-Muon against dense references."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.low_rank import LowRank
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.coordinates import InCoordinates
from zobench.zo.rules.lifted_adam import LiftedAdam
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.newton_schulz import NewtonSchulz
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.fixed_factors import FixedFactors
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.lazy_low_rank import LazyLowRank
from zobench.zo.samplers.left_projection import LeftProjection
from zobench.zo.samplers.subspace import Subspace
from zobench.zo.samplers.tensor_subset import TensorSubset
from zobench.zo.space import Slot

CPU = torch.device("cpu")
M, N, R, LR = 6, 8, 3, 0.05
SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "subspace": partial(Subspace, rank=R, refresh=3, haar=True),
    "lazy": partial(LazyLowRank, rank=R, refresh=3),
    "fixed": partial(FixedFactors, rank=R),
    "left": partial(LeftProjection, rank=R, refresh=3),
}


def optimizer_of(
    sampler: Sampler,
    estimator: Estimator,
    rule: Rule,
    shapes: tuple[tuple[int, ...], ...] = ((M, N),),
    dtype: torch.dtype = torch.float64,
) -> ZOOptimizer:
    generator = torch.Generator().manual_seed(0)
    parameters = [
        (f"w{i}", nn.Parameter(torch.randn(s, generator=generator).to(dtype)))
        for i, s in enumerate(shapes)
    ]
    return ZOOptimizer(
        parameters,
        arithmetic=Arithmetic(walk="inplace"),
        lr=LR,
        eps=1e-4,
        sampler=sampler,
        estimator=estimator,
        rule=rule,
    )


def loss_of(optimizer: ZOOptimizer) -> float:
    """A quadratic whose curvature differs from entry to entry."""
    flat = torch.cat([slot.flat for slot in optimizer.engine.slots]).double()
    scale = torch.linspace(0.1, 2.0, len(flat), dtype=torch.float64)
    return float((scale * (flat - 0.5).square()).sum())


def law_at(optimizer: ZOOptimizer, slot: Slot, query: int = 0) -> LowRank:
    """The direction of the step that was just taken."""
    key = Key(0, optimizer.steps - 1, query)
    law = optimizer.engine.sampler.direction(slot, key)
    assert isinstance(law, LowRank)
    return law


def steps(optimizer: ZOOptimizer, count: int) -> Iterator[tuple[Tensor, LowRank, Tensor]]:
    """Per step the coordinates of the estimate, the law and the move of the first matrix."""
    slot = optimizer.engine.slots[0]
    for _ in range(count):
        before = slot.flat.clone()
        optimizer.step(partial(loss_of, optimizer))
        assert optimizer.record is not None
        weight = optimizer.engine.sampler.weight(slot)
        laws = [law_at(optimizer, slot, q) for q in range(optimizer.estimator.directions)]
        pairs = zip(optimizer.record.coefficients, laws, strict=True)
        estimate = torch.stack([weight * c * law.coordinates for c, law in pairs]).sum(0)
        yield estimate, laws[0], (slot.flat - before).view(M, N)


close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_descent_in_coordinates_is_descent(name: str) -> None:
    """InCoordinates(SGD) takes SGD's path to rounding, over refreshes and with several queries."""
    ends = []
    for rule in (SGD(), InCoordinates(SGD())):
        optimizer = optimizer_of(
            SAMPLERS[name](), OneSided(queries=3), rule, ((M, N), (5,), (2, 9))
        )
        optimizer.param_groups[0]["lr"] = 1e-3
        for _ in range(8):
            optimizer.step(partial(loss_of, optimizer))
        ends.append(torch.cat([slot.flat for slot in optimizer.engine.slots]))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


def test_rank_one_on_a_scalar_core_is_a_scalar_rule() -> None:
    """With r = 1 the sign of one number decides: Adam's first step is lr times the lifted basis."""
    optimizer = optimizer_of(Subspace(rank=1), TwoSided(), InCoordinates(Adam(adam_eps=0.0)))
    [(estimate, law, move)] = steps(optimizer, 1)
    assert law.left is not None and law.right is not None
    close(move, -LR * estimate.sign() * math.sqrt(M * N) * law.left @ law.right.T)


def test_subzero_plus_is_adam_on_the_subspace_gradient() -> None:
    """Moments of the averaged r x r gradient; the step is lifted with SubZero's factor."""
    sampler = Subspace(rank=R, refresh=1000, haar=True)
    rule = InCoordinates(Adam(beta1=0.9, beta2=0.95))
    m = v = torch.zeros(R, R).double()
    trace = steps(optimizer_of(sampler, OneSided(queries=7), rule), 6)
    for t, (g, law, move) in enumerate(trace, 1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        coordinates = -LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        assert law.left is not None and law.right is not None
        close(move, math.sqrt(M * N) / R * law.left @ coordinates @ law.right.T)
        if t == 1:  # every coordinate moves by lr, and so does every weight on average
            assert float(move.square().mean().sqrt()) == pytest.approx(LR, rel=1e-3)


def test_lozo_m_carries_its_momentum_to_new_bases() -> None:
    """N <- beta N + (1 - beta) c U / r, and N V_old^T V_new / n first where V is new."""
    optimizer = optimizer_of(
        SAMPLERS["lazy"](), TwoSided(), InCoordinates(Momentum(beta=0.9, damped=True))
    )
    n = torch.zeros(M, R).double()
    old: Tensor | None = None
    for number, (g, law, move) in enumerate(steps(optimizer, 10)):
        assert law.right is not None and law.epoch == number - number % 3
        if old is not None and number % 3 == 0:
            assert not torch.equal(old, law.right)
            n = n @ old.T @ law.right / N
        old = law.right
        n = 0.9 * n + 0.1 * g
        close(move, -LR * n @ law.right.T)


def test_momentum_follows_subspaces_by_projection() -> None:
    """SubZero's coordinates become U_new^T U_old N V_old^T V_new, ZO-Muon's P_new^T P_old N."""
    for name in ("subspace", "left"):
        optimizer = optimizer_of(SAMPLERS[name](), TwoSided(), InCoordinates(Momentum()))
        full = torch.zeros(M, N).double()
        for g, law, move in steps(optimizer, 10):
            scale, left = law.scale, law.left
            assert left is not None
            full = left @ left.T @ full
            if law.right is not None:
                full = full @ law.right @ law.right.T
            lifted = law.with_coordinates(g).draw(0, M * N, CPU).view(M, N)
            full = 0.9 * full + lifted / scale
            close(move, -LR * scale * full)


def test_a_matrix_that_missed_the_refresh_is_carried_when_it_returns() -> None:
    """State is carried from the bases it was written in, however many refreshes ago they held."""
    inner = LazyLowRank(rank=R, refresh=2)
    optimizer = optimizer_of(
        TensorSubset(inner, share=0.5), TwoSided(), InCoordinates(Momentum()), ((M, N), (M, N))
    )
    states = [torch.zeros(M, R).double() for _ in range(2)]
    bases: list[Tensor | None] = [None, None]
    moved = set()
    for number in range(12):
        before = [slot.flat.clone() for slot in optimizer.engine.slots]
        optimizer.step(partial(loss_of, optimizer))
        assert optimizer.record is not None
        for i, slot in enumerate(optimizer.engine.slots):
            if torch.equal(before[i], slot.flat):
                continue
            moved.add((i, number))
            law, old = law_at(optimizer, slot), bases[i]
            assert law.right is not None
            if old is not None and not torch.equal(old, law.right):
                states[i] = states[i] @ old.T @ law.right / N
            bases[i] = law.right
            states[i] = 0.9 * states[i] + optimizer.record.coefficients[0] * law.coordinates / R
            close(slot.flat - before[i], (-LR * states[i] @ law.right.T).reshape(-1))
    missed = [{number for i, number in moved if i == slot} for slot in range(2)]
    assert any({k, k + 1}.isdisjoint(m) for m in missed for k in range(2, 10, 2))


def test_tezo_adam_lifts_both_moments() -> None:
    """W <- W - lr M / (sqrt(V) + eps), M = U m V^T and V = (U*U) v (V*V)^T, over r, corrected."""
    rule = LiftedAdam(vectors=SGD(), beta1=0.9, beta2=0.99)
    m = v = torch.zeros(R).double()
    trace = steps(optimizer_of(FixedFactors(rank=R), TwoSided(queries=2), rule), 6)
    for t, (g, law, move) in enumerate(trace, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        assert law.left is not None and law.right is not None
        mean = law.left @ m.diag() @ law.right.T / math.sqrt(R) / (1 - 0.9**t)
        square = law.left**2 @ v.diag() @ (law.right**2).T / R / (1 - 0.99**t)
        close(move, -LR * mean / (square.sqrt() + 1e-8))


def test_tezo_adam_of_rank_one_moves_by_the_sign() -> None:
    """With r = 1 the lifted quotient of the first step is sign(g u v^T): Adam's, entry by entry."""
    rule = LiftedAdam(vectors=SGD(), adam_eps=0.0)
    [(g, law, move)] = steps(optimizer_of(FixedFactors(rank=1), TwoSided(), rule), 1)
    assert law.left is not None and law.right is not None
    close(move, -LR * (g * law.left @ law.right.T).sign())


def test_zo_muon_orthogonalises_the_mean_coordinates() -> None:
    """W moves by -lr P NS(M): r singular values in the band around lr, columns inside P's span."""
    optimizer = optimizer_of(
        SAMPLERS["left"](), OneSided(queries=4), InCoordinates(NewtonSchulz(), vectors=SGD())
    )
    for g, law, move in steps(optimizer, 6):
        u, s, vh = torch.linalg.svd(g, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        assert law.left is not None
        close(move, -LR * law.left @ u @ s.diag() @ vh, atol=1e-8)
        values = torch.linalg.svdvals(move) / LR
        assert bool(((values[:R] > 0.6) & (values[:R] < 1.2)).all())
        assert float(values[R:].max()) < 1e-6


@pytest.mark.parametrize("make", [InCoordinates, LiftedAdam])
def test_vectors_have_their_own_rule_and_rate(make: Callable[..., Rule]) -> None:
    """A slot without coordinates moves by vector_lr * lr under the rule that is given for it."""
    ends = []
    for factor in (1.0, 0.25):
        parts = (Adam(), SGD())[make is LiftedAdam :]
        kwargs = {} if make is LiftedAdam else {"vectors": parts[1]}
        rule = make(parts[0], vector_lr=factor, **kwargs)
        optimizer = optimizer_of(Subspace(rank=R), TwoSided(), rule, ((M, N), (5,)))
        slot = optimizer.engine.slots[1]
        before = slot.flat.clone()
        optimizer.step(partial(loss_of, optimizer))
        assert optimizer.record is not None and not slot.buffers
        z = Drawn.normal(Key(0, 0, 0), slot.id).draw(0, 5, CPU).double()
        close(slot.flat - before, -factor * LR * optimizer.record.coefficients[0] * z)
        ends.append(slot.flat)
    assert not torch.equal(*ends)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "floats"),
    [
        (lambda: InCoordinates(Adam()), (2 * R * R, 10)),
        (lambda: InCoordinates(Momentum(), vectors=SGD()), (R * R, 0)),
        (lambda: InCoordinates(NewtonSchulz()), (0, 0)),
        (lambda: LiftedAdam(vectors=Adam()), (2 * R * R, 10)),
    ],
)
def test_state_has_the_size_of_the_coordinates(
    make: Callable[[], Rule], floats: tuple[int, int], dtype: torch.dtype
) -> None:
    """Nothing of a matrix's size is kept, and the bytes kept are those declared."""
    optimizer = optimizer_of(Subspace(rank=R), TwoSided(), make(), ((40, 50), (5,)), dtype)
    for _ in range(2):
        optimizer.step(partial(loss_of, optimizer))
    size = 8 if dtype == torch.float64 else 4
    for slot, count in zip(optimizer.engine.slots, floats, strict=True):
        declared = optimizer.rule.state_bytes(slot)
        kept = sum(buffer.nbytes for buffer in slot.buffers.values())
        assert declared == count * size
        assert kept == declared + optimizer.engine.sampler.state_bytes(slot)


def test_laws_without_coordinates_are_refused() -> None:
    """A Gaussian has none, which is said when the parts are put together."""
    with pytest.raises(ValueError, match="InCoordinates needs coordinates"):
        optimizer_of(Gaussian(), TwoSided(), InCoordinates(SGD()))
    with pytest.raises(ValueError, match=r"rule\.vector_lr=-1\.0: must not be negative"):
        InCoordinates(SGD(), vector_lr=-1.0)
    with pytest.raises(ValueError, match=r"rule\.beta1=1\.0, rule\.beta2=0\.9: must be in"):
        LiftedAdam(SGD(), beta1=1.0, beta2=0.9)
