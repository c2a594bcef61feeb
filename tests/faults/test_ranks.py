"""Runs in several processes over all kinds of methods and tasks, and by torchrun itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.run.attempts import untimed
from tests.run.team import Team, check_same, folder_in, overrides
from zobench.run.folder import RunFolder, read_json
from zobench.zo.ledger import read

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked here"),
]
EXACT = {  # every bit is that of one process, where each rank has at least three examples
    "mezo": ("optimizer=mezo", "diagnose.every=5"),
    "conmezo": ("optimizer=conmezo", "train.select=last"),
    "ldsd_sgd": ("optimizer=ldsd_sgd",),
    "ldsd bfloat16": ("optimizer=ldsd_adamm", "model.dtype=bfloat16"),
    "loren": ("optimizer=loren",),
    "curvzo": ("optimizer=curvzo",),
    "another batch": ("optimizer=mezo_svrg",),
    "tangents": ("optimizer=forward_gradient",),
    "parts": ("optimizer=mezo", "train.batch_size=24", "train.micro_batch_size=12"),
    "answer": ("optimizer=mezo", "task.loss=answer"),
    "sequence": ("optimizer=mezo", "task.loss=sequence"),
    "accuracy": ("optimizer=mezo", "task.loss=accuracy"),
    "no steps": ("optimizer=zero_shot",),
    "a fit": ("optimizer=linear_probe", "tuning=head"),
    "patience": ("optimizer=mezo", "optimizer.lr=0", "train.patience=1"),
    "checkpoints": ("optimizer=mezo", "checkpoint.beside_ledger=true", "checkpoint.steps=3"),
}
CLOSE = {  # kernels look at the number of rows, or gradients are summed in another order
    "pack": ("optimizer=rloo", "tuning=lora", "optimizer.pack=2"),
    "uneven": ("optimizer=mezo", "train.batch_size=7"),
    "adamw": ("optimizer=adamw",),
    "adamw parts": ("optimizer=adamw", "train.micro_batch_size=5", "train.grad_clip=1.0"),
    "adamw recomputed": ("optimizer=adamw", "train.checkpointing=true"),
    "adamw frozen": ("optimizer=adamw", "tuning=bitfit"),
}


@pytest.mark.parametrize(
    ("case", "size"), [*((case, 2) for case in EXACT), *((case, 4) for case in list(EXACT)[::3])]
)
def test_every_bit_is_that_of_one_process(
    team: Team, alone: Callable[..., RunFolder], case: str, size: int
) -> None:
    """Ledger, weights, metrics, predictions, result; the hashes agree after each step."""
    more = ("train.batch_size=12", *EXACT[case])
    at = f"{case}-{size}"
    assert team(size, *overrides(*more, "ranks.check_every=1"), at=at) == [0] * size, team.said(at)
    check_same(folder_in(team, at), alone(*more))


@pytest.mark.parametrize("case", CLOSE)
def test_others_are_close(team: Team, alone: Callable[..., RunFolder], case: str) -> None:
    """The same steps to rounding, and ranks whose hashes agree after each of them."""
    more = ("train.batch_size=12", "budget.steps=4", *CLOSE[case], "train.select=last")
    assert team(3, *overrides(*more, "ranks.check_every=1"), at=case) == [0, 0, 0], team.said(case)
    mine, theirs = folder_in(team, case), alone(*more)
    one, two = load_file(mine.weights), load_file(theirs.weights)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-4)
    assert untimed(read_json(mine.result))["cost"] == untimed(read_json(theirs.result))["cost"]
    if theirs.ledger.is_file():
        for record, other in zip(read(theirs.ledger), read(mine.ledger), strict=True):
            assert list(other.losses) == pytest.approx(list(record.losses), rel=1e-5)


def test_steps_that_are_skipped_are_skipped_by_all(team: Team) -> None:
    """A loss that is not finite is left out with the bits of one process that leaves it out."""
    run = overrides("optimizer=mezo", "train.batch_size=12", "train.nonfinite=skip")
    for size in (1, 2):
        at = f"skip-{size}"
        spoiled = "tests.run.planted.spoiled"
        assert team(size, *run, at=at, planted=spoiled) == [0] * size, team.said(at)
    one, two = folder_in(team, "skip-1"), folder_in(team, "skip-2")
    assert 0 < read_json(one.result)["skipped_steps"] < 12
    check_same(two, one)


def test_texts_are_written_by_all_ranks(team: Team, alone: Callable[..., RunFolder]) -> None:
    """A task whose loss and metric are those of generated answers."""
    sizes = ("task.sizes.train=4", "task.sizes.dev=3", "task.sizes.test=3", "budget.steps=2")
    more = ("task=squad", "data=fixtures", "optimizer=mezo", "task.loss=f1", *sizes)
    assert team(2, *overrides(*more), at="squad") == [0, 0], team.said("squad")
    check_same(folder_in(team, "squad"), alone(*more))


def test_a_function_of_a_point_is_everybodys(team: Team) -> None:
    """There is nothing to share; the ranks agree all the same."""
    more = ("task=quadratic", "optimizer=conmezo", "optimizer.lr=0.01", "optimizer.eps=0.01")
    sized = [o for o in overrides(*more, "ranks.check_every=1") if "task.sizes" not in o]
    assert team(2, *sized, at="point") == [0, 0], team.said("point")
    assert read_json(folder_in(team, "point").result)["steps"] == 12


def test_the_first_ranks_clock_ends_a_budget_in_seconds(team: Team) -> None:
    """And sets the rate of each step, so that the ranks take the same ones."""
    timed = [o for o in overrides("optimizer=mezo") if "budget" not in o]
    more = ("budget.seconds=1.5", "train.final_lr=0.1", "ranks.check_every=1")
    assert team(2, *timed, *more, at="seconds") == [0, 0], team.said("seconds")
    assert read_json(folder_in(team, "seconds").result)["steps"] > 3


@pytest.mark.parametrize("method", ["mezo", "ldsd_sgd", "loren", "adamw"])
@pytest.mark.parametrize("fault", ["killed", "first_killed", "asked_to_stop"])
def test_a_run_goes_on_whoever_was_killed(team: Team, method: str, fault: str) -> None:
    """With the bits of the same ranks left alone, and nobody waits for ever."""
    every = ("checkpoint.steps=3", "checkpoint.minutes=null", f"optimizer={method}")
    run = overrides("train.batch_size=12", *every)
    whole, at = f"{method}-whole", f"{method}-{fault}"
    if not (team.runs / whole).exists():
        assert team(2, *run, at=whole) == [0, 0]
    assert 0 not in team(2, *run, at=at, planted=f"tests.run.planted.{fault}")
    assert team(2, *run, at=at) == [0, 0], team.said(at)
    check_same(folder_in(team, at), folder_in(team, whole))


def test_torchrun_itself(tmp_path: Path) -> None:
    """One process; two ranks, one of which is killed, and then two again: the same bits."""
    given = overrides("train.batch_size=16", "budget.steps=200", "optimizer=mezo")

    def started(at: str, *command: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"ZOBENCH_RUNS": str(tmp_path / at)}
        return subprocess.Popen([sys.executable, "-m", *command, *given], env=environment)

    agent_of_two = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "zobench")

    assert started("one", "zobench").wait() == 0
    with started("two", *agent_of_two) as agent:
        while (
            not (found := list((tmp_path / "two").rglob("metrics.jsonl")))
            or not found[0].stat().st_size
        ):
            time.sleep(0.02)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert agent.wait(timeout=120) != 0, list(found[0].parent.iterdir())
    assert not list((tmp_path / "two").rglob("result.json"))
    assert started("two", *agent_of_two).wait() == 0
    check_same(ran_at(tmp_path / "two"), ran_at(tmp_path / "one"))


def ran_at(place: Path) -> RunFolder:
    """The only run there."""
    (config,) = place.rglob("config.yaml")
    return RunFolder(config.parent)
