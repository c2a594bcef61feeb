"""What the README shows works as shown."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from zobench.build import check
from zobench.paths import PACKAGE_DIR, conf_dir

README = PACKAGE_DIR.parent / "README.md"


def blocks(language: str) -> list[str]:
    """Contents of the README's code blocks in one language."""
    if not README.is_file():
        pytest.skip("not a checkout: the README is not here")
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_python_example_runs_and_learns() -> None:
    """The ten lines of ZOOptimizer, copied into a file, reach a small loss."""
    [code] = blocks("python")
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout.split()[-1]) < 0.05


def test_every_command_line_composes(compose: Callable[..., dict[str, Any]]) -> None:
    """Each `zobench` line of the README, first value of each list, composes and binds."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    commands = [part for line in lines for part in line.split(" && ")]
    words = [shlex.split(_plain(command), comments=True) for command in commands]
    other = (["table"], ["plot"], ["report"], ["compare"])
    runs = [w[1:] for w in words if w and w[0] == "zobench" and w[1:2] not in other]
    assert len(runs) > 5
    for run in runs:
        if run[:1] == ["pretrain"]:
            continue
        overrides = [re.split(r",(?![^\[]*\])", word)[0] for word in run if "=" in word]
        check(compose(*overrides))


def _plain(command: str) -> str:
    """The command with bash's $'...' as plain quoting, which shlex knows."""
    return re.sub(
        r"\$'([^']*)'",
        lambda found: shlex.quote(found[1].encode().decode("unicode_escape")),
        command,
    )


def test_every_experiment_is_told_of() -> None:
    """README, docs/methods.md or docs/tables.md name each overlay."""
    if not README.is_file():
        pytest.skip("not a checkout: the README is not here")
    docs = README.parent / "docs"
    told = "".join(p.read_text() for p in (README, docs / "methods.md", docs / "tables.md"))
    names = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert names <= set(re.findall(r"\w+", told))
