"""Owners that stand still until their run is another's, and then go on: at many instants.

`make test-faults` runs these; tests/run/test_claim.py has one, tests/run/test_fence.py each window.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_kills import METHODS
from tests.launch.rivals import Contested, Rivals
from zobench.launch.run_lock import LOST
from zobench.run.metrics_log import read_rows

Compose = Callable[..., dict[str, Any]]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked"),
]
NEVER = 10**9  # an instant that no run reaches: the second owner ends before the first goes on
PAUSES = 8  # each


@pytest.fixture(scope="module")
def rivals() -> Iterator[Rivals]:
    """A process that forks attempts whose locks live for less than a second."""
    with Rivals() as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
def test_paused_at_seeded_instants(
    rivals: Rivals, compose: Compose, tmp_path: Path, method: str
) -> None:
    """The first owner goes on at an instant of the second, or after its end: it ends without trace.

    Weights, ledger, metrics, predictions and result are those of the run left alone.
    """
    options = (f"optimizer={method}", *METHODS[method])
    run = Contested(rivals, compose, tmp_path, *options)
    run.count()
    draw = random.Random(method)
    for number in range(PAUSES):
        first = draw.randrange(run.instants - 10)
        second = NEVER if number % 4 == 3 else draw.randrange(run.instants)
        assert run.contest(first, second) == (LOST, 0), (first, second)
        at = f"at-{first}-{second}"
        run.check(at)
        rows, _ = read_rows(run.folder(at).metrics)
        names = Counter((row["step"], next(key for key in row if key != "step")) for row in rows)
        assert max(names.values()) == 1


def test_paused_at_the_end(rivals: Rivals, compose: Compose, tmp_path: Path) -> None:
    """Where the result is there, the second has nothing to do, whatever the first does then."""
    run = Contested(rivals, compose, tmp_path, "optimizer=mezo")
    run.count()
    for before in range(1, 10):
        first, second = run.contest(run.instants - before, NEVER)
        assert first in (LOST, 0) and second == 0, before
        run.check(f"at-{run.instants - before}-{NEVER}")
