"""Fused passes: what they compute is what torch computes block by block, on any storage."""

import itertools
import multiprocessing
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.directions import Drawn, stored
from zobench.zo.moves import Direction, Move, Recipe, StateUpdate, Term
from zobench.zo.noise import Law, Stream
from zobench.zo.passes import apply, drawing, fused
from zobench.zo.rounding import NEAREST, Mode, Rounding
from zobench.zo.rules.adam import Moments
from zobench.zo.rules.momentum import HeavyBall

HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float32, *HALVES)
ROWS, COLS = 37, 300  # neither a divisor of a block


def numbers(count: int, seed: int = 0, scale: float = 0.03) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * scale


def shaped(row: int = COLS) -> Direction:
    a = numbers(row, 5)
    return Drawn(Recipe(row=(a, 0.7 * a), row_scale=1.5), Stream(8, 1))


DIRECTIONS: dict[str, Callable[[int], Direction]] = {
    "normal16": lambda _: Drawn(Recipe(Law.NORMAL16, 2.0), Stream(3, 1)),
    "rademacher": lambda _: Drawn(Recipe(Law.RADEMACHER), Stream(4, 1)),
    "normal": lambda _: Drawn(Recipe(Law.NORMAL), Stream(5, 1)),
    "stored": lambda n: stored(numbers(n, 1), 0.3),
    "stored in 16 bits": lambda n: stored(numbers(n, 1).bfloat16(), 0.3),
    "around a mean": lambda n: Drawn(Recipe(vector=numbers(n, 2), sigma=0.5), Stream(6, 1)),
    "rows": lambda _: shaped(),
}


def both(make: Callable[[], Move]) -> tuple[Tensor, Tensor]:
    """What a fresh move leaves when it is fused, and when it is carried out in torch."""
    one, other = make(), make()
    assert fused.able(one)
    fused.run_numba([one])
    apply._alone(other)
    return (one.out if one.out is not None else one.target), (
        other.out if other.out is not None else other.target
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_fused_move_is_the_move_in_torch(name: str, dtype: torch.dtype) -> None:
    """Any direction on any storage: two directions with both of their scales, and decay."""
    count = ROWS * COLS

    def make() -> Move:
        terms = [Term(DIRECTIONS[name](count), 1e-3, -2e-3), Term(DIRECTIONS[name](count), 5e-4)]
        return Move(numbers(count).to(dtype), COLS, terms, decay=0.99)

    ours, theirs = both(make)
    tolerance = {torch.float32: 1e-7, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=1e-8)
    if name in ("normal16", "rademacher"):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 5, 1023, 1024, 1025, 4096, 4100, 9999, 70000])
def test_tensors_of_any_length_move(count: int) -> None:
    """Pieces cover a tensor to its last element and not beyond it."""
    room = numbers(count + 64)
    before = room.clone()
    direction = DIRECTIONS["normal16"](count)
    fused.run_numba([Move(room[:count], 1, [Term(direction, 1e-3)])])
    expected = before[:count] + direction.draw(0, count, room.device) / 2.0 * (2.0 * 1e-3)
    torch.testing.assert_close(room[:count], expected, rtol=1e-7, atol=0)
    assert torch.equal(room[count:], before[count:])


