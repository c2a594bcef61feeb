"""GPUs for runs: which there are, and that no two runs alive have the same one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zobench.errors import UserError
from zobench.run import gpus
from zobench.run.device import device_named

LISTING = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa-0)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-2)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-3)
GPU 2: NVIDIA A100-SXM4-80GB (UUID: GPU-eeee-4)
"""


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        (None, ["GPU-aaaa-0", "MIG-cccc-2", "MIG-dddd-3", "GPU-eeee-4"]),
        ("2,0", ["GPU-eeee-4", "GPU-aaaa-0"]),
        ("1", ["MIG-cccc-2"]),
        ("MIG-dddd-3, GPU-ee", ["MIG-dddd-3", "GPU-eeee-4"]),
        ("0,7,2", ["GPU-aaaa-0"]),
        ("0,0", ["GPU-aaaa-0"]),
        ("", []),
        ("-1", []),
    ],
)
def test_hidden_gpus_stay_hidden(allowed: str | None, left: list[str]) -> None:
    """CUDA_VISIBLE_DEVICES has numbers or beginnings of UUIDs, up to the first that is unknown."""
    assert gpus.select_visible(allowed, LISTING) == left


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with two GPUs, as far as `nvidia-smi` goes; the folder where claims are."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "GPU 0: A (UUID: GPU-a)"\necho "GPU 1: A (UUID: GPU-b)"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(gpus.VISIBLE, "0,1")  # put back afterwards
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "_held", None)
    yield tmp_path / f"zobench-gpus-{os.getuid()}"
    if gpus._held is not None:
        gpus._held.release()


def test_a_run_sees_the_gpu_that_is_free_and_no_other(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`device=free` is the first GPU without a claim; a process keeps it at its second call."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    machine.mkdir()
    other = gpus.claim(["GPU-a"], machine, print)
    for _ in range(2):
        assert str(device_named("free")) == "cuda"
        assert os.environ[gpus.VISIBLE] == "GPU-b"
    other.release()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("runs", [1, 3])
def test_runs_spread_over_the_gpus_before_they_share_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """Each GPU is claimed once before any is claimed again, `runs` times at most."""
    machine.mkdir()
    taken = [gpus.claim(["GPU-a", "GPU-b"], machine, pytest.fail, runs) for _ in range(2 * runs)]
    names = [Path(lock.lock_file).name.partition(".")[0] for lock in taken]
    assert names == ["GPU-a", "GPU-b"] * runs
    waited: list[str] = []

    def end(sentence: str) -> None:
        waited.append(sentence)
        taken[-1].release()

    assert gpus.claim(["GPU-a", "GPU-b"], machine, end, runs).lock_file == taken[-1].lock_file
    assert len(waited) == 1
    taken[-2].release()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    assert str(device_named("free", runs_per_gpu=runs)) == "cuda"
    assert os.environ[gpus.VISIBLE] == "GPU-a"


def test_without_a_gpu_none_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what there is to choose."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="device=free: nvidia-smi shows no GPU here"):
        device_named("free")


CLAIM = """
import sys, time
from pathlib import Path
from zobench.run.gpus import claim
folder = Path(sys.argv[1])
lock = claim(["a", "b"], folder, lambda sentence: print(sentence, flush=True))
used = Path(lock.lock_file).with_suffix(".used")
used.touch(exist_ok=False)
print(used.stem, flush=True)
time.sleep(float(sys.argv[2]))
used.unlink()
"""


@pytest.fixture
def claiming(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`claiming(seconds)`: a process that claims one of two GPUs, says which, and keeps it."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float, *before: str) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-c", CLAIM, str(tmp_path), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_no_two_processes_have_the_same_gpu(
    claiming: Callable[..., subprocess.Popen[str]],
) -> None:
    """Of six that want two GPUs each gets one, once it is free; who waits says so once."""
    processes = [claiming(0.2) for _ in range(6)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert all(lines[-1] in ("a", "b") for lines in said)
    assert all(len(lines) <= 2 for lines in said)
    assert any("(2): waiting for a free one" in lines[0] for lines in said)


def test_a_claim_ends_with_its_process_and_not_before(
    claiming: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A killed run frees its GPU; the death of its launching process does not matter."""
    launcher = claiming(600, "sh", "-c", '"$0" "$@" & echo $!; wait')
    assert launcher.stdout is not None
    run, gpu = (launcher.stdout.readline().strip() for _ in range(2))
    assert gpu == "a"
    launcher.kill()
    launcher.wait()
    assert gpus.claim(["a", "b"], tmp_path, print).lock_file == str(tmp_path / "b.lock")
    waited: list[str] = []

    def kill(sentence: str) -> None:
        waited.append(sentence)
        os.kill(int(run), signal.SIGKILL)

    assert gpus.claim([gpu], tmp_path, kill).is_locked
    assert len(waited) == 1
