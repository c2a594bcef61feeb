"""Variants of tasks that no search has seen, and the balance of classes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from zobench.build import build
from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.settings import identity
from zobench.tasks.draw import Draw
from zobench.tasks.example import Row

Compose = Callable[..., dict[str, Any]]
VARIED = sorted(
    p.stem for p in (conf_dir() / "task").glob("*.yaml") if "held_out:" in p.read_text()
)


def test_a_variant_is_a_function_of_its_seed(compose: Compose) -> None:
    """Other rows, prompts and balances by seed; without one the task and its id are as ever."""
    plain = compose("task=sst2")
    assert "held_out" not in plain["task"] and plain["task"]["balance"] is None
    drawn = [compose("task=sst2", f"held_out={seed}") for seed in range(20)]
    assert drawn[3] == compose("task=sst2", "held_out=3")
    tasks = [settings["task"] for settings in drawn]
    assert len({task["data_seed"] for task in tasks}) == 20
    assert {task["prompt"] for task in tasks} == set(_declared("sst2")["prompt"])
    assert {tuple(task["balance"]) for task in tasks} == set(
        map(tuple, _declared("sst2")["balance"])
    )
    assert plain["task"]["prompt"] not in _declared("sst2")["prompt"]
    assert len({identity(settings) for settings in [plain, *drawn]}) == 21


def _declared(task: str) -> dict[str, Any]:
    text = (conf_dir() / "task" / f"{task}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)["held_out"]
    return found


@pytest.mark.parametrize("task", VARIED)
def test_every_alternative_fits_its_task(task: str, compose: Compose) -> None:
    """Each prompt renders the task's example row, and each balance has a share per choice."""
    settings = compose(f"task={task}")["task"]
    example = settings["example"]
    for prompt in _declared(task)["prompt"]:
        shown = build({**settings, "prompt": prompt}).render(Row(example["row"], "row 0"))
        assert shown.prompt != example["prompt"] and not shown.prompt.endswith(" ")
    for balance in _declared(task).get("balance", []):
        assert len(balance) == len(settings["choices"])


def test_a_variant_trains(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Its run and its table name the seed that drew it, apart from the task itself."""
    short = ("logger=none", "threads=1", "budget.steps=2", "task.sizes.train=24", "suite=s")
    few = ("task.sizes.dev=16", "task.sizes.test=16")
    assert command(*short, *few)[0] == 0
    assert command(*short, *few, "held_out=5")[0] == 0
    names = {
        path.name.rpartition("-s0-")[0]
        for path in (tmp_path / "runs" / "s").iterdir()
        if path.is_dir()
    }
    assert names == {
        "synthetic_reviews-tiny-full-mezo",
        "synthetic_reviews-held_out=5-tiny-full-mezo",
    }
    _, out, _ = command("table", "s")
    assert "synthetic_reviews-held_out=5" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("held_out=-1",), "held_out=-1: must not be negative"),
        (("~task.data_seed", "held_out=1"), "held_out=1: this task has no data_seed"),
        (("task.balance=[1]",), r"task\.balance: give a share"),
        (("task.balance=[0,0]",), r"task\.balance: shares"),
        (("task.balance=[-1,2]",), r"task\.balance: shares"),
    ],
)
def test_a_bad_variant_is_refused(
    arguments: tuple[str, ...], message: str, compose: Compose
) -> None:
    with pytest.raises(UserError, match=message):
        build(compose(*arguments)["task"])


@pytest.mark.parametrize("shares", [(0.3, 0.7), (1, 3), (0.0, 1.0), (1, 1)])
def test_balance_keeps_as_many_rows_as_it_can(shares: tuple[float, float]) -> None:
    """Classes are in the shares, and the class that limits them is whole."""
    rows = [Row({"label": int(n % 5 == 0)}, f"row {n}") for n in range(100)]  # 80 and 20
    draw = Draw({"train": 1, "dev": 1, "test": 1}, 3)
    kept = draw.balanced(rows, lambda row: int(str(row.values["label"])), shares)
    counts = Counter(row.values["label"] for row in kept)
    most = min(have / share for have, share in zip((80, 20), shares, strict=True) if share)
    assert [counts[label] for label in (0, 1)] == [int(most * share) for share in shares]
    assert len({row.where for row in kept}) == len(kept)