def test_one_pass_over_many_tensors_is_a_pass_over_each() -> None:
    """Tensors of all sizes, dtypes and directions together, on one thread and on several."""
    ends = []
    for threads in (1, 2, 3):
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            moves = [
                Move(numbers(n * COLS).to(dtype), COLS, [Term(make(n * COLS), 1e-3, 1e-4)])
                for n, dtype, make in itertools.product((1, 70, 300), DTYPES, DIRECTIONS.values())
            ]
            apply.apply_moves(moves)
        finally:
            torch.set_num_threads(usual)
        ends.append([one.target for one in moves])
    for alone in moves:
        assert fused.able(alone)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*ends, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_with_state_are_the_same_fused(dtype: torch.dtype) -> None:
    """Momentum and Adam: weights and state after three steps."""
    count = 5000

    def heavy(_: int, state: list[Tensor]) -> StateUpdate:
        return HeavyBall(state[0], 0.9, 1.0, 1e-2)

    def adam(step: int, state: list[Tensor]) -> StateUpdate:
        unbias = 1 / (1 - 0.9 ** (step + 1)), 1 / (1 - 0.99 ** (step + 1))
        return Moments(state[0], state[1], (0.9, 0.99), unbias, 1e-2, 1e-8)

    for state_update in (heavy, adam):
        ends = []
        for way in (lambda m: fused.run_numba([m]), apply._alone):
            weights = numbers(count).to(dtype)
            state = [torch.zeros(count), torch.zeros(count)]
            for step in range(3):
                terms = [
                    Term(Drawn(Recipe(Law.NORMAL16), Stream(step, q)), 1e-3, 0.1 + q)
                    for q in range(2)
                ]
                way(Move(weights, 1, terms, state_update=state_update(step, state)))
            ends.append([weights.float(), *state])
        for ours, theirs in zip(*ends, strict=True):
            tolerance = 1e-5 if dtype is torch.float32 else 2**-7
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_16_bit_number_is_read_as_torch_reads_it(dtype: torch.dtype) -> None:
    """All 65536 patterns, infinities and NaNs among them, and back again."""
    stored = torch.arange(65536).to(torch.int32).to(torch.int16).view(dtype)
    wide = torch.empty(65536)
    fused.run_numba([Move(stored, 1, [], out=wide)])
    finite = ~stored.isnan()
    assert torch.equal(wide[finite], stored.float()[finite])
    assert wide[~finite].isnan().all()
    back = stored.clone()
    fused.run_numba([Move(back, 1, [])])
    assert torch.equal(back.view(torch.int16)[finite], stored.view(torch.int16)[finite])


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_to_nearest_is_torchs(dtype: torch.dtype) -> None:
    """Random float32 patterns of every magnitude, and ties, overflow and float16's subnormals."""
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0))
    values = bits.to(torch.int32).view(torch.float32)
    ties = torch.arange(1, 4000).float() * 2.0**-25
    more = torch.cat([values, ties, -ties, torch.tensor([65504.0, 65519.9, 65520.0, 0.0, -0.0])])
    more = torch.where(more.isnan(), 1.0, more)
    out = torch.empty(len(more), dtype=dtype)
    fused.run_numba([Move(more, 1, [], out=out)])
    assert torch.equal(out.view(torch.int16), more.to(dtype).view(torch.int16))


def kept(count: int, mode: Mode) -> Rounding:
    if mode is Mode.REMAINDER:
        return Rounding(mode, torch.zeros(count, dtype=torch.int16))
    return Rounding(mode, stream=Stream(noise.mix(1, 2, 3), 4, 21)) if mode else NEAREST


@pytest.mark.parametrize("mode", [Mode.REMAINDER, Mode.STOCHASTIC])
@pytest.mark.parametrize("dtype", HALVES)
def test_roundings_are_the_same_fused(dtype: torch.dtype, mode: Mode) -> None:
    """Weights and remainders after some small moves have the same bits in torch and fused."""
    ends = []
    for way in (lambda m: fused.run_numba([m]), apply._alone):
        weights = numbers(5000).to(dtype)
        rounding = kept(5000, mode)
        for step in range(5):
            terms = [Term(Drawn(Recipe(Law.NORMAL16), Stream(step, 1)), 0.0, 1e-6)]
            way(Move(weights, 1, terms, rounding=rounding))
        left = rounding.remainder
        ends.append((weights.view(torch.int16), weights if left is None else left))
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_remainder_loses_nothing(dtype: torch.dtype) -> None:
    """1,000 moves of a thousandth of a weight's spacing arrive as in float32."""
    weights = numbers(4000).to(dtype)
    exact, rounding = weights.float(), kept(4000, Mode.REMAINDER)
    start = weights.double()
    for step in range(1000):
        terms = [Term(Drawn(Recipe(Law.NORMAL16), Stream(step, 1)), 0.0, 1e-8)]
        fused.run_numba([Move(weights, 1, terms, rounding=rounding)])
        fused.run_numba([Move(exact, 1, terms)])
    here = rounding.widen(weights, slice(0, 4000)).double() - start
    there = exact.double() - start
    large = weights.abs() > 2.0**-14 if dtype is torch.float16 else weights.isfinite()
    assert torch.equal(here[large], there[large])
    assert torch.cosine_similarity(here, there, dim=0) > 0.999
    assert (weights.double() - exact.double()).abs().max() <= 2.0**-9


