"""Losses and metrics of the user's own, metrics of a split, and weights selected by a metric."""

import functools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.pages import DOCS, blocks, runs
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.launch.process import close_server
from zobench.run.best_weights import BestWeights, worth
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.example import Row
from zobench.tasks.generation import GenerationTask
from zobench.tasks.own import own_function
from zobench.tasks.split_metrics import (
    OF_CHOICES,
    OF_NUMBERS,
    balanced_accuracy,
    macro_f1,
    mcc,
    metrics_named,
    pearson,
    spearman,
)

CPU = torch.device("cpu")
HERE = "tests.tasks.test_own_metrics"
Command = Callable[..., tuple[int, str, str]]
ROWS = [
    {"text": f"the {a} was {b} .", "label": n % 2, "weight": 1 + n % 3}
    for n, (a, b) in enumerate(
        (a, b) for a in ("film", "plot", "story of the film") for b in ("long", "dull", "great")
    )
]


class Given:
    """A source of the rows above."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [Row(values, f"row {number}") for number, values in enumerate(ROWS)]
        return {"train": rows, "test": rows[::2]}


def task(**changed: Any) -> ChoiceTask:
    """A choice between two words, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} It was",
        "choices": [" terrible", " great"],
        "label": "label",
        "labels": [0, 1],
        "source": Given(),
        "sizes": {"train": 5, "dev": 4, "test": 5},
    }
    return ChoiceTask(**(arguments | changed))


@pytest.fixture
def loaded(tiny_opt: Any, tokenizer: Any) -> Any:
    return SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)


def margin(scores: list[float], gold: int, row: dict[str, Any]) -> float:
    """Weighted margin of the right choice."""
    return float(row["weight"]) * (scores[gold] - scores[1 - gold])


def scaled(scores: list[float], gold: int, row: dict[str, Any], *, factor: float) -> float:
    return factor * margin(scores, gold, row)


def weighed(outputs: list[list[float]], golds: list[int], rows: list[dict[str, Any]]) -> float:
    """Accuracy weighted by a column."""
    right = [(s[1] > s[0]) == bool(g) for s, g in zip(outputs, golds, strict=True)]
    weights = [row["weight"] for row in rows]
    return sum(w * r for w, r in zip(weights, right, strict=True)) / sum(weights)


def with_two(output: float, gold: float) -> float:
    return output - gold


def raises(output: Any, gold: Any, row: Any) -> float:
    del output, gold
    return float(row["no such column"])


def nothing(output: Any, gold: Any, row: Any) -> None:
    del output, gold, row


def too_large(output: Any, gold: Any, row: Any) -> int:
    del output, gold, row
    return 10**400


def spoils(outputs: list[list[float]], golds: list[int], rows: list[dict[str, Any]]) -> float:
    """What a function in place does to its arguments: sorts, empties and changes them."""
    worst = min(min(scores) for scores in outputs)
    for scores, row in zip(outputs, rows, strict=True):
        scores.sort()
        row["weight"] = 100
    golds.clear()
    return worst


def uses_up(output: Any, gold: Any, row: dict[str, Any]) -> float:
    """1 the first time that it sees a row."""
    del output, gold
    return float(row.pop("weight", 0) > 0)


def loss(output: Any, gold: Any, row: Any) -> float:
    del output, gold, row
    return 0.25


def not_a_number(output: Any, gold: Any, row: Any) -> float:
    del output, gold, row
    return math.nan


def length(text: str, answers: list[str], row: dict[str, Any]) -> float:
    """Characters, against a column of the row."""
    assert isinstance(answers, list)
    return -abs(len(text) - float(row["weight"]))


def shared(texts: list[str], golds: list[list[str]], rows: list[Any]) -> float:
    """Distinct texts over all."""
    assert len(texts) == len(golds) == len(rows)
    return len({*texts}) / len(texts)


BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30)


@given(BINARY)
def test_metrics_of_two_classes_by_their_formulas(pairs: list[tuple[int, int]]) -> None:
    """MCC, balanced accuracy and macro-F1 from the four counts of the confusion matrix."""
    golds = [gold for gold, _ in pairs]
    outputs = [[-0.1, -0.2] if found == 0 else [-0.5, -0.3] for _, found in pairs]
    count = {(g, f): sum(pair == (g, f) for pair in pairs) for g in (0, 1) for f in (0, 1)}
    tp, tn, fp, fn = count[1, 1], count[0, 0], count[0, 1], count[1, 0]
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    expected = (tp * tn - fp * fn) / math.sqrt(below) if below else 0.0
    assert mcc(outputs, golds, []) == pytest.approx(expected)
    recalls = [right / (right + wrong) for right, wrong in ((tn, fp), (tp, fn)) if right + wrong]
    assert balanced_accuracy(outputs, golds, []) == pytest.approx(sum(recalls) / len(recalls))
    f1s = [2 * r / (2 * r + fp + fn) for r in (tn, tp) if r + fp + fn]
    assert macro_f1(outputs, golds, []) == pytest.approx(sum(f1s) / len(f1s))


