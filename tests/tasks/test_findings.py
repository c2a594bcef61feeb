"""What is noted of drawn rows: missing classes, texts that stand on both sides."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.report.suites import SUITE, write_run
from zobench.interface import Interface
from zobench.report.runs import read_suite
from zobench.report.table import table
from zobench.run.notes import note
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.example import Example, Row
from zobench.tasks.findings import missing_classes, repeated_texts
from zobench.tasks.generation import GenerationTask

CPU = torch.device("cpu")


def examples(golds: Sequence[int], texts: Sequence[str] | None = None) -> list[Example]:
    """Examples of these classes, all of other texts unless these are given."""
    named = texts or [f"{golds} {n}" for n in range(len(golds))]
    return [Example(t, (" a", " b"), g, "", right=(g,)) for t, g in zip(named, golds, strict=True)]


def splits(train: list[Example], dev: list[Example], test: list[Example]) -> dict[str, Any]:
    """Three splits."""
    return {"train": train, "dev": dev, "test": test}


def test_each_class_has_a_row_in_each_split() -> None:
    """Else the split and the label are named, of many labels some."""
    whole = examples([0, 1])
    assert missing_classes(splits(whole, whole, whole), ["x", "y"]) == []
    (said,) = missing_classes(splits(examples([0]), whole, examples([1])), ["x", "y"])
    assert "train has no row of y" in said and "test has no row of x" in said and "dev" not in said
    (said,) = missing_classes(splits(whole, whole, whole), [str(n) for n in range(10**4)])
    assert len(said) < 1000 and "more" in said


@pytest.mark.parametrize("twin", ["a film", " a  film\n", "a\u00a0film"])
def test_texts_of_train_are_counted_in_dev_and_test(twin: str) -> None:
    """However their blanks are; other choices make another text."""
    train = examples([0, 1], ["a film", "b"])
    apart = splits(train, examples([0], ["c"]), examples([1], ["d"]))
    assert repeated_texts(apart) == []
    (said,) = repeated_texts(splits(train, examples([0], [twin]), examples([1, 1], ["d", twin])))
    assert said == "1 of 1 texts of dev and 1 of 2 texts of test stand in train, too"
    other = [Example("a film", (" c", " d"), 0, "")]
    assert repeated_texts(splits(train, other, other)) == []


class Given:
    """Rows that are all alike, or all different; every class but one in train."""

    def __init__(self, alike: bool) -> None:
        self.alike = alike

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [
            Row({"q": "q" if self.alike else f"q {n}", "a": "yes" if n < 12 else "no"}, f"row {n}")
            for n in range(16)
        ]
        return {"train": rows[:12], "test": rows[12:]}


def loaded(model: Any, tokenizer: Any) -> Any:
    """A model as tasks are given it."""
    from types import SimpleNamespace

    return SimpleNamespace(model=model, tokenizer=tokenizer, interface=Interface.CAUSAL)


@pytest.mark.parametrize("alike", [True, False])
def test_problems_say_what_is_odd(
    alike: bool, tiny_opt: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of choices and of written answers; said once, and kept in what meta.json holds."""
    sizes = {"train": 8, "dev": 4, "test": 4}
    common: dict[str, Any] = {"version": 1, "prompt": "{{ q }}", "sizes": sizes}
    labels: dict[str, Any] = {"label": "a", "labels": ["no", "yes"], "choices": [" no", " yes"]}
    choice = ChoiceTask(source=Given(alike), **common, **labels)
    written = GenerationTask(
        source=Given(alike), answers="a", target=" {{ a }}", metric="f1", max_new_tokens=2, **common
    )
    makers: list[Any] = [choice, written]
    for task, count in zip(makers, (1 + alike, alike), strict=True):
        problem = task.prepare(loaded(tiny_opt, tokenizer), CPU)
        assert len(problem.notes) == count
        assert not alike or "4 of 4 texts of dev and 4 of 4 texts of test" in problem.notes[-1]
        meta: dict[str, Any] = {"name": "run"}
        note(problem, meta, aloud=True)
        told = capsys.readouterr()
        assert meta.get("notes", []) == list(problem.notes)
        assert len(told.out.splitlines()) == len(told.err.splitlines()) == count
        note(problem, meta, aloud=True)
        assert capsys.readouterr().out == ""


def test_a_table_shows_each_note_once(tmp_path: Any) -> None:
    """Under the table, after its task; of many notes some, of a damaged meta.json none."""
    for seed in (0, 1):
        write_run(tmp_path, seed, meta={"notes": ["odd rows", f"of seed {seed}"]})
    write_run(tmp_path, 2, meta={"notes": 7})
    shown = table(tmp_path, SUITE, details=True)
    assert shown.count("odd rows") == 1 and "synthetic_reviews: of seed 1" in shown
    for seed in range(3, 20):
        write_run(tmp_path, seed, meta={"notes": [f"of seed {seed}"]})
    assert table(tmp_path, SUITE, details=True).count("of seed") <= 8
    assert "notes" in read_suite(tmp_path, SUITE).frame
