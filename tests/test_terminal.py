"""The command and its terminal: a closed pipe, Ctrl-C, the version, what Hydra says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import zobench
from zobench.launch import launch_log
from zobench.terminal import Display

Command = Callable[..., tuple[int, str, str]]
QUICK = ("budget.steps=2", "logger=none", "task=quadratic_columns", "threads=1")


def test_version(command: Command) -> None:
    """One line, for both spellings."""
    for option in ("--version", "-V"):
        assert command(option) == (0, f"zobench {zobench.__version__}\n", "")


def test_output_after_the_reader_has_ended_is_discarded() -> None:
    """Also what was buffered; before that, it arrives."""
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w", buffering=1) as file:
        stream = Display(file)
        stream.write("one\n")
        assert os.read(ours, 100) == b"one\n"
        os.close(ours)
        for _ in range(3):
            print("x" * 10_000, file=stream, flush=True)
        stream.flush()
        assert not stream.isatty()


@contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, as in a terminal."""
    root = Path(__file__).resolve().parents[1]
    paths = {"PYTHONPATH": str(root), "ZOBENCH_RUNS": str(tmp_path / "runs")}
    process = subprocess.Popen(
        [sys.executable, "-m", "zobench", *arguments],
        env={**os.environ, **paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a test in the background may have been started with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.smoke
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_sweep_outlives_its_reader(tmp_path: Path, launcher: str) -> None:
    """`zobench ... | head -1`: all runs are done, nothing is on stderr."""
    sweep = ("-m", f"hydra/launcher={launcher}", *QUICK, "seed=0,1,2", "suite=s")
    with started(tmp_path, *sweep) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0 and process.stderr.read() == ""
    results = [json.loads(p.read_text()) for p in (tmp_path / "runs" / "s").rglob("result.json")]
    assert [result["status"] for result in results] == ["done"] * 3


def loads(library: str, process: int) -> bool:
    """Whether the process has a library in memory."""
    try:
        return library in Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False


STAGES: dict[str, Callable[[Path, int], bool]] = {
    "imports": lambda _, process: loads("libtorch_cpu", process),
    "launches": lambda runs, _: any(runs.glob(".launches/*.jsonl")),
}


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("launcher", ["basic", "local"])
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_during_the_start_is_one_line(tmp_path: Path, stage: str, launcher: str) -> None:
    """Of the command itself; none of its processes says a word or stays."""
    words = ("-m", f"hydra/launcher={launcher}", "seed=0,1,2,3", "logger=none", "threads=1")
    with started(tmp_path, *words) as process:
        ends = time.monotonic() + 60
        while not STAGES[stage](tmp_path / "runs", process.pid) and time.monotonic() < ends:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert len(err.splitlines()) == 1, err
    assert "interrupted" in err or "stopped by SIGINT" in err
    with suppress(ProcessLookupError):
        for _ in range(200):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        pytest.fail("a process of the command is still there")


def test_ctrl_c_in_an_import_is_never_lost() -> None:
    """Also where the imported code discards the exception, as code of torch does."""
    code = """
import os, signal, contextlib
from zobench.terminal import ended_by_interrupt
with ended_by_interrupt(), contextlib.suppress(BaseException):
    os.kill(os.getpid(), signal.SIGINT)
print("goes on")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_hydra_says_nothing_of_its_jobs(command: Command) -> None:
    """The names of the runs say it."""
    status, out, _ = command("-m", *QUICK, "seed=0,1")
    assert status == 0 and "Launching" not in out and "HYDRA" not in out and "#0" not in out


def test_logs_of_old_commands_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a month, unless the command still runs."""
    monkeypatch.setenv(launch_log.VARIABLE, "")
    folder = tmp_path / launch_log.FOLDER
    folder.mkdir()
    old = time.time() - 31 * 86_400
    for name, pid, age in (("old", 4194301, old), ("alive", os.getpid(), old), ("new", 4194301, 0)):
        plan = {"time": 0, "suite": "s", "command": [], "runs": 3, "pid": pid}
        path = folder / f"{name}.jsonl"
        path.write_text(json.dumps(plan | {"host": os.uname().nodename}) + "\n")
        if age:
            os.utime(path, (age, age))
    launch_log.begin(str(tmp_path), "s", [], 2)
    assert {path.stem for path in folder.iterdir()} >= {"alive", "new"}
    assert not (folder / "old.jsonl").exists()
