"""Starts runs quickly: each is a fork of one process that has the imports behind it.

A run remains a process of its own, which may crash, run out of memory or poison its CUDA context
alone: the nursery imports and forks, and does nothing else. Without it a run spends four seconds on
imports; a sweep of small runs, half its time. Where forking is not safe, runs start from nothing.
A run does not outlive the process that wanted it: when that is gone, it is asked to stop.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from zobench.run.folder import RunFolder
from zobench.run.ranks.group import started
from zobench.run.ranks.torchrun import carry_out_here
from zobench.run.stop import SIGNALS


class Nursery:
    """A process that forks runs, one at a time; it ends with the process that made it."""

    def __init__(self) -> None:
        answers, other_end = os.pipe()
        command = [sys.executable, "-m", "zobench.run.nursery", str(other_end)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, pass_fds=(other_end,)
        )
        os.close(other_end)
        self._answers = os.fdopen(answers)

    def close(self) -> None:
        """End the process; a run that it waits for is asked to stop, and saves first."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._answers.close()

    def run(self, *folders: RunFolder) -> int | None:
        """The exit status of the folders' process, -N for signal N; None when the nursery died."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(_paths(folders)), file=self._process.stdin, flush=True)
            answer = self._answers.readline()
        except BrokenPipeError:
            return None
        return int(answer) if answer else None


_nursery: Nursery | None = None


def carry_out(*folders: RunFolder) -> int:
    """Carry out a run in a process of its own; returns its exit status, -N for signal N.

    Several runs are carried out side by side in one process. Under torchrun the run is this one's,
    and that of all other ranks.
    """
    global _nursery
    if started():
        return carry_out_here(folders[0])
    if sys.platform != "linux":  # other systems' libraries start threads that a fork would break
        command = [sys.executable, "-m", "zobench.run", *_paths(folders)]
        with folders[0].log.open("w") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                return process.wait()
            except BaseException:
                process.terminate()
                raise
    if _nursery is None:
        _nursery = Nursery()
        atexit.register(_nursery.close)
    status = _nursery.run(*folders)
    if status is None:  # killed with its run, say for memory; the next run gets another
        atexit.unregister(_nursery.close)
        _nursery.close()
        _nursery = None
        return -signal.SIGKILL
    return status


def serve(requests: TextIO, answers: TextIO) -> None:
    """Fork a process for the folders that a line names, and answer with its exit status."""
    for number in SIGNALS:  # they are for the run, and for the process that wanted it
        signal.signal(number, signal.SIG_IGN)
    for line in requests:
        folders = [RunFolder(Path(path)) for path in json.loads(line)]
        for folder in folders:
            import_for(folder.settings())
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the run listens
        child = os.fork()
        if child == 0:
            _become_run(folders, requests.fileno())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _paths(folders: Sequence[RunFolder]) -> list[str]:
    return [str(folder.path.resolve()) for folder in folders]


def import_for(settings: Mapping[str, Any]) -> None:
    """Import what the run will import; one that cannot be imported is the run's to report."""
    for target in sorted(set(_targets(settings))):
        try:
            module = importlib.import_module(target.rpartition(".")[0])
        except Exception:
            continue
        getattr(module, "preload", lambda: None)()


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from [str(value)] if key == "_target_" else _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _become_run(folders: Sequence[RunFolder], requests: int) -> None:
    from zobench.run.__main__ import main

    wanted = os.dup(requests)
    threading.Thread(target=_stop_without, args=(wanted,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(folders[0].log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    status = 1
    try:
        status = main(_paths(folders))
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


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401  torch's optimizers import it when the first is made

    import zobench.run.runner  # noqa: F401

    try:
        with os.fdopen(int(sys.argv[1]), "w") as out:
            serve(sys.stdin, out)
    except BrokenPipeError:  # whoever wanted the run is gone
        os._exit(0)
