"""P-GAP: probes, the subspace of their mean estimate, and directions along it."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.probing import Probing
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import CLEAN, FIRST_PROBE, GRAD, PROBE, Key
from zobench.zo.low_rank import LowRank
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.gradient_subspace import GradientSubspace
from zobench.zo.space import Slot

CPU = torch.device("cpu")
M, N, H, EPS = 6, 8, 3, 1e-4
SHAPES = ((M, N), (2, 3, 4), (5,), (7, 1))


def optimizer_of(
    sampler: GradientSubspace, every: int = 4, lr: float = 1e-3, probes: int = H
) -> ZOOptimizer:
    generator = torch.Generator().manual_seed(0)
    parameters = [
        (f"w{i}", nn.Parameter(torch.randn(s, generator=generator).double()))
        for i, s in enumerate(SHAPES)
    ]
    return ZOOptimizer(
        parameters,
        lr=lr,
        eps=EPS,
        sampler=sampler,
        estimator=Probing(TwoSided(), every=every, probes=probes),
        rule=SGD(),
    )


def loss_of(optimizer: ZOOptimizer) -> float:
    flat = torch.cat([slot.flat for slot in optimizer.engine.slots])
    scale = torch.linspace(0.1, 2.0, len(flat), dtype=torch.float64)
    return float((scale * (flat - 0.5).square()).sum())


def gaussian(slot: Slot, key: Key) -> Tensor:
    return Drawn.normal(key, slot.id).draw(0, slot.numel, CPU).double()


def probed(optimizer: ZOOptimizer, slot: Slot) -> Tensor:
    """The mean probe estimate of the step just taken, from its losses and plain Gaussians."""
    losses, total = optimizer.engine.losses, torch.zeros(slot.numel).double()
    for k in range(H):
        coefficient = (losses[2 * k] - losses[2 * k + 1]) / (2 * EPS * H)
        total += coefficient * gaussian(slot, Key(0, optimizer.steps - 1, FIRST_PROBE + k))
    return total.view(slot.parameter.shape[0], -1)


@pytest.mark.parametrize("rank", [2, 128])
def test_the_bases_diagonalise_the_mean_probe_estimate(rank: int) -> None:
    """U^T G V is the diagonal of G's largest singular values, for every refresh and matrix."""
    optimizer = optimizer_of(GradientSubspace(rank=rank))
    for number in range(9):
        optimizer.step(partial(loss_of, optimizer))
        if number % 4:
            continue
        for slot in optimizer.engine.slots[:2]:
            u, s, v = (slot.buffers[n] for n in ("left_basis", "spectrum", "right_basis"))
            estimate = probed(optimizer, slot)
            assert len(s) == min(rank, *estimate.shape)
            torch.testing.assert_close(u.T @ estimate @ v, s.diag(), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(s, torch.linalg.svdvals(estimate)[: len(s)])
            for basis in (u, v):
                torch.testing.assert_close(basis.T @ basis, torch.eye(len(s)).double())


@pytest.mark.parametrize("delta", [0.0, 1.0, 9.0])
def test_the_share_along_the_spectrum_is_the_target(delta: float) -> None:
    """<diag(s), X> is +-sqrt(delta) |s|, both signs occur, and the rest of X is the Gaussian."""
    sampler = GradientSubspace(rank=3, delta=delta)
    optimizer = optimizer_of(sampler)
    optimizer.step(partial(loss_of, optimizer))
    slot, products = optimizer.engine.slots[0], []
    u, s, v = (slot.buffers[n] for n in ("left_basis", "spectrum", "right_basis"))
    for query in range(20):
        key = Key(0, 1, query)
        law = sampler.direction(slot, key)
        assert isinstance(law, LowRank)
        z = law.draw(0, slot.numel, CPU).view(M, N)
        core = u.T @ z @ v
        torch.testing.assert_close(u @ core @ v.T, z)
        products.append(float((s.diag() * core).sum() / s.norm()))
        noise = Drawn.normal(key, slot.id).draw(0, 9, CPU).double().view(3, 3)
        rest = core - noise
        along = (s @ rest.diagonal()) / s.square().sum()
        torch.testing.assert_close(rest, along * s.diag())
    size = math.sqrt(delta)
    assert [abs(product) for product in products] == pytest.approx([size] * 20, abs=1e-9)
    assert delta == 0.0 or {product > 0 for product in products} == {True, False}


def test_with_delta_one_the_subspace_is_isotropic() -> None:
    """E x x^T over the coordinates is the identity, to five errors: the default keeps the law's."""
    sampler, draws = GradientSubspace(rank=2), 4000
    optimizer = optimizer_of(sampler)
    optimizer.step(partial(loss_of, optimizer))
    projected = torch.empty(draws, 4).double()
    for query in range(draws):
        law = sampler.direction(optimizer.engine.slots[0], Key(0, 1, query))
        assert isinstance(law, LowRank)
        projected[query] = law.coordinates.flatten()
    error = projected.T @ projected / draws - torch.eye(4).double()
    assert float(error.abs().max()) < 5 * math.sqrt(2 / draws)


def test_probes_vectors_and_the_first_step_are_plain() -> None:
    """Plain Gaussian: everything before the first refresh, probes and vectors for ever."""
    sampler = GradientSubspace(rank=3)
    optimizer = optimizer_of(sampler)
    for number in range(3):
        for i, slot in enumerate(optimizer.engine.slots):
            own, probe = Key(0, number, 0), Key(0, number, FIRST_PROBE)
            assert sampler.direction(slot, probe) == Gaussian().direction(slot, probe)
            plain = sampler.direction(slot, own) == Gaussian().direction(slot, own)
            assert plain == (number == 0 or i >= 2)
        optimizer.step(partial(loss_of, optimizer))


def test_the_law_changes_between_steps_only() -> None:
    """A probing step is evaluated, restored and updated along the old law's directions."""
    sampler = GradientSubspace(rank=3)
    optimizer = optimizer_of(sampler, every=2, lr=1e-2)
    for number in range(5):
        slot = optimizer.engine.slots[0]
        law = sampler.direction(slot, Key(0, number, 0))
        assert law is not None
        z, before = law.draw(0, slot.numel, CPU).double(), slot.flat.clone()
        old = slot.buffers["spectrum"].clone()
        optimizer.step(partial(loss_of, optimizer))
        assert optimizer.record is not None and len(optimizer.record.coefficients) == 1
        expected = -1e-2 * optimizer.record.coefficients[0] * z
        torch.testing.assert_close(slot.flat - before, expected, rtol=1e-6, atol=1e-9)
        assert torch.equal(old, slot.buffers["spectrum"]) == (number % 2 == 1)


@pytest.mark.parametrize(("inner", "each"), [(TwoSided(), 2), (OneSided(queries=3), 4)])
def test_probes_are_paid_for(inner: TwoSided | OneSided, each: int) -> None:
    """Over a period the engine counts what is declared: the inner forwards, and 2 per probe."""
    estimator = Probing(inner, every=5, probes=4)
    assert estimator.directions == inner.directions + 4
    assert estimator.forwards == each + 8 / 5
    assert estimator.gives == {GRAD, PROBE} and CLEAN not in estimator.gives
    optimizer = optimizer_of(GradientSubspace(rank=2))
    optimizer.estimator = estimator
    counts = []
    for _ in range(10):
        before = optimizer.engine.forwards
        optimizer.step(partial(loss_of, optimizer))
        counts.append(optimizer.engine.forwards - before)
    assert counts == ([each + 8] + [each] * 4) * 2
    assert sum(counts) == pytest.approx(10 * estimator.forwards)


def test_a_flat_loss_teaches_nothing() -> None:
    """Probes without a difference leave the law as it is instead of dividing by zero."""
    sampler = GradientSubspace(rank=3)
    optimizer = optimizer_of(sampler, every=1)
    optimizer.step(lambda: 1.0)
    slot, key = optimizer.engine.slots[0], Key(0, 1, 0)
    assert sampler.direction(slot, key) == Gaussian().direction(slot, key)


def test_it_beats_plain_directions_where_the_gradient_has_low_rank() -> None:
    """On a quadratic of rank two the subspace reaches a third of the Gaussian's loss, same steps.

    The probes are many and the loss is free of noise: this shows the mechanism, not the method.
    """
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(side, 2, generator=generator).double() for side in (30, 20))
    target, ends = a @ b.T, {}
    for name, sampler in (("gaussian", Gaussian()), ("p_gap", GradientSubspace(rank=2))):
        best = math.inf
        for lr in (10.0, 30.0):
            weight = nn.Parameter(torch.zeros(30, 20).double())
            optimizer = ZOOptimizer(
                [("w", weight)],
                lr=lr,
                eps=1e-4,
                sampler=sampler,
                estimator=Probing(TwoSided(), every=25, probes=400),
                rule=SGD(),
            )

            def loss(weight: nn.Parameter = weight) -> float:
                left = (weight.detach() - target).T @ a
                return float(left.square().sum()) / float((target.T @ a).square().sum())

            for _ in range(50):
                optimizer.step(loss)
            final = loss()
            best = min(best, final if math.isfinite(final) else math.inf)
        ends[name] = best
    assert ends["p_gap"] < ends["gaussian"] / 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientSubspace(rank=0), r"sampler\.rank=0: must be at least 1"),
        (lambda: GradientSubspace(delta=-1.0), r"sampler\.delta=-1\.0: must not be negative"),
        (lambda: Probing(TwoSided(), every=0), r"estimator\.every=0: must be at least 1"),
        (lambda: Probing(TwoSided(), probes=0), r"estimator\.probes=0: must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    """In one sentence that names the key."""
    with pytest.raises(ValueError, match=message):
        make()


def test_an_estimator_without_probes_is_refused() -> None:
    """The law is learnt from probes, so that some estimator has to send them."""
    with pytest.raises(ValueError, match="GradientSubspace needs probe"):
        ZOOptimizer(
            [("w", nn.Parameter(torch.ones(2, 3)))],
            lr=0.1,
            eps=1e-3,
            sampler=GradientSubspace(),
            estimator=TwoSided(),
            rule=SGD(),
        )
