"""Completion of the command line in bash and zsh."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stored.suites import run
from zobench.paths import conf_dir

Command = Callable[..., tuple[int, str, str]]


def completed(command: Command, line: str) -> list[str]:
    status, out, err = command("_complete", line)
    assert status == 0 and not err
    return out.rstrip("\n").split("\n")


def test_sub_commands_groups_settings_and_flags(command: Command) -> None:
    """At the first word; a complete name ends in a space, a key in =."""
    found = completed(command, "zobench ")
    assert {"table ", "list ", "optimizer=", "hydra/launcher=", "train.batch_size=", "-m"} <= {
        *found
    }
    assert "_complete " not in found and "cells=" not in found
    assert completed(command, "zobench statu") == ["status "]
    assert "table " not in completed(command, "zobench -m tab")
    assert completed(command, "zobench -m train.eval") == ["train.eval_every="]


def test_options_of_a_group(command: Command, tmp_path: Path) -> None:
    """All files of the group, after a comma too, and those of the --config-dir."""
    files = {path.stem for path in (conf_dir() / "tuning").glob("*.yaml")}
    assert {*completed(command, "zobench tuning=")} == {f"tuning={name}" for name in files}
    assert "tuning=full,lora" in completed(command, "zobench -m tuning=full,lo")
    assert completed(command, "zobench hydra/launcher=sl") == ["hydra/launcher=slurm"]
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "mine.yaml").write_text("")
    line = f"zobench --config-dir {tmp_path} tuning=mi"
    assert completed(command, line) == ["tuning=mine"]


def test_suites_follow_the_commands_that_take_one(command: Command, tmp_path: Path) -> None:
    """By the text of --help; other commands get names of files from the shell."""
    run(tmp_path / "runs" / "rates", "x")
    run(tmp_path / "runs" / "other", "x")
    for name in ("table", "plot", "status", "list", "rm", "sync"):
        assert completed(command, f"zobench {name} ra") == ["rates "], name
    assert completed(command, "zobench rerun ra") == [""]
    assert completed(command, "zobench completion ") == ["bash ", "zsh "]


def test_it_answers_at_once() -> None:
    """Under half a second, without torch and Hydra."""
    code = (
        "import sys; sys.argv = ['zobench', '_complete', 'zobench optimizer=me']\n"
        "from zobench.cli import run_command\n"
        "run_command(sys.argv[1:]); print({'torch', 'hydra', 'numpy'} & {*sys.modules})"
    )
    begin = time.perf_counter()
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 0.5
    assert "optimizer=mezo\n" in made.stdout and made.stdout.endswith("set()\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("zobench optimizer=mezo_ad", "mezo_adam"),  # bash has the part before = already
        ("zobench -m tuning=full,lo", "full,lora"),
        ("zobench complet", "completion "),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, found: str) -> None:
    """The script's function fills COMPREPLY with what replaces bash's last word."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "zobench").write_text(f'#!/bin/sh\nexec {sys.executable} -m zobench "$@"\n')
    (bin_dir / "zobench").chmod(0o755)
    script = (
        'eval "$(zobench completion bash)"\n'
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; _zobench zobench\n"
        "printf '[%s]' \"${COMPREPLY[@]}\"\n"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    made = subprocess.run(
        ["bash", "-c", f"COMP_WORDBREAKS=' \n\"=:'\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == f"[{found}]", made.stderr


def test_another_shell_is_refused(command: Command) -> None:
    with pytest.raises(SystemExit):
        command("completion", "fish")
