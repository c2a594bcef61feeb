"""znoise v1: known answers, layout, and one stream for every back end."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zobench.zo import noise
from zobench.zo.noise import Law, Stream, cpu, oracle
from zobench.zo.noise.law import normal16_table

CPU = torch.device("cpu")
STREAM = Stream(noise.mix(7, 3, 1), noise.tensor_id("model.layers.0.weight"))


def words_of(counter: tuple[int, int, int, int], key: int) -> list[int]:
    tensors = tuple(torch.tensor([c]) for c in counter)
    return [int(w) for w in oracle.philox(tensors, key)]  # type: ignore[arg-type]


def test_philox_gives_the_published_answers() -> None:
    """The two known answers of Random123 for Philox4x32-10."""
    ones = 0xFFFFFFFF
    assert words_of((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words_of((ones,) * 4, 2**64 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_layout_is_the_documented_one() -> None:
    """Single elements, worked out from the specification's table, are where it says."""
    key, tensor = 5, 9
    stream = Stream(key, tensor)
    table = normal16_table()
    z = oracle.draw(Law.NORMAL16, stream, 0, 4096, CPU)
    block, half, word, call = 3, 1, 2, 77
    value = words_of((block * 128 + call, 0, tensor, 0), key)[word] >> 16
    assert z[block * 1024 + half * 512 + word * 128 + call] == table[value]
    signs = oracle.draw(Law.RADEMACHER, stream, 0, 4096, CPU)
    bit, word, call = 21, 1, 6
    value = words_of((block * 8 + call, 0, tensor, 0), key)[word] >> bit & 1
    assert signs[block * 1024 + bit * 32 + word * 8 + call] == 1 - 2 * value


@settings(max_examples=60, deadline=None)
@given(
    law=st.sampled_from(list(Law)),
    start=st.just(0) | st.integers(0, 5000) | st.integers(2**42 - 3000, 2**42 + 3000),
    count=st.integers(1, 600) | st.integers(1, 4000),
    scale=st.floats(-10, 10, width=32),
    key=st.integers(0, 2**64 - 1),
)
def test_numba_equals_the_oracle(law: Law, start: int, count: int, scale: float, key: int) -> None:
    """Both back ends add the same numbers, bit for bit for the exact laws, at any place."""
    stream = Stream(key, 12345)
    base = torch.randn(count, generator=torch.Generator().manual_seed(1))
    ours = base.clone()
    cpu.add(ours, law, stream, start, scale, -scale / 3)
    z = oracle.draw(law, stream, start, count, CPU)
    theirs = (base + z * scale) + z * (-scale / 3)
    if law is Law.NORMAL:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("law", list(Law))
def test_any_cut_gives_the_same_numbers(law: Law) -> None:
    """Drawing a vector in pieces, in any order, is drawing it at once."""
    whole = noise.draw(law, STREAM, 0, 5000, CPU)
    cuts = [(3000, 5000), (0, 1), (1, 1500), (1500, 3000)]
    for start, stop in cuts:
        assert torch.equal(whole[start:stop], noise.draw(law, STREAM, start, stop - start, CPU))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_get_the_same_numbers(dtype: torch.dtype) -> None:
    """A vector that is not float32 receives the float32 noise, rounded to its dtype."""
    out = torch.zeros(2000, dtype=dtype)
    noise.add(out, Law.NORMAL16, STREAM, 10, 1.0)
    assert torch.equal(out, noise.draw(Law.NORMAL16, STREAM, 10, 2000, CPU).to(dtype))


@pytest.mark.parametrize("law", list(Law))
def test_moments(law: Law) -> None:
    """Mean 0, variance 1, no correlation between neighbours, within five standard errors."""
    n = 1 << 20
    z = noise.draw(law, STREAM, 0, n, CPU).double()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    for lag in (1, 2, 8, 32, 128, 256, 512, 1024):
        assert abs((z[lag:] * z[:-lag]).mean()) < 5 / math.sqrt(n - lag)


def test_the_table_has_variance_one_and_normal_tails() -> None:
    """normal16: variance exactly 1 before rounding, kurtosis 2.999, largest value 4.325."""
    table = torch.from_numpy(normal16_table()).double()
    assert abs(table.square().mean() - 1) < 1e-7
    assert abs(table.pow(4).mean() - 2.9992) < 1e-3
    assert abs(table.max() - 4.325) < 1e-3
    assert torch.equal(table, -table.flip(0))


@pytest.mark.parametrize("law", list(Law))
def test_streams_are_independent(law: Law) -> None:
    """Two tensors, steps, queries, seeds or stream numbers share no numbers: correlation is 0.

    Re-seeding per tensor, which gives equal shapes equal noise, fails here (two known projects).
    """
    n = 1 << 18
    key = noise.mix(7, 3, 1)
    streams = [
        Stream(key, noise.tensor_id("a.weight")),
        Stream(key, noise.tensor_id("b.weight")),
        Stream(noise.mix(7, 4, 1), noise.tensor_id("a.weight")),
        Stream(noise.mix(7, 3, 2), noise.tensor_id("a.weight")),
        Stream(noise.mix(8, 3, 1), noise.tensor_id("a.weight")),
        Stream(key, noise.tensor_id("a.weight"), 1),
    ]
    z = torch.stack([noise.draw(law, s, 0, n, CPU) for s in streams]).double()
    correlation = z @ z.T / n - torch.eye(len(streams), dtype=torch.float64)
    assert correlation.fill_diagonal_(0).abs().max() < 5 / math.sqrt(n)


def test_keys_do_not_mix_up_their_parts() -> None:
    """(seed, step, query) maps to distinct keys, also when the same numbers change places."""
    triples = [(a, b, c) for a in range(12) for b in range(12) for c in range(12)]
    assert len({noise.mix(*t) for t in triples}) == len(triples)


def test_the_global_random_state_is_not_touched() -> None:
    """Drawing leaves torch's global generator as it was."""
    before = torch.get_rng_state()
    for law in Law:
        noise.draw(law, STREAM, 0, 3000, CPU)
    assert torch.equal(before, torch.get_rng_state())
