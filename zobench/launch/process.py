"""A run in a separate process: claim its folder, carry it out, and return its outcome.

Each run is a fork of a server process that has done the imports, which take four seconds: a run may
crash, run out of memory or break its CUDA context without effect on others. Where forking is not
safe, each run starts a new interpreter. If the process that started it ends, the run saves and
stops.
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
from zobench.launch.job import KILLED, Job, Outcome, ended_by, kernel_kills, note_failure
from zobench.launch.run_lock import LOST, Busy, claimed
from zobench.run.export import export_finished, lacks_export
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, read_json, write_atomically
from zobench.run.inputs import check_unchanged
from zobench.run.loggers.wandb_agent import lacks_report
from zobench.run.ranks.group import Group, here, joined, started
from zobench.run.runner import run
from zobench.run.stop import SIGNALS, Stop, Stopped
from zobench.run.together import run_together
from zobench.secret import Redacted
from zobench.settings import RunSettings
from zobench.targets import located, targets_in
from zobench.terminal import outlive_readers
from zobench.zo.part import PartError

FORKS = sys.platform == "linux"  # other systems' libraries start threads, which a fork breaks


class ForkServer:
    """A process that forks runs, one at a time; it ends with the process that made it.

    forks: if False, it becomes the first run.
    """

    def __init__(self, forks: bool = FORKS) -> None:
        self.forks = forks
        responses, other_end = os.pipe()
        module = ["-m", "zobench.launch.process"]
        command = [sys.executable, *module, str(other_end), str(int(forks))]
        # the server inherits the mask: Ctrl-C while it imports is for this process alone
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, text=True, pass_fds=(other_end,)
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(other_end)
        self._responses = os.fdopen(responses)
        self._ready = False  # it still imports

    def close(self) -> int:
        """Stop the current run, which saves, and end the server; returns its exit status."""
        assert self._process.stdin is not None
        if not self._ready:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._responses.close()
        return self._process.wait()

    def run(self, *jobs: Job) -> list[Outcome] | int | None:
        """Carry out the jobs in one process and return their outcomes.

        If the process could not send them, its exit status (-N for signal N), or None if unknown.
        """
        assert self._process.stdin is not None
        try:
            request = [job.as_json() for job in jobs]
            self._ready = self._ready or bool(self._responses.readline())
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._responses.readline()
        except BrokenPipeError:
            return None
        response = json.loads(line) if line else None
        return [Outcome(*row) for row in response] if isinstance(response, list) else response


_server: ForkServer | None = None


def run_jobs(*jobs: Job) -> list[Outcome]:
    """Carry out jobs, side by side, in one separate process; under torchrun, in all ranks."""
    global _server
    if started():
        return attempt_as_first(jobs[0])
    if _server is None:
        _server = ForkServer()
        atexit.register(_server.close)
    killed = kernel_kills()
    try:
        response = _server.run(*jobs)
    except BaseException:  # a stop request: the next run must not get this response
        close_server()
        raise
    if response is None or not _server.forks:  # the next run needs a new server
        status = close_server()
        response = status if response is None else response
    if isinstance(response, list):
        return response
    memory = kernel_kills() > killed
    return [_without_response(job.folder, response, memory) for job in jobs]


def _without_response(folder: RunFolder, status: int, memory: bool) -> Outcome:
    """The outcome of a run whose process died. memory: the kernel killed one for memory."""
    if status == LOST:
        return Outcome.elsewhere(folder)
    if folder.result.is_file():
        return Outcome.ended(folder)
    kind, reason = KILLED, f"exited with status {status}"
    if status < 0:
        kind, reason = ended_by(-status, memory)
    outcome = Outcome("failed", folder.path.name, reason, kind)
    if folder.config.is_file():  # else the run had not begun
        with suppress(Busy, OSError), claimed(folder.path):
            if not folder.result.is_file():
                note_failure(folder, outcome)
    return outcome


def attempt_as_first(job: Job) -> list[Outcome]:
    """Carry out a run in this process, as the first rank, together with the others."""
    group = joined()
    for old in job.folder.path.glob("stderr-rank*.log"):
        old.unlink()
    [outcome] = attempt([job], here())
    if outcome.status in ("failed", "stopped"):
        group.sound = False  # the others have ended, or will notice that this rank has
    return [outcome]


def close_server() -> int:
    """Close the server, if there is one; returns its exit status."""
    global _server
    if _server is None:
        return 0
    atexit.unregister(_server.close)
    status = _server.close()
    _server = None
    return status


def serve(requests: TextIO, responses: TextIO, forks: bool) -> None:
    """Write a line; then for each line of requests, fork a process and write its response."""
    for number in SIGNALS:  # the run and the launching process handle them
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    print("ready", file=responses, flush=True)
    for line in requests:
        jobs = [Job.from_json(*job) for job in json.loads(line)]
        for job in jobs:
            import_for(job.settings)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the run handles them
        if not forks:
            _become_run(jobs, requests.fileno(), responses.fileno())
        pipe, other_end = os.pipe()
        child = os.fork()
        if child == 0:
            _become_run(jobs, requests.fileno(), other_end)
        os.close(other_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(child, 0)
        print(_response(pipe, os.waitstatus_to_exitcode(status)), file=responses, flush=True)


def _response(pipe: int, status: int) -> str:
    """The outcomes that a process wrote to the pipe; its exit status if it wrote none."""
    os.set_blocking(pipe, False)  # a child of the run may still have the other end open
    try:
        return os.read(pipe, 1 << 16).decode().strip() or json.dumps(status)
    except BlockingIOError:
        return json.dumps(status)
    finally:
        os.close(pipe)


def import_for(settings: RunSettings) -> None:
    """Import the modules that the run needs; the run itself reports failures."""
    for key, target in targets_in(settings.plain):
        try:
            module = sys.modules[located(target, key).__module__]
        except Exception:
            continue
        getattr(module, "preload", lambda _: None)(settings.model)


def _become_run(jobs: Sequence[Job], requests: int, response: int) -> NoReturn:
    """Carry out the runs, write their outcomes to the pipe, and exit."""
    parent = os.dup(requests)
    threading.Thread(target=_stop_at_close, args=(parent,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        outcomes = attempt(jobs)
        status = max(outcome.exit_status for outcome in outcomes)
        os.write(response, (json.dumps(outcomes) + "\n").encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _stop_at_close(pipe: int) -> None:
    """Send SIGTERM to this process when the other end of the pipe is closed."""
    poll = select.poll()
    poll.register(pipe, 0)  # POLLHUP is always reported
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)


def attempt(jobs: Sequence[Job], group: Group | None = None) -> list[Outcome]:
    """Carry out the runs in this process, unless another process has claimed one of them.

    Standard error goes to the first run's log; failures also to `failure.json`. group: the ranks of
    a single run, if this is the first of them.
    """
    folders = [job.folder for job in jobs]
    try:
        with ExitStack() as stack:
            for folder in folders:
                folder.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(folder.path))
            for job in jobs:
                if twin := job.twin():
                    raise Busy(f"{twin.name} is the same run")
                if job.folder.result.is_file():
                    check_unchanged(job.folder, job.settings)
                if lacks_report(job.folder, job.settings):
                    write_atomically(job.folder.mirroring, "")
            if all(folder.finished for folder in folders):
                for job in jobs:
                    if lacks_export(job.folder, job.settings):
                        export_finished(job.folder)
                return [Outcome.existing(folder) for folder in folders]
            for job in jobs:
                job.begin()
            stack.enter_context(logging_to(folders[0].log))
            note_begin(folders)
            if group is not None:
                group.from_first(str(folders[0].path.resolve()))
            outcomes = [
                Outcome.ended(folder) if folder.result.is_file() else outcome
                for folder, outcome in zip(folders, run_here(folders, group), strict=True)
            ]
            note_end(folders, outcomes)
            return outcomes
    except Busy as busy:
        for folder in folders:
            with suppress(OSError):
                folder.path.rmdir()  # unless it has files
        return [Outcome.elsewhere(folder, str(busy)) for folder in folders]
    except Exception as error:  # of the folder itself: no run has begun
        return [Outcome.failed(folder, error) for folder in folders]


def run_here(folders: Sequence[RunFolder], group: Group | None = None) -> list[Outcome]:
    """Carry out the runs of these folders; returns their outcomes."""
    faulthandler.enable()
    try:
        with Stop() as stop:
            alone = len(folders) == 1
            results = [run(folders[0], stop, group)] if alone else run_together(folders)
        return [Outcome.of(f, result) for f, result in zip(folders, results, strict=True)]
    except Stopped as stop_signal:
        print(f"stopped by {stop_signal}; the next launch resumes the run", file=sys.stderr)
        ends = [Outcome.stopped(folder) for folder in folders]
    except Exception as raised:
        error = UserError(f"optimizer: {raised}") if isinstance(raised, PartError) else raised
        ends = [Outcome.failed(folder, error) for folder in folders]
        if isinstance(error, UserError) and not os.environ.get("ZOBENCH_TRACE"):
            print(f"error: {ends[0].reason}", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        for folder, end in zip(folders, ends, strict=True):
            noted = end.kind == KILLED and folder.failure.is_file()  # by the rank that failed
            if not folder.result.is_file() and not noted:
                note_failure(folder, end)
    return ends


@contextmanager
def logging_to(log: Path) -> Iterator[None]:
    """Write the process's standard error to a file inside the block, output of C code included."""
    before = os.dup(2)
    log.unlink(missing_ok=True)  # an earlier process keeps its own, unlinked file
    with log.open("w", buffering=1) as file, redirect_stderr(Redacted(file)):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def note_begin(folders: Sequence[RunFolder]) -> None:
    """Log that an attempt begins; one that has no end in the file was killed."""
    for folder in folders:
        _append(folder, {"event": "begun", "pid": os.getpid(), "host": platform.node()})


def note_end(folders: Sequence[RunFolder], outcomes: Sequence[Outcome]) -> None:
    """Log how the attempt ended; a failure with the last lines of its stderr."""
    for folder, outcome in zip(folders, outcomes, strict=True):
        row: dict[str, Any] = {"event": outcome.status}
        if outcome.status == "failed" and folder.failure.is_file():
            row |= {"tail": read_json(folder.failure)["tail"]}
        if outcome.kind:
            row |= {"kind": outcome.kind, "reason": outcome.reason}
        try:
            _append(folder, row)
        except OSError:
            return  # the disk is full; the launching process gets the outcome


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **row})
    fence_of(folder.path).check()
    with folder.attempts.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401  torch's first optimizer imports it

    import zobench.run.runner  # noqa: F401

    outlive_readers()
    # the only threads are idle pools of libraries, whose own handlers support a fork
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    try:
        with os.fdopen(int(sys.argv[1]), "w") as out:
            serve(sys.stdin, out, forks=bool(int(sys.argv[2])))
    except BrokenPipeError:  # the launching process has ended
        os._exit(0)
