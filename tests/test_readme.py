"""What README, Start and tutorials show works as shown."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pages import DOCS, README, blocks, runs, text_of
from zobench.build import check
from zobench.paths import conf_dir
from zobench.schema import composed

LOOP = DOCS / "tutorials" / "loop.md"
SHOWN = [README, DOCS / "start.md", *sorted((DOCS / "tutorials").glob("*.md"))]


@pytest.mark.parametrize(
    ("page", "number"),
    [(README, 0), (LOOP, 1)],
    ids=lambda x: getattr(x, "stem", str(x)),
)
def test_a_python_example_runs_and_learns(page: Path, number: int, tmp_path: Path) -> None:
    """The lines around ZOOptimizer, copied into a file, reach a small loss."""
    code = blocks(page, "python")[number]
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout.split()[-1]) < 0.05
    assert "same bits: False" not in answer.stdout


def test_the_readme_and_the_tutorial_show_one_example() -> None:
    """A change of one is a change of both."""
    assert blocks(README, "python") == blocks(LOOP, "python")[:1]


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_every_command_line_composes(page: Path, compose: Callable[..., dict[str, Any]]) -> None:
    """Each `zobench` line, first value of each list, composes and binds."""
    text_of(page)
    for words in runs(page):
        if words[:1] == ["pretrain"] or "--config-dir" in words:
            continue  # the latter: below, and in test_extension.py
        own = [word for word in words if "=" in word and not word.startswith("tokens=")]  # of fits
        overrides = [re.split(r",(?![^\[]*\])", word)[0] for word in own]
        check(compose(*overrides))


def test_there_are_command_lines_to_compose() -> None:
    """The pages are found, and so are the runs in them."""
    text_of(README)
    assert len(SHOWN) >= 7
    assert sum(len(runs(page)) for page in SHOWN) > 20


def test_the_task_of_a_users_own_composes(tmp_path: Path) -> None:
    """The yaml of the data tutorial, put where it says, is the task of the command beside it."""
    page = DOCS / "tutorials" / "data.md"
    [yaml] = blocks(page, "yaml", "mine/task/reviews.yaml")
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "reviews.yaml").write_text(yaml)
    [words] = [words for words in runs(page) if "--config-dir" in words]
    folder = words[words.index("--config-dir") + 1]
    overrides = [word.split(",")[0] for word in words if "=" in word]
    search = f"hydra.searchpath=[file://{tmp_path / folder}]"
    settings = composed(search, *overrides)
    check(settings)
    assert settings["task"]["sizes"]["dev"] == 50
    assert settings["task"]["data_dir"] == "reviews.csv"


def test_the_reviews_of_the_data_tutorial_are_made(tmp_path: Path) -> None:
    """Its script writes the rows that the page shows."""
    page = DOCS / "tutorials" / "data.md"
    [script] = blocks(page, "python", "make_reviews.py")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    rows = (tmp_path / "reviews.csv").read_text().splitlines()
    assert len(rows) == 481 and len(set(rows)) == 481
    assert "\n".join(rows[:3]) in text_of(page)


def test_every_experiment_is_documented() -> None:
    """README or a page of docs/ names each overlay."""
    pages = [README, *DOCS.rglob("*.md")]
    told = "".join(text_of(page) for page in pages)
    names = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    assert names <= set(re.findall(r"\w+", told))
