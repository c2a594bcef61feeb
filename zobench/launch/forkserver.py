"""Starts runs quickly: each is a fork of one process that has the imports behind it.

A run remains a process of its own, which may crash, run out of memory or poison its CUDA context
alone: the server imports and forks, and does nothing else. Without it a run spends four seconds on
imports; a sweep of small runs spends half its time on them. Where forking is not safe, runs start
from nothing. A run does not outlive the process that started it: it is then asked to stop.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TextIO

from zobench.launch.attempt import Ending, Order, attempt
from zobench.launch.failure import ended_by, kernel_kills
from zobench.launch.torchrun import carry_out_here
from zobench.run.ranks.group import started
from zobench.run.stop import SIGNALS
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
            "zobench.launch.forkserver",
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
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._answers.close()
        return self._process.wait()

    def run(self, *orders: Order) -> Ending | None:
        """How the process of these runs ended; None when that is not known."""
        assert self._process.stdin is not None
        try:
            plain = [order.plain() for order in orders]
            print(json.dumps(plain), file=self._process.stdin, flush=True)
            answer = self._answers.readline()
        except BrokenPipeError:
            return None
        return Ending(*json.loads(answer)) if answer else None


_server: ForkServer | None = None


def carry_out(*orders: Order) -> Ending:
    """Carry out a run in a process of its own; several, side by side in one process.

    Under torchrun the run is this process's, and that of all other ranks.
    """
    global _server
    if started():
        return carry_out_here(orders[0])
    if _server is None:
        _server = ForkServer()
        atexit.register(_server.close)
    killed = kernel_kills()
    try:
        ending = _server.run(*orders)
    except BaseException:  # asked to stop: the next run must not be given this one's answer
        dismiss()
        raise
    if ending is None or not _server.forks:  # the next run gets another
        status = dismiss()
        ending = ending or Ending(status)
    if ending.status < 0:
        return Ending(ending.status, *ended_by(-ending.status, kernel_kills() > killed))
    return ending


def dismiss() -> int:
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
        orders = [Order.of(plain) for plain in json.loads(line)]
        for order in orders:
            import_for(order.described())
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the run listens
        if not forks:
            _become_run(orders, requests.fileno(), answers.fileno())
        said, other_end = os.pipe()
        child = os.fork()
        if child == 0:
            _become_run(orders, requests.fileno(), other_end)
        os.close(other_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _, status = os.waitpid(child, 0)
        print(_heard(said, os.waitstatus_to_exitcode(status)), file=answers, flush=True)


def _heard(said: int, status: int) -> str:
    """What a process said of its end; of one that could not, the status alone."""
    os.set_blocking(said, False)  # the other end may still be open, in a process of the run's own
    try:
        return os.read(said, 1 << 16).decode().strip() or json.dumps([status])
    except BlockingIOError:
        return json.dumps([status])
    finally:
        os.close(said)


def import_for(settings: Mapping[str, Any]) -> None:
    """Import what the run will import; one that cannot be imported is the run's to report."""
    for key, target in targets_in(settings):
        try:
            module = sys.modules[located(target, key).__module__]
        except Exception:
            continue
        getattr(module, "preload", lambda _: None)(settings)


def _become_run(orders: Sequence[Order], requests: int, said: int) -> NoReturn:
    """Carry the runs out, say how they ended, and end; nothing of the process that forked stays."""
    wanted = os.dup(requests)
    threading.Thread(target=_stop_without, args=(wanted,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        ending = attempt(orders)
        status = ending.status
        os.write(said, (json.dumps(ending) + "\n").encode())
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

    # what has threads here are libraries' idle pools, which their own handlers see through a fork
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    try:
        with os.fdopen(int(sys.argv[1]), "w") as out:
            serve(sys.stdin, out, forks=bool(int(sys.argv[2])))
    except BrokenPipeError:  # whoever wanted the run is gone
        os._exit(0)