@pytest.mark.parametrize("dtype", HALVES)
def test_stochastic_rounding_is_right_on_average(dtype: torch.dtype) -> None:
    """The mean of many roundings is the number, and each is one of its two neighbours."""
    value = torch.tensor([0.0300123, -1.00007, 3.1e-6, 1.9990234375])
    many = value.repeat_interleave(40_000)
    rounded = torch.empty(len(many), dtype=dtype)
    for chance in (0, 1):
        rounded.copy_(many)
        gap = many - rounded.float()
        rounding = kept(len(many), Mode.STOCHASTIC)
        terms = [Term(stored(gap, 1.0), 1.0)]
        fused.run_numba([Move(rounded, 1, terms, rounding=rounding)])
        means = rounded.double().view(4, -1).mean(1)
        spread = rounded.double().view(4, -1).std(1)
        error = (means - value.double()).abs()
        assert (error <= 4 * spread / 200 + 2.0**-16 * spread + 1e-12).all(), chance
        assert all(len(part.unique()) <= 2 for part in rounded.view(4, -1))


def test_rows_asked_for_are_all_that_is_drawn() -> None:
    """An embedding's rows in another place: those asked for are displaced, no other is written."""
    weights, out = numbers(50 * 96).bfloat16(), torch.zeros(50 * 96)
    rows = torch.tensor([0, 7, 49])
    direction = DIRECTIONS["normal16"](50 * 96)
    fused.run_numba([Move(weights, 96, [Term(direction, 1e-3)], out=out, rows=rows)])
    expected = weights.float() + direction.draw(0, 50 * 96, weights.device) / 2.0 * (2.0 * 1e-3)
    written = out.view(50, 96).abs().sum(1) > 0
    assert written.nonzero().flatten().tolist() == rows.tolist()
    torch.testing.assert_close(out.view(50, 96)[rows], expected.view(50, 96)[rows])


def test_a_dot_product_does_not_depend_on_the_machine() -> None:
    """128 partial sums, halved to 16, these in order, then the rest: done by hand in float32."""
    u, a = numbers(300, 1, 1.0), numbers(300, 2, 1.0)
    parts = torch.zeros(128)
    for start in range(0, 256, 128):
        parts = parts + u[start : start + 128] * a[start : start + 128]
    while len(parts) > 16:
        low, high = parts.chunk(2)
        parts = low + high
    total = torch.zeros(())
    for part in [*parts, *(u[256:] * a[256:])]:
        total = total + part
    room = torch.empty(128)
    assert float(drawing.dot(u.numpy(), a.numpy(), room.numpy())) == float(total)


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_that_somebody_else_wrote_are_read_as_they_are(dtype: torch.dtype) -> None:
    """Beside remainders of other weights they are off by half a spacing at most, and never NaN."""
    written = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.03, 2.0**-14]).to(dtype)
    for value in (-32768, -1, 1, 32767):
        left = torch.full((6,), value, dtype=torch.int16)
        rounding, wide = Rounding(Mode.REMAINDER, left), torch.empty(6)
        fused.run_numba([Move(written, 1, [], rounding=rounding, out=wide)])
        assert torch.equal(wide, rounding.widen(written, slice(0, 6)))
        spacing = torch.finfo(dtype).eps * written.float().abs().clamp_min(2.0**-14)
        assert ((wide - written.float()).abs() <= 0.51 * spacing).all()


def test_a_forked_process_has_threads_of_its_own() -> None:
    """A pass after a fork ends, also where the parent has passed before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weights = numbers(100_000)
        carry = partial(fused.run_numba, [Move(weights, 1, [Term(DIRECTIONS["normal16"](1), 1.0)])])
        carry()
        child = multiprocessing.get_context("fork").Process(target=carry)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
            child.start()
        child.join(30)
        ended = child.exitcode
        child.kill()
    finally:
        torch.set_num_threads(usual)
    assert ended == 0
