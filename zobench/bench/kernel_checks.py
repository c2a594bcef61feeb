"""Comparisons of the GPU's passes with the CPU's: `CHECKS`, by name, each a function of the device.

On a device of kind cpu they run in Triton's interpreter. A check raises AssertionError.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.directions import Drawn, stored
from zobench.zo.moves import Direction, Move, Recipe, StateUpdate, Term
from zobench.zo.noise import Law, Stream, oracle
from zobench.zo.passes import fused, gpu
from zobench.zo.rounding import NEAREST, Mode, Rounding
from zobench.zo.rules.adam import Moments
from zobench.zo.rules.momentum import HeavyBall

CPU = torch.device("cpu")
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float32, *HALVES)
EXACT = (Law.NORMAL16, Law.RADEMACHER)
SIZES = (1, 5, 1023, 1025, 4096 + 3)
Make = Callable[[torch.device], Iterator[Move]]


def numbers(count: int, device: torch.device, seed: int = 0, scale: float = 0.03) -> Tensor:
    """Random float32, equal on every device."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=generator) * scale).to(device)


def results(move: Move) -> list[Tensor]:
    """All that a move writes."""
    states = [] if move.state_update is None else list(move.state_update.buffers)
    left = [] if move.rounding.remainder is None else [move.rounding.remainder]
    return [move.target if move.out is None else move.out, *states, *left]


def compare(make: Make, device: torch.device, tolerance: float = 0.0) -> None:
    """The moves on the device against those of the CPU's kernel; to the bit by default."""
    here, there = list(make(CPU)), list(make(device))
    fused.run_numba(here)
    gpu.run_triton(there)
    for number, pair in enumerate(zip(here, there, strict=True)):
        for ours, theirs in zip(*map(results, pair), strict=True):
            if tolerance:
                torch.testing.assert_close(theirs.cpu(), ours, rtol=tolerance, atol=tolerance)
            else:
                assert torch.equal(theirs.cpu(), ours), f"move {number} has other bits"


def rounded(mode: Mode, count: int, device: torch.device) -> Rounding:
    """A rounding of that mode with what it needs."""
    if mode is Mode.REMAINDER:
        return Rounding(mode, torch.zeros(count, dtype=torch.int16, device=device))
    stream = Stream(noise.mix(1, 2, 3), 4, 21)
    return NEAREST if mode is Mode.NEAREST else Rounding(mode, stream=stream)


def exact_bits(device: torch.device) -> None:
    """Exact laws in every dtype and rounding, tensors of odd sizes, of which some begin oddly."""
    storages = [(torch.float32, Mode.NEAREST), *itertools.product(HALVES, Mode)]
    sizes = itertools.cycle(SIZES)
    cases = [(*s, law, next(sizes)) for s, law in itertools.product(storages, EXACT)]

    def make(where: torch.device) -> Iterator[Move]:
        for number, (dtype, mode, law, size) in enumerate(cases):
            room = numbers(size + 3, where, number).to(dtype)
            terms = [
                Term(Drawn(Recipe(law, 1.0 + q), Stream(noise.mix(7, 0, q), number)), 1e-3, -2e-3)
                for q in range(2)
            ]
            target = room[number % 2 * 3 :][:size]
            kept = rounded(mode, size, where)
            yield Move(target, 1, terms, 1.0 - 0.1 * (number % 2), rounding=kept)

    compare(make, device)


def small_updates(device: torch.device) -> None:
    """Many moves below half a spacing: remainders and chance add up alike."""
    for dtype, mode in itertools.product(HALVES, (Mode.REMAINDER, Mode.STOCHASTIC)):
        ends = []
        for where, carry in ((CPU, fused.run_numba), (device, gpu.run_triton)):
            weights, kept = numbers(2000, where).to(dtype), rounded(mode, 2000, where)
            for step in range(4):
                terms = [Term(Drawn(Recipe(Law.NORMAL16), Stream(step, 1)), 0.0, 1e-6)]
                carry([Move(weights, 1, terms, rounding=kept)])
            left = kept.remainder
            ends.append([weights.cpu(), *([] if left is None else [left.cpu()])])
        assert all(map(torch.equal, *ends)), (dtype, mode)


def every_half(device: torch.device) -> None:
    """All 16-bit patterns are read as torch reads them, and rounded to as torch rounds."""
    for dtype in HALVES:
        stored = torch.arange(65536).to(torch.int32).to(torch.int16).view(dtype)
        wide = torch.empty(65536, device=device)
        gpu.run_triton([Move(stored.to(device), 1, [], out=wide)])
        finite = ~stored.isnan()
        assert torch.equal(wide.cpu()[finite], stored.float()[finite]), dtype
        assert bool(wide.cpu()[~finite].isnan().all())
        bits = torch.randint(-(2**31), 2**31, (30_000,), generator=torch.Generator().manual_seed(0))
        values = bits.to(torch.int32).view(torch.float32)
        ties = torch.arange(1, 4000).float() * 2.0**-25
        values = torch.cat([values.nan_to_num(1.0), ties, -ties, torch.tensor([65519.9, 65520.0])])
        out = torch.empty(len(values), dtype=dtype, device=device)
        gpu.run_triton([Move(values.to(device), 1, [], out=out)])
        assert torch.equal(out.cpu().view(torch.int16), values.to(dtype).view(torch.int16)), dtype


