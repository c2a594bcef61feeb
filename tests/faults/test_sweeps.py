"""Sweeps whose runs fail in every way, and sweeps that two people launch at once."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.saboteur import FILLER
from tests.faults.sweeps import Sweep
from tests.run.attempts import rows_of, untimed
from zobench.run.folder import HALVED, RunFolder, read_json

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked"),
]
KINDS = {  # each happens to the runs of two methods; what ends the command, to those of one task
    **{"synthetic_reviews-0": "crash", "synthetic_reviews-1": "memory"},
    **{"synthetic_reviews-2": "nan", "synthetic_reviews-3": "kill"},
    **{"synthetic_reviews-4": "kill_launcher", "synthetic_reviews-5": "full"},
    **{"mine-0": "kill_nursery", "mine-1": "memory", "mine-2": "nan", "mine-3": "kill"},
}
GRID = ("task=synthetic_reviews,mine", "optimizer=mezo,adamw", "seed=0,1,2,3,4,5")
LAUNCHES = 20  # more than there are failures that end a launch


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 24 MB."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here: a disk that is full cannot be had")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "zobench-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be had: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_sweep_that_fails_in_every_way_is_relaunched_until_done(
    small_disk: Path, tmp_path: Path
) -> None:
    """24 runs: exceptions, memory, NaN, killed processes, a full disk, damaged data.

    Each is executed to the end exactly once, with the numbers of a run that nothing happened to;
    nothing is left running, and nothing half written.
    """
    (tmp_path / "failing").mkdir()
    sweep = Sweep(tmp_path / "failing", small_disk, KINDS)
    sweep.damage()
    statuses, said = [], ""
    for _ in range(LAUNCHES):
        status, out, err = sweep.launch(*GRID)
        statuses.append(status)
        said += out + err
        (small_disk / FILLER).unlink(missing_ok=True)
        if f"{sweep.data}:81" in said:
            sweep.mend()
        wait_for_no_process(sweep)
        results = [folder for folder in sweep.folders() if folder.result.is_file()]
        if len(results) == 24:
            break
    assert len(results) == len(sweep.folders()) == 24, statuses
    assert -9 in statuses and 1 in statuses
    for words in ("crash: RuntimeError: sabotage", "killed by signal 9", "the disk is full"):
        assert words in said, words
    assert f"{sweep.data}:81" in said
    (tmp_path / "sound").mkdir()
    nan = {key: kind for key, kind in KINDS.items() if kind == "nan"}
    sound = Sweep(tmp_path / "sound", tmp_path / "runs", nan)
    assert sound.launch(*GRID)[0] == 1  # diverged ones
    for folder in results:
        events, kind = Counter(sweep.events(folder)), kind_of(folder)
        last = "diverged" if kind == "nan" else "done"
        assert events["done"] + events["diverged"] == events[last] == 1, folder.path.name
        assert not any(path.name.startswith(".") for path in folder.path.iterdir())
        assert not folder.failure.exists()
        if kind == "memory":
            assert read_json(folder.meta)[HALVED] == 1
    compare(sweep, sound)


def kind_of(folder: RunFolder) -> str | None:
    """What happened to the run."""
    meta = read_json(folder.meta)
    return KINDS.get(f"{meta['choices']['task']}-{meta['seed']}")


def compare(sweep: Sweep, sound: Sweep) -> None:
    """The runs of both have the same numbers, but where batches were halved."""

    def by_choice(of: Sweep) -> dict[tuple[str, str, int], object]:
        found: dict[tuple[str, str, int], object] = {}
        for folder in of.folders():
            meta = read_json(folder.meta)
            if kind_of(folder) != "memory":
                key = (meta["choices"]["task"], meta["choices"]["optimizer"], meta["seed"])
                found[key] = (rows_of(folder), untimed(read_json(folder.result)))
        return found

    assert by_choice(sweep) == by_choice(sound)


def wait_for_no_process(sweep: Sweep) -> None:
    """A run whose launcher was killed ends within a step; nothing outlives it for long."""
    end = time.monotonic() + 60
    while left := sweep.processes():
        assert time.monotonic() < end, left
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_that_is_launched_twice_at_once_trains_each_run_once(
    tmp_path: Path, launcher: str
) -> None:
    """12 runs; both commands end with 0, or with 75 where the other was still at a run."""
    sweep = Sweep(tmp_path, tmp_path / "runs", {})
    grid = ["task=synthetic_reviews", "optimizer=mezo,adamw", "seed=0,1,2,3,4,5"]
    grid += ["hydra/launcher=local", "hydra.launcher.n_jobs=2"] if launcher == "local" else []
    both = [sweep.start(*grid) for _ in range(2)]
    ends = [process.communicate(timeout=600) for process in both]
    assert {process.returncode for process in both} <= {0, 75}, ends
    assert len(sweep.folders()) == 12
    for folder in sweep.folders():
        assert sweep.events(folder) == ["begun", "done"], folder.path.name
    wait_for_no_process(sweep)
    shared = [out for out, _ in ends if "skipped" in out] + [e for _, e in ends if "elsewhere" in e]
    assert shared  # the two did meet
    assert sweep.launch(*grid)[0] == 0
