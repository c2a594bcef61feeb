"""A run in a process of its own: claim its folder, begin, carry it out, say how that ended.

Each process is a fork of one that has the imports behind it: it may crash, run out of memory or
poison its CUDA context alone, and the process that forks does nothing else. Without it a run spends
four seconds on imports; a sweep of small runs spends half its time on them. Where forking is not
safe, runs start from nothing. A run does not outlive the process that started it: it is then asked
to stop.
"""

import atexit
import faulthandler
import json
import os
import platform
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

from zobench.errors import UserError
from zobench.launch.job import (
    KILLED,
    Job,
    Outcome,
    elsewhere,
    ended,
    ended_by,
    existing,
    failed,
    kernel_kills,
    note_failure,
    stopped,
)
from zobench.launch.run_lock import LOST, Busy, claimed
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, read_json
from zobench.run.inputs import check_unchanged
from zobench.run.ranks.group import Group, here, joined, started
from zobench.run.runner import run
from zobench.run.stop import SIGNALS, Stop, Stopped
from zobench.run.together import run_together
from zobench.secret import Redacted
from zobench.settings import RunSettings
from zobench.targets import located, targets_in

FORKS = sys.platform == "linux"  # other systems' libraries start threads that a fork would break


class ForkServer:
    """A process that forks runs, one at a time; it ends with the process that made it.

    forks: without, it is for one run, which it becomes.
    """

    def __init__(self, forks: bool = FORKS) -> None:
        self.forks = forks
        answers, other_end = os.pipe()
        command = [
            sys.executable,
            "-m",
            "zobench.launch.process",
            str(other_end),
            str(int(forks)),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, pass_fds=(other_end,)
        )
        os.close(other_end)
        self._answers = os.fdopen(answers)

    def close(self) -> int:
        """End the process; a run that it waits for is asked to stop, and saves first.

        Returns its exit status, -N for signal N.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._answers.close()
        return self._process.wait()

    def run(self, *jobs: Job) -> list[Outcome] | int | None:
        """How the runs ended, which one process carried out.

        Of a process that could not say so its exit status, -N for signal N; None when even that is
        not known.
        """
        assert self._process.stdin is not None
        try:
            request = [job.as_json() for job in jobs]
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._answers.readline()
        except BrokenPipeError:
            return None
        said = json.loads(answer) if answer else None
        return [Outcome(*one) for one in said] if isinstance(said, list) else said


_server: ForkServer | None = None


def run_jobs(*jobs: Job) -> list[Outcome]:
    """Carry out a run in a process of its own; several, side by side in one process.

    Under torchrun the run is this process's, and that of all other ranks.
    """
    global _server
    if started():
        return attempt_as_first(jobs[0])
    if _server is None:
        _server = ForkServer()
        atexit.register(_server.close)
    killed = kernel_kills()
    try:
        answer = _server.run(*jobs)
    except BaseException:  # asked to stop: the next run must not be given this one's answer
        close_server()
        raise
    if answer is None or not _server.forks:  # the next run gets another
        status = close_server()
        answer = status if answer is None else answer
    if isinstance(answer, list):
        return answer
    memory = kernel_kills() > killed
    return [_silent(job.folder, answer, memory) for job in jobs]


def _silent(folder: RunFolder, status: int, memory: bool) -> Outcome:
    """What became of a run whose process did not say; memory: the kernel killed one for memory."""
    if status == LOST:
        return elsewhere(folder)
    if folder.result.is_file():
        return ended(folder)
    kind, reason = KILLED, f"exited with status {status}"
    if status < 0:
        kind, reason = ended_by(-status, memory)
    outcome = Outcome("failed", folder.path.name, reason, kind)
    if folder.config.is_file():  # else it had not begun
        with suppress(Busy, OSError), claimed(folder.path):
            if not folder.result.is_file():
                note_failure(folder, outcome)
    return outcome


def attempt_as_first(job: Job) -> list[Outcome]:
    """Carry out a run in this process, the first rank's, together with the other ranks."""
    group = joined()
    for old in job.folder.path.glob("stderr-rank*.log"):
        old.unlink()
    [outcome] = attempt([job], here())
    if outcome.status in ("failed", "stopped"):
        group.sound = False  # the others have ended, or will notice that this one has
    return [outcome]


def close_server() -> int:
    """End the process that forks runs, whose exit status is returned; its run is asked to save."""
    global _server
    if _server is None:
        return 0
    atexit.unregister(_server.close)
    status = _server.close()
    _server = None
    return status


