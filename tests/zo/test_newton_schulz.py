"""Orthogonalised steps: dense ZO-Muon and JAGUAR Muon against the plain formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn, stored
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.newton_schulz import NewtonSchulz, orthogonalised
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.space import Slot

CPU = torch.device("cpu")


def plain(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz on the singular values: each becomes a s + b s^3 + c s^5, again and again."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ s.diag() @ vh


class HalfRows(Sampler):
    """The Gaussian direction on every other row, the even ones in even steps; zero elsewhere."""

    def direction(self, slot: Slot, key: Key) -> Drawn:
        z = (
            Drawn.normal(key, slot.id)
            .draw(0, slot.numel, CPU)
            .double()
            .view(len(slot.flat) // 5, 5)
        )
        z[(key.step + 1) % 2 :: 2] = 0.0
        return stored(z.view(-1))


def optimizer_of(sampler: Sampler, rule: NewtonSchulz, *shape: int) -> ZOOptimizer:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(*shape, generator=generator).double())
    return ZOOptimizer(
        [("w", weight)],
        lr=0.1,
        eps=1e-3,
        sampler=sampler,
        estimator=TwoSided(queries=3),
        rule=rule,
    )


def step(optimizer: ZOOptimizer, flat: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """One step on a quadratic: the estimate, the mask of touched entries, the weights' move."""
    [slot] = optimizer.engine.slots
    before = slot.flat.clone()
    optimizer.step(lambda: 1.0 if flat else float((slot.flat - 2.0).square().sum()))
    assert optimizer.record is not None
    estimate = torch.zeros_like(before)
    touched = torch.zeros_like(before, dtype=torch.bool)
    for query, coefficient in enumerate(optimizer.record.coefficients):
        direction = optimizer.engine.sampler.direction(slot, Key(0, optimizer.steps - 1, query))
        assert direction is not None
        z = direction.draw(0, slot.numel, CPU).double()
        estimate += coefficient * z
        touched |= z != 0
    return estimate, touched, slot.flat - before


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6)], ids=str)
@pytest.mark.parametrize("iterations", [1, 5, 10])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_iteration_is_the_polynomial_of_the_singular_values(
    shape: tuple[int, int], iterations: int, size: float
) -> None:
    """Singular vectors stay, and a matrix's size does not matter."""
    matrix = size * torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(orthogonalised(matrix, iterations), plain(matrix, iterations))


def test_singular_values_come_near_one() -> None:
    """After five iterations all but tiny ones are in [0.68, 1.14]; a zero matrix stays zero."""
    generator = torch.Generator().manual_seed(2)
    for shape in ((8, 200), (200, 8), (5, 7)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=generator), 5))
        assert float(values.min()) > 0.68 and float(values.max()) < 1.14
    assert not orthogonalised(torch.zeros(3, 4), 5).any()


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (3, 2, 5)], ids=str)
def test_dense_zo_muon_is_the_formula(shape: tuple[int, ...]) -> None:
    """Each step is -lr NS(sum c z) on the (shape[0], rest) matrix, and nothing is kept."""
    optimizer = optimizer_of(Gaussian(), NewtonSchulz(), *shape)
    for _ in range(4):
        estimate, _, move = step(optimizer)
        expected = -0.1 * plain(estimate.view(shape[0], -1)).reshape(-1)
        torch.testing.assert_close(move, expected, rtol=1e-6, atol=1e-9)
    assert not optimizer.engine.slots[0].buffers


@pytest.mark.parametrize("vectors", ["sign", "plain"])
def test_vectors_move_by_sign_or_plainly(vectors: str) -> None:
    """A vector has no singular values: -lr sign(g), or -lr g."""
    optimizer = optimizer_of(Gaussian(), NewtonSchulz(vectors=vectors), 7)
    estimate, _, move = step(optimizer)
    expected = -0.1 * (estimate.sign() if vectors == "sign" else estimate)
    torch.testing.assert_close(move, expected)


def test_jaguar_averages_touched_entries_only() -> None:
    """m decays where a direction was, with coefficient 0 too, and keeps its bits elsewhere."""
    optimizer = optimizer_of(HalfRows(), NewtonSchulz(beta=0.75), 6, 5)
    [slot] = optimizer.engine.slots
    m = torch.zeros_like(slot.flat)
    for number in range(6):
        kept = slot.buffers.get("newton_schulz", m).clone()
        estimate, touched, move = step(optimizer, flat=number == 4)
        assert int(touched.sum()) == 15
        m = torch.where(touched, 0.75 * m + 0.25 * estimate, m)
        now = slot.buffers["newton_schulz"]
        torch.testing.assert_close(now, m, rtol=1e-6, atol=1e-9)
        assert torch.equal(now[~touched], kept[~touched]) and not torch.equal(now, kept)
        torch.testing.assert_close(
            move, -0.1 * plain(m.view(6, 5)).reshape(-1), rtol=1e-6, atol=1e-9
        )
    assert optimizer.rule.state_bytes(slot) == now.nbytes == 8 * 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NewtonSchulz(beta=1.0), r"rule\.beta=1\.0: must be in \[0, 1\)"),
        (lambda: NewtonSchulz(iterations=0), r"rule\.iterations=0: must be at least 1"),
        (lambda: NewtonSchulz(vectors="x"), r"rule\.vectors=x: choose sign or plain"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    """In one sentence that names the key."""
    with pytest.raises(ValueError, match=message):
        make()
