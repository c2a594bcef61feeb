"""Time and peak memory by phase."""

import sys
from mmap import PAGESIZE, mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zobench.run.meter import Meter, resident_peak_bytes

MIB = 2.0**-10  # in GiB


def can_reset() -> bool:
    """Whether this system lets a process reset its peak resident set."""
    if sys.platform != "linux":
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


needs_reset = pytest.mark.skipif(
    not can_reset(), reason="this system does not let a process reset its peak memory"
)


@pytest.fixture
def clock() -> SimpleNamespace:
    """A clock that stands until `clock.now` is changed."""
    return SimpleNamespace(now=100.0)


@pytest.fixture
def meter(clock: SimpleNamespace) -> Meter:
    """A meter of the CPU, by that clock."""
    return Meter(torch.device("cpu"), lambda: clock.now)


def allocate(mib: int) -> None:
    """Touch this many MiB of new memory, not of what malloc has kept, and give them back."""
    with mmap(-1, mib * 2**20) as block:
        for page in range(0, len(block), PAGESIZE):
            block[page] = 1


@needs_reset
def test_a_peak_belongs_to_the_phase_that_made_it(meter: Meter) -> None:
    """200 MiB of the first phase are not in the peak of the second, which keeps its own 50."""
    with meter.phase("before"):
        pass
    with meter.phase("large"):
        allocate(200)
    with meter.phase("small"):
        allocate(50)
    before, large, small = (meter.peak_gib(name) for name in ("before", "large", "small"))
    assert large - before > 180 * MIB
    assert 40 * MIB < small - before < 120 * MIB


@needs_reset
def test_entering_a_phase_again_keeps_its_largest_peak(meter: Meter) -> None:
    """Training is interrupted by evaluations; its peak is the largest of all its parts."""
    for name, mib in (("train", 200), ("eval", 1), ("train", 1)):
        with meter.phase(name):
            allocate(mib)
    assert meter.peak_gib("train") - meter.peak_gib("eval") > 180 * MIB


@needs_reset
def test_the_peak_of_an_open_phase_can_be_read(meter: Meter) -> None:
    """Metrics are logged while training lasts."""
    with meter.phase("train"):
        before = meter.peak_gib("train")
        allocate(200)
        assert meter.peak_gib("train") - before > 180 * MIB


def test_the_peak_is_at_least_what_is_held(meter: Meter) -> None:
    """In bytes, on every system."""
    held = np.ones(100 * 2**17)
    with meter.phase("train"):
        pass
    assert meter.peak_gib("train") * 2**30 > held.nbytes
    assert resident_peak_bytes() > held.nbytes


def test_time_of_a_phase_adds_up(meter: Meter, clock: SimpleNamespace) -> None:
    """Over visits, without what happens between them, and in an open phase up to now."""
    for name, seconds, pause in (("train", 2.0, 50.0), ("eval", 3.0, 7.0), ("train", 4.0, 9.0)):
        with meter.phase(name):
            clock.now += seconds
        clock.now += pause
    assert meter.seconds("train") == 6.0
    assert meter.seconds("eval") == 3.0
    with meter.phase("train"):
        clock.now += 1.5
        assert meter.seconds("train") == 7.5
        assert meter.seconds("eval") == 3.0
    assert meter.seconds("train") == 7.5


def test_a_phase_that_never_began_is_zero(meter: Meter) -> None:
    """A run without training has no training time and no training peak."""
    assert meter.seconds("train") == 0.0
    assert meter.peak_gib("train") == 0.0


def test_a_phase_that_fails_is_closed(meter: Meter, clock: SimpleNamespace) -> None:
    """Its time and peak are kept, and the next phase can begin."""
    with pytest.raises(KeyError), meter.phase("train"):
        clock.now += 2.0
        raise KeyError
    with meter.phase("eval"):
        clock.now += 1.0
    assert meter.seconds("train") == 2.0
    assert meter.peaks["train"]["peak_gib"] > 0.0


def test_phases_do_not_nest(meter: Meter) -> None:
    """The inner one would steal the outer one's peak."""
    with (
        pytest.raises(AssertionError, match="nest"),
        meter.phase("train"),
        meter.phase("eval"),
    ):
        pass
    with meter.phase("eval"):
        pass


def test_a_system_that_forbids_the_reset_still_measures(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some containers do; the peak is then since the start of the process."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with meter.phase("train"):
        pass
    assert meter.peak_gib("train") > 0.0
