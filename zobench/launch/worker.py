"""Launching a run for a command: in its own process, in a worker of joblib's, in submitit's job.

Left to itself, joblib kills its workers and all below them when the command is asked to stop; and
when the command is killed, they carry out what they were given. A job of submitit's, asked to stop,
would be queued again while its run still saves.
"""

import os
import signal
import threading
import time
from pathlib import Path

from zobench.launch import launch_log
from zobench.launch.command import is_command, started_by
from zobench.launch.job import Job, launch, report, stopped
from zobench.run.stop import Stop, Stopped

_SUBMITIT = (signal.SIGUSR2, signal.SIGUSR1)  # one of them says that the job's time is over
_PAUSE = 0.2  # seconds between two looks at the command


def launch_here(job: Job) -> None:
    """Launch a job from whichever of the three processes this is."""
    asked = [number for number in _SUBMITIT if callable(signal.getsignal(number))]
    if (folder := started_by()) is not None:
        _launch_as_worker(job, folder)
    elif asked and not is_command():
        _launch_in_queue(job, asked[0])
    else:
        launch(job)


_watched = False  # whether this process looks at its command


def _launch_as_worker(job: Job, folder: Path) -> None:
    """Launch a job unless the command stops; when it does, the run saves, and the worker lives on.

    The command is told of it as of any end: joblib kills everything when it loses a worker.
    """
    global _watched
    if not _watched:
        _watched = True
        (folder / "workers").touch()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # between two jobs
        watch = threading.Thread(target=_look_at, args=(os.getppid(), folder), daemon=True)
        watch.start()
    if (folder / "stop").exists():
        return
    try:
        with Stop((signal.SIGTERM,)):
            launch(job)
    except Stopped:
        report(stopped(job.folder), job.folder)


def _look_at(command: int, folder: Path) -> None:
    """End this process with its command, whose runs then save; stop its job when it is asked to."""
    while not (folder / "stop").exists():
        if os.getppid() != command:
            os._exit(1)
        time.sleep(_PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
    while os.getppid() == command:
        time.sleep(_PAUSE)
    os._exit(1)


def _launch_in_queue(job: Job, number: signal.Signals) -> None:
    """Launch a job of submitit's: on its signal the run saves, then it queues the job again."""
    from submitit import JobEnvironment

    requeue = signal.getsignal(number)
    assert callable(requeue)
    folder, name = str(job.folder.path.resolve()), job.folder.path.name
    job_id = JobEnvironment().job_id  # for whoever looks after jobs that are lost
    launch_log.note({"run": name, "status": "begun", "job": job_id, "folder": folder})
    try:
        with Stop((number,)):
            launch(job)
    except Stopped:
        try:
            requeue(number, None)  # ends this process
        except Exception as refused:
            print(refused, flush=True)
        report(stopped(job.folder), job.folder)
