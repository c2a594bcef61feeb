"""The ledger file: small, exact, and never wrong when it is cut or damaged."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zobench.zo.fingerprint import digest, fingerprint
from zobench.zo.ledger import Ledger, Mark, Record, read, recover

finite = st.floats(allow_nan=False, allow_infinity=False)
records = st.lists(
    st.builds(
        Record,
        lr=st.sampled_from([1e-3, 1e-4, 0.0, -0.0]) | finite,
        losses=st.lists(st.floats(width=32, allow_nan=False) | finite, max_size=5).map(tuple),
        coefficients=st.lists(finite, max_size=200).map(tuple),
        packed=st.booleans(),
        skipped=st.booleans(),
    )
    | st.builds(Mark, st.integers(0, 2**64 - 1)),
    max_size=8,
)
STEPS = [
    Record(
        1e-6 * (1 + step),
        (0.5, 0.25, 1 / 3 if step % 5 else math.inf)[: 2 + step % 2],
        (math.sin(step),) * (step % 3),
        skipped=step % 5 == 0,
    )
    for step in range(12)
]


def written(path: Path, entries: list[Record] | list[Record | Mark], seed: int = 0) -> bytes:
    with Ledger(path, seed) as ledger:
        for entry in entries:
            if isinstance(entry, Mark):
                ledger.mark(entry.fingerprint)
            else:
                ledger.append(entry)
    return path.read_bytes()


@given(entries=records, seed=st.integers(0, 2**64 - 1))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Record | Mark], seed: int
) -> None:
    """Any entries come back exactly, float64 losses and changing learning rates included."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.bin"
    written(path, entries, seed)
    found = recover(path)
    steps = [entry for entry in entries if isinstance(entry, Record)]
    assert list(read(path)) == steps == found.records
    assert [math.copysign(1, r.lr) for r in steps] == [math.copysign(1, r.lr) for r in read(path)]
    assert (found.seed, found.damage, found.size) == (seed, None, path.stat().st_size)
    if entries and isinstance(entries[-1], Mark):
        assert found.marks[len(steps)] == entries[-1].fingerprint


def test_a_skipped_step_keeps_its_losses_and_its_neighbours(tmp_path: Path) -> None:
    """NaN and both infinities come back; steps around it are read as without it."""
    path = tmp_path / "ledger.bin"
    bad = (0.5, math.inf, -math.inf, math.nan)
    skips = [Record(1e-6, bad[:n], (), packed=n == 4, skipped=True) for n in (1, 2, 3, 4)]
    written(path, [STEPS[0], *skips, *STEPS[1:]])
    first, *found = read(path)
    assert [first, *found[4:]] == STEPS
    for mine, theirs in zip(found, skips, strict=False):
        assert repr(mine) == repr(theirs)


@pytest.mark.parametrize("final_lr", [1.0, 0.1, 0.0])
def test_twenty_thousand_mezo_steps_fit_half_a_megabyte(tmp_path: Path, final_lr: float) -> None:
    """With a mark at each of 20 evaluations, and whether the rate is constant or decays."""
    path, steps = tmp_path / "ledger.bin", 20_000
    with Ledger(path, 0) as ledger:
        for step in range(steps):
            rate = 1e-6 * (1.0 + (final_lr - 1.0) * step / (steps - 1))
            ledger.append(Record(rate, (0.5, 0.25), (math.sin(step),)))
            if step % 1000 == 999:
                ledger.mark(2**64 - step)
    assert path.stat().st_size <= 500_000
    assert len(recover(path).records) == steps


def test_a_cut_at_any_byte_leaves_the_whole_steps_before_it(tmp_path: Path) -> None:
    """And a ledger that goes on from there is the one that was never cut, byte for byte."""
    path = tmp_path / "ledger.bin"
    entries: list[Record | Mark] = [*STEPS[:9], Mark(7), *STEPS[9:]]
    whole = written(path, entries, seed=3)
    ends = [len(written(path, entries[:n], seed=3)) for n in range(len(entries) + 1)]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        if cut < ends[0]:
            with pytest.raises(ValueError, match="not a zobench ledger, or cut off in its first"):
                recover(path)
            continue
        found = recover(path)
        done = sum(end <= cut for end in ends) - 1
        assert found.records == [e for e in entries[:done] if isinstance(e, Record)]
        assert (found.damage is None) == (cut in ends)
        assert found.damage is None or f"cut off in the entry at byte {ends[done]}" in found.damage
        with Ledger(path, 3, found) as ledger:
            for entry in entries[done:]:
                ledger.mark(7) if isinstance(entry, Mark) else ledger.append(entry)
        assert path.read_bytes() == whole


def test_a_flipped_bit_ends_the_ledger_before_it(tmp_path: Path) -> None:
    """Wherever it is: the steps before it are read, it is named, and nothing after it counts."""
    path = tmp_path / "ledger.bin"
    whole = written(path, STEPS)
    ends = [len(written(path, STEPS[:n])) for n in range(len(STEPS) + 1)]
    for at in range(ends[0], len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            found = recover(path)
            assert found.records == STEPS[: sum(end <= at for end in ends) - 1]
            assert found.damage is not None and f"at byte {found.size}" in found.damage
            with pytest.raises(ValueError, match=r"at byte \d+"):
                list(read(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Another file, or another version, is a ValueError that says so; nothing else changes."""
    path = tmp_path / "ledger.bin"
    whole = written(path, STEPS)
    path.write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match="not a zobench ledger"):
        list(read(path))
    path.write_bytes(whole[:8] + b"\x09\x00" + whole[10:])
    with pytest.raises(ValueError, match="version 9"):
        recover(path)


def test_a_step_is_in_the_file_when_it_is_done(tmp_path: Path) -> None:
    """Nothing waits in the process: what is killed between two steps has lost none."""
    path = tmp_path / "ledger.bin"
    with Ledger(path, 0) as ledger:
        for done, record in enumerate(STEPS):
            ledger.append(record)
            assert len(recover(path).records) == done + 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_fingerprints_tell_weights_apart(dtype: torch.dtype) -> None:
    """One bit of one element, or another order of tensors, is another number; a view is not."""
    one, two = torch.linspace(-1, 1, 12).to(dtype), torch.linspace(0, 2, 12).to(dtype)
    whole = fingerprint([one, two])
    assert whole == fingerprint([one.clone().view(3, 4), two])
    assert whole != fingerprint([two, one])
    named = digest([("one", one), ("two", two)])
    assert named == digest([("two", two), ("one", one)]) != digest([("two", one), ("one", two)])
    one[5] += 2 * torch.finfo(dtype).eps
    assert whole != fingerprint([one, two]) and named != digest([("one", one), ("two", two)])
