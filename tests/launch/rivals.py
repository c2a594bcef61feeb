"""Two processes that are at one run, one after the other; the first stands still meanwhile.

Each stops itself (SIGSTOP) at an instant of `tests.run.killer`, so that the order of all writes is
the test's to choose.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.run.attempts import Attempts, Compose
from zobench.launch.job import Job
from zobench.settings import RunSettings

LEASE, HEARTBEAT = 0.6, 0.2  # seconds, of the processes here


class Rivals:
    """A process that forks attempts and does not wait for them; a context manager."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-W", "ignore", "-m", "tests.launch.rivals"]
        pipe: Any = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONPATH": paths}
        )

    def start(self, job: Job) -> int:
        """The process id of an attempt at the run."""
        return self._ask({"job": job.as_json()})

    def wait(self, process: int) -> int:
        """How it has ended: its exit status, or -SIGSTOP where it stands still."""
        return self._ask({"wait": process})

    def go_on(self, process: int) -> int:
        """How it ends when it no longer stands still."""
        os.kill(process, signal.SIGCONT)
        return self.wait(process)

    def _ask(self, asked: dict[str, Any]) -> int:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer: int = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> "Rivals":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Contested(Attempts):
    """Attempts at a run of which two are under way at once."""

    def __init__(self, rivals: Rivals, compose: Compose, root: Path, *overrides: str) -> None:
        super().__init__(None, compose, root, *overrides)  # type: ignore[arg-type]
        self.rivals = rivals

    def attempt(self, at: str, **replaced: Any) -> int:
        """An attempt by itself; its exit status."""
        job = self.job(at, -1)
        changed = RunSettings.of({**job.settings.plain, **replaced})
        return self.rivals.wait(self.rivals.start(job._replace(settings=changed)))

    def contest(self, first: int, second: int) -> tuple[int, int]:
        """Statuses of two attempts at `at-FIRST-SECOND`, begun one after the other.

        The first stands still from instant `first` until the second, which takes its run over, has
        reached instant `second`; that one stands still until the first has ended.
        """
        at = f"at-{first}-{second}"
        one = self.rivals.start(self.job(at, first))
        assert self.rivals.wait(one) == -signal.SIGSTOP
        time.sleep(LEASE)  # of an owner that is silent for less the lock is not even waited for
        two = self.rivals.start(self.job(at, second))
        reached = self.rivals.wait(two)
        ended = self.rivals.go_on(one)
        return ended, reached if reached != -signal.SIGSTOP else self.rivals.go_on(two)

    def job(self, at: str, instant: int) -> Job:
        """The run, which stands still at an instant."""
        logger = {"_target_": self.killer, "at": instant, "by": "SIGSTOP"}
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        return Job(self.folder(at), RunSettings.of(self.settings | {"logger": logger}), meta)


def _forked(plain: list[Any]) -> int:
    """The process of an attempt, which never returns from here."""
    from zobench.launch.process import attempt

    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    status = 1
    try:
        status = attempt([Job.from_json(*plain)])[0].exit_status
    finally:
        os._exit(status)


def _serve() -> None:
    import torch._dynamo  # noqa: F401

    import zobench.run.runner  # noqa: F401
    from zobench.launch import run_lock
    from zobench.launch.process import import_for
    from zobench.schema import composed

    run_lock.LEASE, run_lock._HEARTBEAT = LEASE, HEARTBEAT
    import_for(RunSettings.of(composed()))
    living = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "job" in asked:
            answer = _forked(asked["job"])
            living.add(answer)
        else:
            _, status = os.waitpid(asked["wait"], os.WUNTRACED)
            stands = os.WIFSTOPPED(status)
            answer = -signal.SIGSTOP if stands else os.waitstatus_to_exitcode(status)
            living -= set() if stands else {asked["wait"]}
        print(json.dumps(answer), flush=True)
    for process in living:  # of a test that failed
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
