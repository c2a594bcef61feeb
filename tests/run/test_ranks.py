"""One run in several processes: the same steps as in one, whatever happens to one of them."""

import sys
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from tests.run.team import Team, check_same, folder_in, overrides
from zobench.run.folder import RunFolder, read_json
from zobench.zo.ledger import recover

SLOW = pytest.mark.faults  # these make `make test-faults` a little longer, not every test
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked here")


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=SLOW)])
def test_ranks_take_the_steps_of_one_process(
    team: Team, alone: Callable[..., RunFolder], size: int
) -> None:
    """Each reads a part of the batch, and every bit of the run is that of the run alone."""
    at = f"steps-{size}"
    method = ("optimizer=mezo", "train.batch_size=12")
    assert team(size, *overrides(*method, "ranks.check_every=1"), at=at) == [0] * size
    check_same(folder_in(team, at), alone(*method))
    assert read_json(folder_in(team, at).meta)["ranks"] == size
    assert team.said(at).count("done, test") == 1


def test_gradients_are_those_of_the_whole_batch(
    team: Team, alone: Callable[..., RunFolder]
) -> None:
    """SGD over two ranks, in uneven parts: the weights after four steps, to rounding."""
    method = ("optimizer=sgd", "optimizer.lr=0.05", "train.micro_batch_size=3", "budget.steps=4")
    assert team(2, *overrides(*method), at="gradients") == [0, 0]
    one, two = load_file(alone(*method).weights), load_file(folder_in(team, "gradients").weights)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)


def test_a_flipped_bit_stops_all_ranks(team: Team, alone: Callable[..., RunFolder]) -> None:
    """One line names steps and rank; what came after the last comparison is not gone on from."""
    run = overrides("optimizer=mezo", "train.batch_size=12", "ranks.check_every=4")
    assert team(2, *run, at="flip", planted="tests.run.planted.flipped_bit") == [1, 1]
    folder = folder_in(team, "flip")
    reason = read_json(folder.failure)["reason"]
    assert "after 8 steps the weights of rank 1 differ from those of rank 0" in reason
    assert "after 5 they were equal" in reason
    assert len(recover(folder.ledger).records) == 5
    assert team(2, *run, at="flip") == [0, 0]
    check_same(folder, alone("optimizer=mezo", "train.batch_size=12"))


@pytest.mark.parametrize(
    ("fault", "statuses", "reason"),
    [
        ("asked_to_stop", [75, 75], None),
        pytest.param("killed", [1, -9], "another rank has ended", marks=SLOW),
        pytest.param("out_of_memory", [1, 1], "CUDA out of memory", marks=SLOW),
    ],
)
def test_a_failure_of_one_rank_ends_the_run_which_then_resumes(
    team: Team,
    alone: Callable[..., RunFolder],
    fault: str,
    statuses: list[int],
    reason: str | None,
) -> None:
    """Nobody waits for it, the folder tells of it, and the run ends with the bits of one alone."""
    run = overrides("optimizer=mezo", "train.batch_size=12")
    assert team(2, *run, at=fault, planted=f"tests.run.planted.{fault}") == statuses
    folder = folder_in(team, fault)
    assert not folder.result.exists()
    assert folder.failure.exists() == (reason is not None)
    assert reason is None or reason in read_json(folder.failure)["reason"]
    size = 3 if fault == "asked_to_stop" else 1
    assert team(size, *run, at=fault) == [0] * size
    check_same(folder, alone("optimizer=mezo", "train.batch_size=12"))


@SLOW
def test_a_loss_that_is_not_finite_is_every_ranks(team: Team) -> None:
    """The run ends as diverged on all of them, and is tested all the same."""
    run = overrides("optimizer=mezo")
    statuses = team(2, *run, at="nan", planted="tests.run.planted.not_finite")
    assert statuses == [1, 0]  # the first says how the run ended
    result = read_json(folder_in(team, "nan").result)
    assert (result["status"], result["steps"]) == ("diverged", 7)


REFUSED = {
    "optimizer=agzo": "sampler ActivationBasis draws from the activations",
    "optimizer.graph=true": "optimizer.graph=true: a captured step cannot wait",
    "model.device_map=auto": "model.device_map",
    "pack_runs=2": "pack_runs=2: not under torchrun",
    "optimizer.lr=low": "optimizer.lr=low: expected float",
}
_RUNS = ("optimizer.graph=true", "model.device_map=auto")


@pytest.mark.parametrize(
    "refused", [pytest.param(r, marks=SLOW) if r in _RUNS else r for r in REFUSED]
)
def test_what_ranks_cannot_do_is_reported_once(team: Team, refused: str) -> None:
    """In one line, with a failure's status."""
    at = refused.replace("=", "-")
    statuses = team(2, *overrides(refused), at=at)
    assert statuses[0] == 1
    lines = [line for line in team.said(at).splitlines() if REFUSED[refused] in line]
    assert len(lines) == 1, team.said(at)


def test_a_sweep_is_refused(team: Team) -> None:
    """Before any run of it begins."""
    assert team(2, "-m", *overrides("seed=0,1"), at="sweep")[0] == 1
    assert "2 runs: under torchrun a command carries out one" in team.said("sweep")
    assert not list((team.runs / "sweep").rglob("config.yaml"))
