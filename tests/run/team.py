"""Ranks without torchrun's start: forks of a process that has the imports behind it.

Each rank finds the environment that torchrun would give it, so it carries out the same command.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.run.attempts import rows_of, untimed
from zobench.run.folder import RunFolder, read_json


class Team:
    """A process that forks ranks; a context manager. Runs land in `runs`."""

    def __init__(self, runs: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths}
        command = [sys.executable, "-W", "ignore", "-m", "tests.run.team"]
        pipe: Any = subprocess.PIPE
        self.runs = runs
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=root, env=environment
        )

    def __call__(
        self, size: int, *arguments: str, at: str = "", planted: str | None = None
    ) -> list[int]:
        """Exit status of each rank of `torchrun --nproc-per-node SIZE -m zobench ARGUMENTS`.

        -N for signal N. at: the folder below `runs`. planted: a function of a rank's number that
        each calls first, as module.name. What they print is in `at`.out there.
        """
        asked = {"size": size, "arguments": arguments, "runs": str(self.runs / at)}
        asked |= {"port": _free_port(), "planted": planted}
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        statuses: list[int] = json.loads(self._process.stdout.readline())
        return statuses

    def said(self, at: str) -> str:
        """What the ranks printed, in any order."""
        return (self.runs / f"{at}.out").read_text()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _forked(asked: dict[str, Any], rank: int) -> int:
    """The process of a rank, which never returns from here."""
    child = os.fork()
    if child:
        return child
    size = str(asked["size"])
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(asked["port"])}
    os.environ["ZOBENCH_RUNS"] = asked["runs"]
    out = os.open(asked["runs"] + ".out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    status = 1
    try:
        if asked["planted"]:
            module, _, name = asked["planted"].rpartition(".")
            getattr(importlib.import_module(module), name)(rank)
        from zobench.cli import run_command

        status = run_command(asked["arguments"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve() -> None:

    from zobench.launch.process import import_for
    from zobench.schema import composed
    from zobench.settings import RunSettings

    import_for(RunSettings.of(composed()))
    sys.argv = ["zobench"]
    for line in sys.stdin:
        asked = json.loads(line)
        children = [_forked(asked, rank) for rank in range(asked["size"])]
        ended = {}
        for _ in children:
            child, status = os.wait()
            ended[child] = os.waitstatus_to_exitcode(status)
        print(json.dumps([ended[child] for child in children]), flush=True)


def overrides(*more: str) -> Sequence[str]:
    """A small run: 12 steps on 48 examples, evaluated three times."""
    sizes = ("task.sizes.train=48", "task.sizes.dev=24", "task.sizes.test=40")
    steps = ("budget.steps=12", "train.eval_every=5", "train.log_every=2", "train.batch_size=8")
    return (*sizes, *steps, "evaluation.batch_size=8", "threads=1", "logger=none", *more)


def alone_in(team: Team) -> Callable[..., RunFolder]:
    """A function of overrides: the folder of that run by one process that was left alone."""
    known: dict[tuple[str, ...], RunFolder] = {}

    def alone(*more: str) -> RunFolder:
        if more not in known:
            at = f"alone-{len(known)}"
            assert team(1, *overrides(*more), at=at) == [0], team.said(at)
            known[more] = folder_in(team, at)
        return known[more]

    return alone


def folder_in(team: Team, at: str) -> RunFolder:
    """The only run there."""
    (config,) = (team.runs / at).rglob("config.yaml")
    return RunFolder(config.parent)


def check_same(folder: RunFolder, like: RunFolder) -> None:
    """Ledger, weights, metrics, predictions and result, but for times and memory; no file more."""
    for name in ("ledger", "weights", "predictions"):
        mine, theirs = getattr(folder, name), getattr(like, name)
        assert mine.is_file() == theirs.is_file(), name
        assert not mine.is_file() or mine.read_bytes() == theirs.read_bytes(), name
    assert rows_of(folder) == rows_of(like)
    assert untimed(read_json(folder.result)) == untimed(read_json(like.result))
    assert {path.name for path in folder.path.iterdir()} == {
        path.name for path in like.path.iterdir()
    }


if __name__ == "__main__":
    _serve()