def test_a_nan_score_is_a_wrong_answer_to_every_metric() -> None:
    """As it is to the accuracy; scikit-learn does not warn of the class that no row has."""
    outputs = [[math.nan, 0.0], [0.0, math.nan], [1.0, 0.0], [0.0, 1.0]]
    golds = [0, 1, 0, 1]
    assert balanced_accuracy(outputs, golds, []) == 0.5
    assert macro_f1(outputs, golds, []) == pytest.approx(2 / 3)
    assert 0 < mcc(outputs, golds, []) < 1


def test_correlations_of_numbers() -> None:
    """Of a line, of a monotonous curve, and of what has none."""
    line = [1.0, 2.0, 3.0, 4.0]
    assert pearson(line, [2.0, 4.0, 6.0, 8.0], []) == pytest.approx(1.0)
    assert spearman(line, [1.0, 8.0, 27.0, 64.0], []) == pytest.approx(1.0)
    assert pearson(line, [1.0, 8.0, 27.0, 64.0], []) < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for correlation in OF_NUMBERS.values():
            for constant in ([1.0] * 4, [math.nan, 1.0, 2.0, 3.0]):
                assert math.isnan(correlation(constant, line, []))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["f2"], "task.metrics.0=f2: choose mcc, macro_f1, balanced_accuracy, or a function of"),
        (["mcc", "mcc"], "task.metrics.1: two metrics have the name mcc"),
        ([f"{HERE}.weighed", f"{HERE}.weighed"], "two metrics have the name weighed"),
        ([f"{HERE}.with_two"], r"is called with \(outputs, golds, rows\), and takes \(output"),
        ([f"{HERE}.no_such"], "task.metrics.0=.*no_such: cannot be imported"),
        (["os.getcwd"], "Python files in the folder given by --config-dir"),
        ([3], "task.metrics.0=3: expected a name"),
    ],
)
def test_metrics_that_are_refused(given: list[Any], says: str) -> None:
    """By key and name, before anything is loaded."""
    with pytest.raises(UserError, match=says) as found:
        metrics_named(given, OF_CHOICES)
    assert len(str(found.value).splitlines()) <= 2


def test_loss_and_accuracy_may_be_listed() -> None:
    """They are reported anyway."""
    assert [metric.name for metric in metrics_named(["accuracy", "mcc", "loss"], OF_CHOICES)] == [
        "mcc"
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("with_two", r"task\.loss=.*with_two: is called with \(output, gold, row\)"),
        ("raises", r"raised KeyError: 'no such column' \(test_own_metrics\.py:\d+\)"),
        ("nothing", "returned null; it has to return a number"),
        ("too_large", "returned 1000.*; it has to return a number"),
        ("not_a_number", "returned nan; it has to return a finite number"),
        ("ROWS", "is not a function"),
    ],
)
def test_a_bad_loss_is_found_before_training(name: str, says: str, loaded: Any) -> None:
    """It is called for one row of dev; the message has at most two lines."""
    with pytest.raises(UserError, match=says) as found:
        task(loss=f"{HERE}.{name}").prepare(loaded, CPU)
    assert len(str(found.value).splitlines()) <= 2


def test_names_without_a_dot_are_ours() -> None:
    """A typo lists them and says how one's own is written."""
    assert own_function("accuracy", "task.loss", ("output",)) is None
    with pytest.raises(UserError, match=r"choose choice, answer, .*such as mine\.reward"):
        task(loss="reward")
    listed = {"each": "[1, 2]", "right": "item == 1", "choices": [" {{ item }}"]}
    with pytest.raises(UserError, match="this task has none of ours; name a function of your own"):
        task(**listed, label=None, labels=None, metrics=["mcc"])


