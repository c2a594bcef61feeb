"""JAGUAR's coordinate blocks, and the sign of their average."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sign_momentum import SignMomentum
from zobench.zo.samplers.coordinate_block import Block, CoordinateBlock

CPU = torch.device("cpu")
LR, EPS, BETA = 0.05, 1e-2, 0.75
SHAPES = {"a": (6, 5), "b": (6, 5), "c": (7,), "d": (2, 3, 4), "e": (1, 8), "f": (9, 1), "g": ()}


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def optimizer_of(parameters: dict[str, nn.Parameter], share: float) -> ZOOptimizer:
    return ZOOptimizer(
        parameters.items(),
        lr=LR,
        eps=EPS,
        sampler=CoordinateBlock(share=share),
        estimator=TwoSided(),
        rule=SignMomentum(beta=BETA),
    )


def blocks(optimizer: ZOOptimizer, step: int) -> dict[str, Tensor]:
    """The step's z, dense, as the matrices that the sampler sees."""
    out = {}
    for slot in optimizer.engine.slots:
        z = optimizer.engine.sampler.direction(slot, Key(0, step, 0))
        assert z is not None
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else slot.numel
        out[slot.name] = z.draw(0, slot.numel, CPU).view(rows, -1)
    return out


def loss_of(w: dict[str, Tensor] | dict[str, nn.Parameter]) -> Tensor:
    x = torch.cat([w[name].detach().flatten() for name in SHAPES])
    scale = torch.linspace(0.5, 2.0, len(x), dtype=torch.float64)
    return (scale * (0.5 * (x - 0.3).square() + 0.1 * x.pow(3))).sum()


@pytest.mark.parametrize(
    ("share", "sizes"),
    [
        (0.1, {"a": (1, 1), "c": (1, 1), "d": (1, 1), "e": (1, 1), "f": (1, 1), "g": (1, 1)}),
        (0.4, {"a": (2, 2), "c": (3, 1), "d": (1, 5), "e": (1, 3), "f": (4, 1), "g": (1, 1)}),
        (1.0, {"a": (6, 5), "c": (7, 1), "d": (2, 12), "e": (1, 8), "f": (9, 1), "g": (1, 1)}),
    ],
)
def test_a_block_is_that_share_of_rows_times_that_share_of_columns(
    share: float, sizes: dict[str, tuple[int, int]]
) -> None:
    """z is 1 where a chosen row and a chosen column meet, 0 elsewhere; at least one of each."""
    optimizer = optimizer_of(weights(), share)
    for step in range(20):
        z = blocks(optimizer, step)
        for name, (rows, columns) in sizes.items():
            row, column = z[name].amax(1), z[name].amax(0)
            assert torch.equal(z[name], torch.outer(row, column))
            assert (int(row.sum()), int(column.sum())) == (rows, columns)


def test_every_coordinate_is_equally_likely() -> None:
    """Over 1,000 steps each coordinate is in the block as often as any other, in five errors."""
    steps, optimizer = 1000, optimizer_of(weights(), 0.4)
    seen = {name: torch.zeros_like(z) for name, z in blocks(optimizer, 0).items()}
    for step in range(steps):
        for name, z in blocks(optimizer, step).items():
            seen[name] += z
    chances = {"a": 4 / 30, "b": 4 / 30, "c": 3 / 7, "d": 5 / 24, "e": 3 / 8, "f": 4 / 9, "g": 1.0}
    for name, p in chances.items():
        error = 5 * (steps * p * (1 - p)) ** 0.5
        assert float((seen[name] - steps * p).abs().max()) <= error


def test_equal_shapes_have_different_blocks() -> None:
    """Two tensors of one shape choose independently: they agree in about one step of 150."""
    optimizer = optimizer_of(weights(), 0.4)
    drawn = [blocks(optimizer, step) for step in range(40)]
    assert sum(torch.equal(z["a"], z["b"]) for z in drawn) < 5
    assert len({tuple(z["a"].flatten().tolist()) for z in drawn}) > 20


