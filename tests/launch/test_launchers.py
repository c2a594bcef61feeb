"""Hydra's launchers: what a run gets from them, and that no sweep under them loses a run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from tests.run.test_stop import LONG, alive, below, wait_for
from zobench import launchers
from zobench.launch import launch_log
from zobench.paths import conf_dir
from zobench.run.folder import read_json
from zobench.run.stop import REQUEUE
from zobench.schema import register

SHORT = (
    *("logger=none", "threads=1", "budget.steps=4", "train.batch_size=4", "suite=s"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=16"),
)
forked = pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")


def launcher(*overrides: str) -> DictConfig:
    """The composed settings of Hydra's launcher."""
    register()
    launchers.install_hooks()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("config", list(overrides), return_hydra_config=True)
    config.hydra.runtime.choices = {}
    OmegaConf.resolve(config.hydra.launcher)
    settings: DictConfig = config.hydra.launcher
    return settings


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machine's GPUs; a test may add some."""
    names: list[str] = []
    monkeypatch.setattr(launchers, "visible_gpus", lambda: names)
    return names


def test_a_local_run_has_a_gpu_of_its_own_or_a_core(gpus: list[str]) -> None:
    """As many at once as there are GPUs, each on a free one; where there are none, as cores."""
    local = launcher("hydra/launcher=local")
    assert local.n_jobs == -1
    assert launchers.share({"device": "auto", "threads": None}, local) == {}
    gpus += ["GPU-a", "GPU-b", "GPU-c"]
    local = launcher("hydra/launcher=local")
    assert local.n_jobs == 3
    assert launcher("hydra/launcher=local", "runs_per_gpu=4").n_jobs == 12
    assert launcher("hydra/launcher=local", "device=cpu", "runs_per_gpu=4").n_jobs == -1
    assert launcher("hydra/launcher=local", "hydra.launcher.n_jobs=7").n_jobs == 7
    for device in ("auto", "cuda"):
        taken = launchers.share({"device": device, "threads": None}, local)
        assert taken == {"device": "free"}
    for device in ("cpu", "cuda:1"):
        assert launchers.share({"device": device, "threads": None}, local) == {}


def test_a_slurm_run_has_the_gpu_and_the_cpus_of_its_job(gpus: list[str]) -> None:
    """One GPU to a job, which is queued again after its time; threads as its CPUs unless given."""
    gpus += ["GPU-a"]
    slurm = launcher("hydra/launcher=slurm", "suite=mine", "hydra.launcher.cpus_per_task=3")
    assert slurm._target_.endswith(".SlurmLauncher")
    assert (slurm.name, slurm.gpus_per_node, slurm.tasks_per_node) == ("mine", 1, 1)
    assert slurm.max_num_timeout > 10 and slurm.signal_delay_s >= 120
    assert launchers.share({"device": "auto", "threads": None}, slurm) == {"threads": 3}
    assert launchers.share({"device": "auto", "threads": 2}, slurm) == {}


def test_a_grid_is_composed_in_part() -> None:
    """Each override occurs in what is kept, and so does each combination of options."""
    grid = [
        [f"optimizer={o}", f"task={t}", f"seed={s}", f"optimizer.lr={r}"]
        for o in "abc"
        for t in "de"
        for s in range(5)
        for r in (1, 2)
    ]

    def is_group(override: str) -> bool:
        return override.startswith(("optimizer=", "task="))

    kept = launchers.kinds_of(grid, is_group)
    assert len(kept) == 3 * 2 + 5  # the first of each combination, then what it did not have
    assert {o for job in kept for o in job} == {o for job in grid for o in job}
    assert {tuple(job[:2]) for job in kept} == {tuple(job[:2]) for job in grid}


def test_a_lost_job_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was killed or raised is noted with its overrides; the others' results are kept."""
    from submitit import JobEnvironment, LocalExecutor
    from submitit.core.core import Job
    from submitit.core.utils import UncompletedJobError

    monkeypatch.setenv(launch_log.VARIABLE, "")  # put back afterwards
    launch_log.begin(str(tmp_path), "s", [], 3)
    monkeypatch.setattr(Job, "results", Job.results)  # put back afterwards
    monkeypatch.setattr(Job, "_results_timeout_s", 0)  # for a shared file system to show the file
    launchers._tolerate_lost_jobs()
    launched = tmp_path / "s" / "run"
    executor = LocalExecutor(tmp_path / "jobs")

    def killed(_: Sequence[str]) -> None:
        job_id = JobEnvironment().job_id
        launch_log.note({"run": "run", "status": "begun", "job": job_id, "folder": str(launched)})
        os.kill(os.getpid(), signal.SIGKILL)

    def raising(_: Sequence[str]) -> None:
        raise UncompletedJobError("no more of this")

    jobs = [executor.submit(job, ["seed=0", "task=x"]) for job in (killed, raising, len)]
    results: list[Any] = [job.results()[0] for job in jobs]
    assert results[2] == 2 and all(result.return_value is None for result in results[:2])
    noted = launch_log.rows_of(Path(os.environ[launch_log.VARIABLE]))
    rows = [row for row in noted[1:] if row["status"] == "failed"]
    assert [(row["run"], row["folder"]) for row in rows] == [
        ("run", "run"),
        (None, "seed=0,task=x"),
    ]
    assert launch_log.counts(noted).running == 0
    for row, job in zip(rows, jobs, strict=False):
        assert f"job {job.job_id} " in row["reason"] and str(job.paths.stderr) in row["reason"]


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`sweep("hydra/launcher=local", ...)`: a `zobench -m` command of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        code = "from zobench.cli import main; main()"
        environment = os.environ | {"ZOBENCH_RUNS": str(tmp_path / "runs")}
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-m", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for each in [process.pid, *below(process.pid)]:  # submitit's jobs would go on
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def folders(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "runs" / "s").glob("*/config.yaml"))