def normal_law(device: torch.device) -> None:
    """`normal` is the oracle's to 1e-6."""
    stream, count = Stream(noise.mix(1, 2, 3), 4), 50_001
    z = torch.zeros(count, device=device)
    gpu.run_triton([Move(z, 1, [Term(Drawn(Recipe(Law.NORMAL), stream), 1.0)])])
    error = (z.cpu() - oracle.draw(Law.NORMAL, stream, 0, count, CPU)).abs().max()
    assert float(error) <= 1e-6, float(error)


def stored_vectors(device: torch.device) -> None:
    """Multiples of stored vectors, and noise around them, of every dtype."""

    def make(where: torch.device) -> Iterator[Move]:
        for vector, target in itertools.product(DTYPES, DTYPES):
            kept = numbers(1500, where, 3).to(vector)
            around = Drawn(Recipe(vector=kept, sigma=0.5), Stream(6, 1))
            terms = [Term(stored(kept, 0.3), 1e-2, -2e-2), Term(around, 0.0, 1e-2)]
            yield Move(numbers(1500, where).to(target), 1, terms)

    compare(make, device)


def rows(device: torch.device) -> None:
    """Directions that are shaped row by row, to the order of a dot product."""

    def make(where: torch.device) -> Iterator[Move]:
        for width, height in ((300, 7), (1500, 3), (1, 5), (2048, 1)):
            a = numbers(width, where, 5)
            z: Direction = Drawn(Recipe(row=(a, 0.7 * a), row_scale=1.5), Stream(8, width))
            plain = Drawn(Recipe(Law.RADEMACHER), Stream(9, width))
            terms = [Term(z, 1e-3, -2e-3), Term(plain, 1e-3), Term(z, 5e-4)]
            yield Move(numbers(width * height, where), width, terms)

    compare(make, device, 1e-6)


def rules(device: torch.device) -> None:
    """Momentum and Adam, three steps, weights and state."""
    heavy: Callable[..., StateUpdate] = lambda m, _, step: HeavyBall(m, 0.9, 1.0, 1e-2)  # noqa: E731, ARG005
    adam: Callable[..., StateUpdate] = lambda m, v, step: Moments(  # noqa: E731
        m, v, (0.9, 0.99), (1 / (1 - 0.9 ** (step + 1)), 1 / (1 - 0.99 ** (step + 1))), 1e-2, 1e-8
    )
    for dtype, state_update in itertools.product(DTYPES, (heavy, adam)):
        ends = []
        for where, carry in ((CPU, fused.run_numba), (device, gpu.run_triton)):
            weights = numbers(1100, where).to(dtype)
            states = [torch.zeros(1100, device=where) for _ in range(2)]
            for step in range(3):
                z = [Drawn(Recipe(Law.NORMAL16), Stream(step, q)) for q in range(2)]
                terms = [Term(one, 1e-3, 0.1 + q) for q, one in enumerate(z)]
                carry([Move(weights, 1, terms, state_update=state_update(*states, step))])
            ends.append([x.float().cpu() for x in (weights, *states)])
        near = 1e-6 if dtype is torch.float32 else 2.0**-7
        for ours, theirs in zip(*ends, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=near, atol=1e-7)


def elsewhere(device: torch.device) -> None:
    """Results in another place: of another dtype, compensated weights, and only rows needed."""

    def make(where: torch.device) -> Iterator[Move]:
        needed = torch.tensor([0, 7, 7, 49], device=where)
        for dtype, out in itertools.product(DTYPES, DTYPES):
            kept = rounded(Mode.REMAINDER, 50 * 96, where)
            assert kept.remainder is not None
            kept.remainder.add_((torch.arange(50 * 96, device=where) % 999 - 500).short())
            terms = [Term(Drawn(Recipe(Law.NORMAL16), Stream(2, 1)), 1e-3)]
            target = numbers(50 * 96, where).to(dtype)
            place = torch.zeros(50 * 96, dtype=out, device=where)
            picked = needed if out is torch.float32 else None
            how = kept if dtype in HALVES else NEAREST
            yield Move(target, 96, terms, rounding=how, out=place, rows=picked)

    compare(make, device)
    [picked] = [m for m in make(device) if m.rows is not None and m.target.dtype == torch.float32]
    gpu.run_triton([picked])
    assert picked.out is not None
    written = picked.out.view(50, 96).abs().sum(1) > 0
    assert written.nonzero().flatten().tolist() == [0, 7, 49]


def one_launch(device: torch.device) -> None:
    """400 tensors of many sizes in one launch."""
    from zobench.zo.passes import triton_kernel

    usual: Any = triton_kernel.triton_pass
    launches: list[Any] = []

    class Counted:
        def __getitem__(self, grid: Any) -> Any:
            launches.append(grid)
            return usual[grid]

    def make(where: torch.device) -> Iterator[Move]:
        for number in range(400):
            size = 1 + 37 * number % 1100
            drawn = Drawn(Recipe(Law.RADEMACHER), Stream(5, number))
            kept = stored(numbers(size, where, number), 0.5)
            term = Term(kept if number % 9 else drawn, 1e-3, -2e-3)
            yield Move(numbers(size, where), 1, [term])

    triton_kernel.triton_pass = Counted()
    try:
        compare(make, device)
    finally:
        triton_kernel.triton_pass = usual
    assert len(launches) == 1


CHECKS: dict[str, Callable[[torch.device], None]] = {
    check.__name__: check
    for check in (
        exact_bits,
        small_updates,
        every_half,
        normal_law,
        stored_vectors,
        rows,
        rules,
        elsewhere,
        one_launch,
    )
}