@given(
    st.data(),
    st.integers(1, 7),
    st.integers(1, 7),
    st.floats(-2, 2, width=32),
    st.floats(-2, 2, width=32),
)
def test_any_cut_adds_the_dense_direction(
    data: st.DataObject, height: int, width: int, first: float, second: float
) -> None:
    """A piece of the slot gets its piece of z, wherever it begins and ends."""
    rows = data.draw(st.sets(st.integers(0, height - 1), min_size=1))
    columns = data.draw(st.sets(st.integers(0, width - 1), min_size=1))
    start = data.draw(st.integers(0, height * width - 1))
    count = data.draw(st.integers(1, height * width - start))
    dense = torch.zeros(height, width)
    for i in rows:
        dense[i, list(columns)] = 1.0
    piece = dense.view(-1)[start : start + count]
    z = Block(torch.tensor(sorted(rows)), torch.tensor(sorted(columns)), width)
    assert torch.equal(z.draw(start, count, CPU), piece)
    base = torch.linspace(-1, 1, count)
    out = base.clone()
    z.add_to(out, start, first, second)
    assert torch.equal(out, (base + first * piece) + second * piece)


def test_jaguar_is_the_dense_recursion() -> None:
    """m_B <- beta m_B + (1 - beta) c on the block, w <- w - lr sign(m) everywhere, for 15 steps."""
    parameters = weights()
    optimizer = optimizer_of(parameters, 0.4)
    w = {name: p.detach().clone() for name, p in parameters.items()}
    m = {name: torch.zeros_like(p) for name, p in w.items()}
    for step in range(15):
        optimizer.step(partial(loss_of, parameters))
        z = {n: b.double().view(w[n].shape) for n, b in blocks(optimizer, step).items()}
        plus, minus = (float(loss_of({n: w[n] + s * EPS * z[n] for n in w})) for s in (1, -1))
        c = (plus - minus) / (2 * EPS)
        for n in w:
            m[n] = torch.where(z[n] == 1, BETA * m[n] + (1 - BETA) * c, m[n])
            w[n] = w[n] - LR * m[n].sign()
        for slot in optimizer.engine.slots:
            n, shape = slot.name, slot.parameter.shape
            kept = slot.buffers["sign_momentum"].view(shape)
            torch.testing.assert_close(kept, m[n], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(slot.parameter.detach(), w[n], rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", [loss_of, lambda _: torch.zeros(())], ids=["sloped", "flat"])
def test_untouched_entries_keep_their_average_and_touched_ones_decay(
    loss: Callable[[dict[str, nn.Parameter]], Tensor],
) -> None:
    """Outside the block m keeps its bits and still moves the weights by lr; inside it decays, also
    when the coefficient is 0.
    """
    parameters = weights()
    optimizer = optimizer_of(parameters, 0.4)
    for _ in range(6):
        optimizer.step(partial(loss_of, parameters))
    slots = optimizer.engine.slots
    m = {s.name: s.buffers["sign_momentum"].clone() for s in slots}
    w = {s.name: s.flat.clone() for s in slots}
    z = {name: block.view(-1) == 1 for name, block in blocks(optimizer, 6).items()}
    optimizer.step(partial(loss, parameters))
    assert optimizer.record is not None
    [c] = optimizer.record.coefficients
    outside = 0
    for s in slots:
        now, touched = s.buffers["sign_momentum"], z[s.name]
        assert torch.equal(now[~touched], m[s.name][~touched])
        torch.testing.assert_close(now[touched], BETA * m[s.name][touched] + (1 - BETA) * c)
        moved = s.flat - w[s.name]
        torch.testing.assert_close(moved, -LR * now.sign(), rtol=0, atol=1e-12)
        outside += int((moved[~touched] != 0).sum())
    assert outside > 10


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_impossible_shares_are_refused(share: float) -> None:
    """The share must be in (0, 1]."""
    with pytest.raises(ValueError, match=r"sampler\.share"):
        CoordinateBlock(share=share)