def serve(requests: TextIO, answers: TextIO, forks: bool) -> None:
    """Fork a process for the runs that a line orders, and answer how it ended."""
    for number in SIGNALS:  # they are for the run, and for the process that wanted it
        signal.signal(number, signal.SIG_IGN)
    for line in requests:
        jobs = [Job.from_json(*job) for job in json.loads(line)]
        for job in jobs:
            import_for(job.settings)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the run listens
        if not forks:
            _become_run(jobs, requests.fileno(), answers.fileno())
        said, other_end = os.pipe()
        child = os.fork()
        if child == 0:
            _become_run(jobs, requests.fileno(), other_end)
        os.close(other_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(child, 0)
        print(_heard(said, os.waitstatus_to_exitcode(status)), file=answers, flush=True)


def _heard(said: int, status: int) -> str:
    """What a process said of its end; of one that could not, the status alone."""
    os.set_blocking(said, False)  # the other end may still be open, in a process of the run's own
    try:
        return os.read(said, 1 << 16).decode().strip() or json.dumps(status)
    except BlockingIOError:
        return json.dumps(status)
    finally:
        os.close(said)


def import_for(settings: RunSettings) -> None:
    """Import what the run will import; one that cannot be imported is the run's to report."""
    for key, target in targets_in(settings.plain):
        try:
            module = sys.modules[located(target, key).__module__]
        except Exception:
            continue
        getattr(module, "preload", lambda _: None)(settings.model)


def _become_run(jobs: Sequence[Job], requests: int, said: int) -> NoReturn:
    """Carry the runs out, say how they ended, and end; nothing of the process that forked stays."""
    wanted = os.dup(requests)
    threading.Thread(target=_stop_without, args=(wanted,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        outcomes = attempt(jobs)
        status = max(outcome.exit_status for outcome in outcomes)
        os.write(said, (json.dumps(outcomes) + "\n").encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _stop_without(requests: int) -> None:
    """Wait until nobody holds the other end of the pipe, and ask this process to stop."""
    gone = select.poll()
    gone.register(requests, 0)  # that the other end is closed is always told
    gone.poll()
    os.kill(os.getpid(), signal.SIGTERM)


def attempt(jobs: Sequence[Job], group: Group | None = None) -> list[Outcome]:
    """Carry out the runs, several side by side, where no other process is at one of them.

    Standard error goes to the first run's log. Whatever happens, a result is whole or not there;
    `failure.json` tells of a failure, if the disk takes it, and the outcome does so in any case.
    group: the ranks of a single run; this is the first, and the others wait for its folder.
    """
    folders = [job.folder for job in jobs]
    try:
        with ExitStack() as stack:
            for folder in folders:
                folder.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(folder.path))
            for job in jobs:
                if job.folder.result.is_file():
                    check_unchanged(job.folder, job.settings)
            if all(folder.finished for folder in folders):
                return [existing(folder) for folder in folders]
            for job in jobs:
                job.begin()
            stack.enter_context(logging_to(folders[0].log))
            note_begin(folders)
            if group is not None:
                group.from_first(str(folders[0].path.resolve()))
            outcomes = run_here(folders, group)
            note_end(folders, outcomes)
            return outcomes
    except Busy as busy:
        return [elsewhere(folder, str(busy)) for folder in folders]
    except Exception as error:  # of the folder itself: nothing has been begun
        return [failed(folder, error) for folder in folders]


def run_here(folders: Sequence[RunFolder], group: Group | None = None) -> list[Outcome]:
    """How the runs ended whose config.yaml the folders hold."""
    faulthandler.enable()
    try:
        with Stop() as stop:
            if len(folders) == 1:
                run(folders[0], stop, group)
            else:
                run_together(folders)
    except Stopped as asked:
        print(f"stopped by {asked}; started again, the run goes on", file=sys.stderr)
        ends = [stopped(folder) for folder in folders]
    except Exception as error:
        ends = [failed(folder, error) for folder in folders]
        _explain(error, ends[0].reason)
        sys.stderr.flush()
        for folder, end in zip(folders, ends, strict=True):
            told = end.kind == KILLED and folder.failure.is_file()  # by the rank that failed
            if not folder.result.is_file() and not told:
                note_failure(folder, end)
    else:
        return [ended(folder) for folder in folders]
    return [ended(f) if f.result.is_file() else end for f, end in zip(folders, ends, strict=True)]


def _explain(error: Exception, reason: str) -> None:
    """To the log: the traceback, but for what the user can mend, unless it is wanted."""
    if isinstance(error, UserError) and not os.environ.get("ZOBENCH_TRACE"):
        print(f"error: {reason}", file=sys.stderr)
    else:
        traceback.print_exc()


@contextmanager
def logging_to(log: Path) -> Iterator[None]:
    """Inside the block the process' standard error is the file, also for what is not Python."""
    before = os.dup(2)
    log.unlink(missing_ok=True)  # what an earlier process has to say goes to its own file
    with log.open("w", buffering=1) as file, redirect_stderr(Redacted(file)):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def note_begin(folders: Sequence[RunFolder]) -> None:
    """An attempt begins in this process. One without an end in the file was killed."""
    for folder in folders:
        _append(folder, {"event": "begun", "pid": os.getpid(), "host": platform.node()})


def note_end(folders: Sequence[RunFolder], outcomes: Sequence[Outcome]) -> None:
    """The attempt has ended; a failure with the end of its log, which the next attempt replaces."""
    for folder, outcome in zip(folders, outcomes, strict=True):
        row: dict[str, Any] = {"event": outcome.status}
        if outcome.status == "failed" and folder.failure.is_file():
            row |= {"tail": read_json(folder.failure)["tail"]}
        if outcome.kind:
            row |= {"kind": outcome.kind, "reason": outcome.reason}
        try:
            _append(folder, row)
        except OSError:
            return  # the disk takes no more, which the process that launched the run is told


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **row})
    fence_of(folder.path).check()
    with folder.attempts.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401  torch's optimizers import it when the first is made

    import zobench.run.runner  # noqa: F401

    # what has threads here are libraries' idle pools, which their own handlers see through a fork
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    try:
        with os.fdopen(int(sys.argv[1]), "w") as out:
            serve(sys.stdin, out, forks=bool(int(sys.argv[2])))
    except BrokenPipeError:  # whoever wanted the run is gone
        os._exit(0)