@torch.no_grad()
def test_a_loss_of_ones_own_is_minus_its_mean(loaded: Any) -> None:
    """Over a batch, over its parts, and over dev whatever the batch size."""
    problem = task(loss=f"{HERE}.margin").prepare(loaded, CPU)
    assert not problem.differentiable
    batch = problem.batch([0, 1, 2, 3, 4])
    scores = problem.outputs(loaded.model, batch)
    examples = problem.loss_examples["train"]
    weights = [e.row["weight"] for e in examples if e.row is not None]
    signs = [1.0 if e.gold else -1.0 for e in examples]
    margins = (scores[:, 1] - scores[:, 0]) * torch.tensor(signs) * torch.tensor(weights)
    loss = float(problem.loss(loaded.model, batch))
    assert loss == pytest.approx(-float(margins.mean()), abs=1e-5)
    parts = [problem.batch([0, 1]), problem.batch([2, 3, 4])]
    shares = [problem.weight(part) / 5 for part in parts]
    values = [float(problem.loss(loaded.model, part)) for part in parts]
    together = sum(s * v for s, v in zip(shares, values, strict=True))
    assert together == pytest.approx(loss, abs=1e-5)
    cut = torch.cat([problem.outputs(loaded.model, batch.cut(*ends)) for ends in ((0, 2), (2, 5))])
    assert float(problem.loss_of(cut, batch)) == pytest.approx(loss, abs=1e-5)
    dev = [problem.evaluate(loaded.model, "dev", size)["loss"] for size in (1, 3, 4)]
    assert dev == pytest.approx([dev[0]] * 3, abs=1e-5)


@torch.no_grad()
def test_what_a_function_does_to_its_arguments_changes_no_other_number(loaded: Any) -> None:
    """Neither metrics after it, nor what it is given itself the next time."""
    plain = task(metrics=["mcc", f"{HERE}.weighed"]).prepare(loaded, CPU)
    mixed = task(metrics=[f"{HERE}.spoils", "mcc", f"{HERE}.weighed"]).prepare(loaded, CPU)
    expected = plain.evaluate(loaded.model, "dev", 2)
    for _ in range(2):
        found = mixed.evaluate(loaded.model, "dev", 2)
        assert {name: found[name] for name in expected} == expected
    problem = task(loss=f"{HERE}.uses_up").prepare(loaded, CPU)
    batch = problem.batch([0, 1])
    assert [float(problem.loss(loaded.model, batch)) for _ in range(2)] == [-1.0, -1.0]


def test_a_function_with_settings(loaded: Any) -> None:
    """As `{_target_: mine.reward, _partial_: true, factor: 3.0}` builds it."""
    once = task(loss=f"{HERE}.margin").prepare(loaded, CPU)
    thrice = task(loss=functools.partial(scaled, factor=3.0)).prepare(loaded, CPU)
    batch = [0, 2, 4]
    found, other = (float(p.loss(loaded.model, p.batch(batch))) for p in (once, thrice))
    assert other == pytest.approx(3 * found, rel=1e-5)


def test_metrics_join_the_loss_and_change_no_other_number(loaded: Any) -> None:
    """Rows and outputs reach a function in the order of the data, whatever the batches."""
    plain = task().prepare(loaded, CPU).evaluate(loaded.model, "test", 2)
    problem = task(metrics=["mcc", f"{HERE}.weighed"]).prepare(loaded, CPU)
    answers: list[Any] = []
    found = problem.evaluate(loaded.model, "test", 2, answers)
    assert found.keys() - plain.keys() == {"mcc", "weighed"}
    assert {name: found[name] for name in plain} == plain
    weights = [e.row["weight"] for e in problem.eval_examples["test"] if e.row is not None]
    scores = [answer.score for answer in answers]
    expected = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
    assert found["weighed"] == pytest.approx(expected)


def test_rows_are_kept_for_functions_of_ones_own_alone(loaded: Any) -> None:
    """A task without them holds no columns after it is prepared."""
    problem = task(metrics=["mcc"]).prepare(loaded, CPU)
    assert all(e.row is None for e in problem.loss_examples["train"])


def answer_task(**changed: Any) -> GenerationTask:
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} It was",
        "answers": "text",
        "target": " great\n",
        "metric": "f1",
        "max_new_tokens": 4,
        "source": Given(),
        "sizes": {"train": 4, "dev": 3, "test": 3},
    }
    return GenerationTask(**(arguments | changed))


def test_functions_of_generated_texts(loaded: Any) -> None:
    """As metric, as further metric and as loss; the loss is that of its own function."""
    changed = {"loss": f"{HERE}.length", "metrics": ["exact_match", f"{HERE}.shared"]}
    problem = answer_task(**changed).prepare(loaded, CPU)
    answers: list[Any] = []
    found = problem.evaluate(loaded.model, "dev", 2, answers)
    assert {*found} == {"loss", "f1", "accuracy", "exact_match", "shared"}
    weights = [p.row["weight"] for p in problem.eval_examples["dev"]]
    lengths = [-abs(len(a.answer) - w) for a, w in zip(answers, weights, strict=True)]
    assert found["loss"] == pytest.approx(-sum(lengths) / 3)
    own = answer_task(metric=f"{HERE}.length", loss=f"{HERE}.length").prepare(loaded, CPU)
    values = own.evaluate(loaded.model, "dev", 2)
    assert values["length"] == values["accuracy"] == -values["loss"]
    assert values["length"] == pytest.approx(-found["loss"])
    with pytest.raises(UserError, match=r"task\.metric=.*raises: raised KeyError"):
        answer_task(metric=f"{HERE}.raises").prepare(loaded, CPU)
    with pytest.raises(UserError, match=r"task\.metric: loss is the name of another number"):
        answer_task(metric=f"{HERE}.loss")
    with pytest.raises(UserError, match=r"f1 is task\.metric already"):
        answer_task(metrics=["f1"])


