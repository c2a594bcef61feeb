"""Two ranks that share one GPU: scalars and gradients go over gloo."""

from collections.abc import Callable

import pytest
import torch

from tests.run.team import Team, folder_in, overrides
from zobench.run.folder import RunFolder, read_json
from zobench.zo.ledger import read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
Alone = Callable[..., RunFolder]
HERE = ("device=cuda:0", "train.batch_size=16")


@pytest.mark.parametrize("method", ["mezo", "loren", "adamw"])
def test_two_ranks_on_one_gpu_keep_the_same_weights(team: Team, alone: Alone, method: str) -> None:
    """Compared after each step; the losses are those of one process to the kernels' rounding."""
    more = (*HERE, f"optimizer={method}", "budget.steps=6")
    every = "ranks.check_every=1"
    assert team(2, *overrides(*more, every), at=method) == [0, 0], team.said(method)
    mine, theirs = folder_in(team, method), alone(*more)
    one, two = (read_json(folder.result) for folder in (theirs, mine))
    assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-4)
    assert two["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=1e-4)
    if theirs.ledger.is_file():
        first, other = next(read(theirs.ledger)), next(read(mine.ledger))
        assert list(other.losses) == pytest.approx(list(first.losses), rel=1e-5)


def test_a_rank_without_a_gpu_of_its_own_is_told_so(team: Team) -> None:
    """Unless all are to share one."""
    size = torch.cuda.device_count() + 1
    assert team(size, *overrides("device=cuda", "optimizer=mezo"), at="many")[-1] == 1
    assert "there is no GPU for rank" in read_json(folder_in(team, "many").failure)["reason"]