@pytest.mark.faults
@pytest.mark.parametrize("name", ["local", "submitit_local"])
def test_a_sweep_under_a_launcher(
    sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path, name: str
) -> None:
    """All runs have results, launched again all are skipped; a bad one fails, the others do not."""
    grid = (*SHORT, f"hydra/launcher={name}", "seed=0,1,2,3")
    status, out, err = ended(sweep(*grid))
    assert status == 0 and "4 runs: 4 done" in out, err
    results = [read_json(path / "result.json") for path in folders(tmp_path)]
    assert len(results) == 4
    status, out, err = ended(sweep(*grid))
    assert status == 0 and "4 runs: 4 skipped" in out, err
    assert [read_json(path / "result.json") for path in folders(tmp_path)] == results
    status, out, err = ended(sweep(*grid[:-1], "seed=0,4", "optimizer.lr=1e-4,1e300"))
    assert status == 1 and "4 runs: " in out and "diverged" in out, (out, err)
    assert "Traceback" not in err


@forked
@pytest.mark.faults
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_local_runs_save_when_their_command_ends(
    sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path, by: signal.Signals
) -> None:
    """However it ends, two runs at once save and end, and no process is left of the command."""
    process = sweep(*LONG, "hydra/launcher=local", "hydra.launcher.n_jobs=2", "seed=0,1,2,3")
    wait_for(lambda: len(list(tmp_path.glob("runs/s/*/ledger.bin"))) == 2)
    family = below(process.pid)
    process.send_signal(by)
    status, out, err = ended(process)
    assert status == {signal.SIGTERM: REQUEUE, signal.SIGINT: 130}.get(by, -by), err
    wait_for(lambda: not any(map(alive, family)))
    assert len(folders(tmp_path)) == 2
    for folder in folders(tmp_path):
        assert "stopped by SIGTERM" in (folder / "stderr.log").read_text()
        assert not (folder / "failure.json").exists()
    if by != signal.SIGKILL:
        assert "waiting for the runs to save" in out and "Traceback" not in err


@forked
@pytest.mark.faults
def test_a_queued_job_saves_and_is_queued_again(
    sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """At submitit's signal the run saves; the job starts again and ends with the same result."""
    lasting = ("budget.steps=3000", "hydra/launcher=submitit_local", "seed=0,1")
    process = sweep(*SHORT, *lasting)
    wait_for(lambda: len(list(tmp_path.glob("runs/s/*/ledger.bin"))) == 2)
    time.sleep(0.5)
    job = submitted(process)[0]
    os.kill(job, signal.SIGUSR2)
    status, out, err = ended(process)
    assert status == 0 and "2 runs: 2 done" in out, err
    went_on = ["resumed" in (path / "stderr.log").read_text() for path in folders(tmp_path)]
    assert sorted(went_on) == [False, True]
    logs = [path.read_text() for path in (tmp_path / "runs" / "s" / ".submitit").glob("*/*.out")]
    assert sorted(log.count("Loading pickle") for log in logs) == [1, 2]


@forked
@pytest.mark.faults
def test_a_killed_job_resumes_at_the_next_launch(
    sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """The command counts it as failed, waits for the rest, and names its log."""
    lasting = (*SHORT, "budget.steps=3000", "hydra/launcher=submitit_local", "seed=0,1")
    process = sweep(*lasting)
    wait_for(lambda: len(list(tmp_path.glob("runs/s/*/ledger.bin"))) == 2)
    job = submitted(process)[0]
    family = below(job)
    os.kill(job, signal.SIGKILL)
    status, out, err = ended(process)
    assert status == 1 and "2 runs: " in out and "1 failed" in out and "1 done" in out, (out, err)
    assert "killed: job " in err and ".submitit" in err and "Traceback" not in err
    wait_for(lambda: not any(map(alive, family)))
    status, out, err = ended(sweep(*lasting))
    assert status == 0 and "skipped" in out and "1 done" in out, (out, err)


def submitted(process: subprocess.Popen[Any]) -> list[int]:
    """The processes in which submitit's jobs are carried out."""
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in below(process.pid)}
    return [child for child, line in lines.items() if b"submitit.core._submit" in line]