def test_the_best_weights_by_a_metric(tmp_path: Path) -> None:
    """The highest value, the first of equal ones; null is worse than any number."""
    weight = torch.zeros(1)
    best = BestWeights(tmp_path / "best.safetensors", {"w": weight}, select="dev/mcc")
    values = [math.nan, 0.2, 0.2, math.inf]
    for step, (loss, value) in enumerate(zip([0.1, 0.9, 0.5, 0.4], values, strict=True)):
        weight.fill_(step)
        best.evaluated(step, {"loss": loss, "mcc": value})
        best.keep()
    assert best.step == 1
    best.restore(keep=True)
    assert float(weight) == 1
    assert worth({"loss": 0.3}, None) == (-0.3, 0.0)
    with pytest.raises(UserError, match=r"train\.select=dev/f1: .* are dev/loss, dev/accuracy"):
        BestWeights(tmp_path / "x", {}, select="dev/f1").evaluated(0, {"loss": 1, "accuracy": 1})


def test_a_metric_that_is_never_defined_leaves_the_choice_to_the_loss(tmp_path: Path) -> None:
    """Not the weights before training; any defined value is better."""
    best = BestWeights(tmp_path / "best.safetensors", {}, select="dev/pearson")
    for step, loss in enumerate([0.9, 0.3, 0.5]):
        best.evaluated(step, {"loss": loss, "pearson": math.nan}, save=False)
    assert best.step == 1
    best.evaluated(3, {"loss": 0.8, "pearson": -0.1}, save=False)
    assert best.step == 3


def rows_of(runs_folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only run's result, and its rows of dev."""
    (result,) = runs_folder.glob("*/*/result.json")
    rows = [json.loads(x) for x in result.with_name("metrics.jsonl").read_text().splitlines()]
    return json.loads(result.read_text()), [row for row in rows if "dev/loss" in row]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder `mine` of docs/tasks.md, and runs forked from a process that knows it."""
    [code] = blocks(DOCS / "tasks.md", "python", "mine/mine.py")
    made = tmp_path / "mine"
    made.mkdir()
    (made / "mine.py").write_text(code)
    close_server()
    yield made
    close_server()


SHORT = ("logger=none", "threads=1", "task.sizes={train:64,dev:48,test:32}")


def test_the_pages_run_optimises_a_function_without_a_gradient(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    """The command of docs/tasks.md on the shipped model: reward rises, weights by dev/mcc."""
    [arguments] = [words for words in runs(DOCS / "tasks.md") if "--config-dir" in words]
    arguments = [str(folder) if word == "mine" else word for word in arguments]
    status, _, err = command(*arguments, *SHORT, "train.eval_every=10")
    assert status == 0, err
    result, rows = rows_of(tmp_path / "runs")
    assert rows[-1]["dev/loss"] < rows[0]["dev/loss"] - 0.05
    best = max(rows, key=lambda row: row["dev/mcc"])
    assert (result["best_step"], result["dev"]["mcc"]) == (best["step"], best["dev/mcc"])
    assert {"mcc", "great_share"} <= result["test"].keys()
    meta = json.loads(next((tmp_path / "runs").glob("*/*/meta.json")).read_text())
    assert "mine.py" in meta["inputs"]["_target_"], "another version of the file is another run"
    (run,) = (tmp_path / "runs").glob("*/*/")
    status, _, err = command("verify", str(run))
    assert status == 0, err


def test_a_function_that_breaks_ends_the_run_in_one_message(command: Command, folder: Path) -> None:
    """Before the first step; first-order optimizers are refused in one message, too."""
    (folder / "broken.py").write_text("def reward(scores, gold, row):\n    return row['x']\n")
    given = ("--config-dir", str(folder), *SHORT, "budget.steps=4")
    status, _, err = command(*given, "task.loss=broken.reward")
    assert status == 1
    assert "task.loss=broken.reward: raised KeyError: 'x' (broken.py:2)" in err
    assert "Traceback" not in err
    status, _, err = command(*given, "task.loss=mine.reward", "optimizer=adamw")
    assert status == 1 and "this loss has no gradient" in err
    status, _, err = command(*given, "train.select=dev/mcc")
    assert status == 1 and "train.select=dev/mcc: this task's metrics are dev/loss" in err
