"""Extends Hydra's launchers: number of runs at once, devices, early checks, lost jobs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from zobench.launch import launch_log
from zobench.launch.job import KILLED, Outcome
from zobench.launch.launch import report
from zobench.run.folder import RunFolder
from zobench.run.gpus import visible_gpus

_MANY = 50  # more runs than this take seconds to compose

_compose_all = Sweeper.validate_batch_is_legal


def install_hooks() -> None:
    """Register the resolver `runs_at_once`, and call `_before_launch` for each batch of a sweep."""
    OmegaConf.register_new_resolver("runs_at_once", _runs_at_once, replace=True)
    setattr(Sweeper, "validate_batch_is_legal", _before_launch)  # noqa: B010  not for mypy


def share(settings: Mapping[str, Any], launcher: Any) -> dict[str, Any]:
    """Settings that follow from the launcher: a free GPU for joblib's runs, a Slurm job's CPUs.

    joblib itself limits threads, by OMP_NUM_THREADS and the like.
    """
    if launcher._target_.endswith(".JoblibLauncher"):
        free = settings["device"] in ("auto", "cuda") and visible_gpus()
        return {"device": "free"} if free else {}
    cpus = launcher.get("cpus_per_task")
    return {"threads": cpus} if settings["threads"] is None and cpus else {}


def _runs_at_once(device: str, runs_per_gpu: int) -> int:
    """The number of runs that fit the visible GPUs; without GPUs -1, joblib's "all cores"."""
    gpus = visible_gpus() if device in ("auto", "cuda", "free") else []
    return len(gpus) * runs_per_gpu or -1


def _before_launch(sweeper: Any, batch: Sequence[Sequence[str]]) -> None:
    """Compose a sample of the runs, to find errors before the first run begins."""
    if len(batch) >= _MANY:
        print(f"{len(batch)} runs: composing some of each kind before the first begins", flush=True)
    groups = sweeper.hydra_context.config_loader.get_group_options

    def is_group(override: str) -> bool:
        name = override.lstrip("+~").partition("=")[0].partition("@")[0]
        return bool(groups(name))

    _compose_all(sweeper, kinds_of(batch, is_group))
    if ".hydra_submitit_launcher." in sweeper.config.hydra.launcher._target_:
        print(
            f"{len(batch)} runs: a job each; this command waits for them. If it ends, they"
            " continue, and the next launch skips those that are done",
            flush=True,
        )
        _tolerate_lost_jobs()


def kinds_of(
    batch: Sequence[Sequence[str]], is_group: Callable[[str], bool]
) -> list[Sequence[str]]:
    """A sample of jobs with every override and every combination of group options.

    The options alone decide which keys exist, and the key which values are valid.
    """
    seen: set[Any] = set()
    kept = []
    for overrides in batch:
        marks = {tuple(filter(is_group, overrides)), *overrides}
        if not marks <= seen:
            kept.append(overrides)
            seen |= marks
    return kept


def _tolerate_lost_jobs() -> None:
    """Count a job without a result as a failed run, so that Hydra waits for the others."""
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    original = Job.results

    def results(job: Any) -> Any:
        try:
            found = original(job)
        except (FailedJobError, UncompletedJobError) as error:
            _report_lost(job, str(error).strip().splitlines()[-1])
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]
        print(launch_log.counts(launch_log.own()), flush=True)  # the job itself prints to its log
        return found

    if original.__module__ != __name__:
        setattr(Job, "results", results)  # noqa: B010


def _report_lost(job: Any, message: str) -> None:
    """Report the run that a submitit job has begun, or else its overrides, as failed."""
    reason = f"job {job.job_id} ({job.state}): {message} Its log: {job.paths.stderr}"
    begun = [row for row in launch_log.own() if row.get("job") == job.job_id]
    if begun:
        folder = RunFolder(Path(begun[0]["folder"]))
        report(Outcome("failed", folder.path.name, reason, KILLED), folder)
    else:
        report(Outcome("failed", ",".join(job.submission().args[0]), reason, KILLED))
