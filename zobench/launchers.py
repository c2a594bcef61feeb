"""What zobench adds to Hydra's launchers: how many runs at once, on what, and waiting for all."""

import os
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

_MANY = 50  # runs that take seconds to compose

_compose_all = Sweeper.validate_batch_is_legal


def install_hooks() -> None:
    """Let Hydra know of `runs_at_once`, and let `_before_launch` see each batch of a sweep."""
    OmegaConf.register_new_resolver("runs_at_once", _runs_at_once, replace=True)
    setattr(Sweeper, "validate_batch_is_legal", _before_launch)  # noqa: B010  not for mypy


def share(settings: Mapping[str, Any], launcher: Any) -> dict[str, Any]:
    """Settings that follow from the launcher: a GPU for each run of joblib's, the CPUs of a job.

    joblib divides the machine's threads itself, by OMP_NUM_THREADS and the like.
    """
    taken: dict[str, Any] = {}
    if launcher._target_.endswith(".JoblibLauncher"):
        if settings["device"] in ("auto", "cuda") and visible_gpus():
            taken["device"] = "free"
    elif settings["threads"] is None and launcher.get("cpus_per_task"):
        taken["threads"] = launcher.cpus_per_task
    return taken


def _runs_at_once(device: str, runs_per_gpu: int) -> int:
    """As many as the GPUs to be seen are for, or else (-1, to joblib) cores to be used."""
    gpus = visible_gpus() if device in ("auto", "cuda", "free") else []
    return len(gpus) * runs_per_gpu or -1


def _before_launch(sweeper: Any, batch: Sequence[Sequence[str]]) -> None:
    """Find out early whether the runs can be composed, without composing all of them."""
    if len(batch) >= _MANY:
        print(f"{len(batch)} runs: composing some of each kind before the first begins", flush=True)
    groups = sweeper.hydra_context.config_loader.get_group_options

    def is_group(override: str) -> bool:
        name = override.lstrip("+~").partition("=")[0].partition("@")[0]
        return bool(groups(name))

    _compose_all(sweeper, kinds_of(batch, is_group))
    if ".hydra_submitit_launcher." in sweeper.config.hydra.launcher._target_:
        print(
            f"{len(batch)} runs: a job each; this command waits for them, and may be left: they go"
            " on, and launched again it skips what is done",
            flush=True,
        )
        _outlast_lost_jobs()


def kinds_of(
    batch: Sequence[Sequence[str]], is_group: Callable[[str], bool]
) -> list[Sequence[str]]:
    """The jobs among which every override is, and every combination of options of groups.

    Which keys there are depends on the options alone, and whether a value fits on its key.
    """
    seen: set[Any] = set()
    kept = []
    for overrides in batch:
        marks = {tuple(filter(is_group, overrides)), *overrides}
        if not marks <= seen:
            kept.append(overrides)
            seen |= marks
    return kept


def _outlast_lost_jobs() -> None:
    """Let a job that ended without a word be a failed run; Hydra would not wait for the others."""
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    plain = Job.results

    def results(job: Any) -> Any:
        try:
            found = plain(job)
        except (FailedJobError, UncompletedJobError) as lost:
            _report_lost(job, str(lost).strip().splitlines()[-1])
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]
        print(launch_log.counts(_rows()), flush=True)  # the job has printed it to its log
        return found

    if plain.__module__ != __name__:
        setattr(Job, "results", results)  # noqa: B010


def _report_lost(job: Any, words: str) -> None:
    """Note the run that a job of submitit's has begun, or else its overrides, as failed."""
    reason = f"job {job.job_id} ({job.state}): {words} Its log: {job.paths.stderr}"
    begun = [row for row in _rows() if row.get("job") == job.job_id]
    if begun:
        folder = RunFolder(Path(begun[0]["folder"]))
        report(Outcome("failed", folder.path.name, reason, KILLED), folder)
    else:
        report(Outcome("failed", ",".join(job.submission().args[0]), reason, KILLED))


def _rows() -> list[dict[str, Any]]:
    return launch_log.rows_of(Path(os.environ[launch_log.VARIABLE]))
