"""Signals: to a run, and to the command that launched it, whose run must not outlive it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zobench.run.stop import REQUEUE, Stop, Stopped

LONG = (
    *("logger=none", "threads=1", "budget.steps=1000000", "train.log_every=5", "suite=s"),
    *("train.eval_every=1000000", "task.sizes.train=40", "task.sizes.dev=8", "task.sizes.test=8"),
)


def test_the_first_signal_stops_and_the_rest_are_ignored() -> None:
    """SIGTERM raises where the process is; what then saves is not disturbed by more of them."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), Stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
    with Stop() as stop:
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_held_signal_waits_for_the_end_of_the_step() -> None:
    """Inside `held` it is only noted; it is raised when the block ends, and by no other means."""
    done = []
    with Stop() as stop:
        with pytest.raises(Stopped, match="SIGUSR1"), stop.held():
            os.kill(os.getpid(), signal.SIGUSR1)
            done.append(stop.requested)
        with pytest.raises(ZeroDivisionError), stop.held():
            _ = 1 / 0
    assert done == [True]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`launched()`: a `zobench` command that is in the middle of a run."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"ZOBENCH_RUNS": str(tmp_path)}
        code = "from zobench.cli import main; main()"
        command = [sys.executable, "-c", code, *LONG, *arguments]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        wait_for(lambda: any(tmp_path.glob("s/*/ledger.bin")))
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(happened: Callable[[], bool]) -> None:
    """Until it has; a test that waits for two minutes has failed."""
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def below(process: int) -> list[int]:
    """The process's children, their children, and so on."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except FileNotFoundError:
        return []
    children = [int(child) for child in text.split()]
    return children + [grandchild for child in children for grandchild in below(child)]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_no_run_outlives_its_launcher(
    launched: Callable[..., subprocess.Popen[str]], tmp_path: Path, by: signal.Signals
) -> None:
    """Asked to stop the command ends with 75 when its run has saved; killed, its run stops, too."""
    process = launched()
    family = below(process.pid)
    assert len(family) == 2  # what forks runs, and the run
    process.send_signal(by)
    _, err = process.communicate(timeout=120)
    wait_for(lambda: not any(map(alive, family)))
    assert process.returncode == (REQUEUE if by == signal.SIGTERM else -by)
    assert "Traceback" not in err and (by != signal.SIGTERM or "stopped by SIGTERM" in err), err
    [folder] = (tmp_path / "s").iterdir()
    assert not (folder / "failure.json").exists() and not (folder / "result.json").exists()
    assert "stopped by SIGTERM" in (folder / "stderr.log").read_text()
