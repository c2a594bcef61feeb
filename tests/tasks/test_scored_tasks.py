"""Regression, multi-label classification and preferences: values by hand, and whole runs."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.small_models import small_config
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.example import Row
from zobench.tasks.multi_label import MultiLabelTask
from zobench.tasks.preference import PreferenceTask
from zobench.tasks.regression import RegressionTask
from zobench.tasks.synthetic_reviews import rows as reviews

CPU = torch.device("cpu")
HERE = "tests.tasks.test_scored_tasks"
Command = Callable[..., tuple[int, str, str]]
ROWS = [
    {
        "text": f"the {a} was {b} .",
        "stars": 1.0 + 0.5 * n,
        "topics": [[], ["plot"], ["film", "plot"]][n % 3],
        "chosen": "great" if n % 2 else "a terrible film",
        "rejected": "terrible" if n % 2 else "great",
    }
    for n, (a, b) in enumerate(
        (a, b) for a in ("film", "plot", "story of the film") for b in ("long", "dull", "great")
    )
]


class Given:
    """A source of rows."""

    def __init__(self, rows: Sequence[dict[str, Any]] = ROWS) -> None:
        self.given = rows

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [Row(values, f"row {number}") for number, values in enumerate(self.given)]
        return {"train": rows, "test": rows[::2]}


COMMON: dict[str, Any] = {"version": 1, "sizes": {"train": 6, "dev": 3, "test": 5}}


def regression(rows: Sequence[dict[str, Any]] = ROWS, **changed: Any) -> RegressionTask:
    arguments: dict[str, Any] = {
        "prompt": "{{ text }} It was",
        "choices": [" terrible", " great"],
        "labels": [1, 5],
        "label": "stars",
    }
    return RegressionTask(**(COMMON | arguments | {"source": Given(rows)} | changed))


def multi_label(**changed: Any) -> MultiLabelTask:
    arguments: dict[str, Any] = {
        "prompt": "{{ text }} Is it the {{ item }} ?",
        "choices": [" No", " Yes"],
        "labels": ["film", "plot"],
        "right": "item in topics",
        "source": Given(),
    }
    return MultiLabelTask(**(COMMON | arguments | changed))


def preference(rows: Sequence[dict[str, Any]] = ROWS, **changed: Any) -> PreferenceTask:
    arguments: dict[str, Any] = {
        "prompt": "{{ text }} It was",
        "chosen": " {{ chosen }}",
        "rejected": " {{ rejected }}",
    }
    return PreferenceTask(**(COMMON | arguments | {"source": Given(rows)} | changed))


@pytest.fixture
def loaded(tiny_opt: Any, tokenizer: Any) -> Any:
    return SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)


@torch.no_grad()
def log_p(loaded: Any, prompt: str, text: str) -> list[float]:
    """Of each token of the text after the prompt, by one plain forward pass."""
    ids = loaded.tokenizer(prompt + text)["input_ids"]
    start = len(loaded.tokenizer(prompt)["input_ids"])
    table = loaded.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return [float(table[at - 1, ids[at]]) for at in range(start, len(ids))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def error(output: float, gold: float, row: dict[str, Any]) -> float:
    """Minus the absolute error."""
    assert row["stars"] == gold
    return -abs(output - gold)


def jaccard(output: list[float], gold: list[int], row: dict[str, Any]) -> float:
    """Shared classes over all that are named."""
    del row
    pairs = [(p > 0.5, bool(g)) for p, g in zip(output, gold, strict=True)]
    return sum(a and b for a, b in pairs) / max(1, sum(a or b for a, b in pairs))


def gain(output: float, gold: float, row: dict[str, Any]) -> float:
    """Margin over the reference's, at most 1."""
    del row
    return min(1.0, output - gold)


def test_a_number_is_the_mean_over_the_choices(loaded: Any) -> None:
    """Against plain forwards: softmax over two choices, squared error, and correlations."""
    problem = regression().prepare(loaded, CPU)
    answers: list[Any] = []
    found = problem.evaluate(loaded.model, "test", 2, answers)
    errors = []
    for row, answer in zip(regression().load().test, answers, strict=True):
        [example] = row
        scores = [mean(log_p(loaded, example.prompt, choice)) for choice in example.choices]
        share = 1 / (1 + math.exp(scores[0] - scores[1]))
        expected = 1 + 4 * share
        assert float(answer.answer) == pytest.approx(expected, abs=1e-4)
        errors.append((expected - float(answer.gold)) ** 2)
    assert found["loss"] == pytest.approx(mean(errors), abs=1e-4)
    assert found.keys() == {"loss", "pearson", "spearman"}
    batch = problem.batch([0, 1, 2])
    assert problem.loss(loaded.model, batch).requires_grad


def test_a_class_that_no_row_has_is_noted(loaded: Any) -> None:
    """Its decisions are easy, and a misspelt class is one."""
    notes = multi_label(labels=["Film", "plot"]).prepare(loaded, CPU).notes
    assert notes[0].startswith("classes (task.labels): train has no row of Film; dev has no row of")
    assert not any("classes" in note for note in multi_label().prepare(loaded, CPU).notes)


def test_decisions_are_made_class_by_class(loaded: Any) -> None:
    """Against plain forwards: a question per class, binary cross-entropy, F1 of all decisions."""
    problem = multi_label().prepare(loaded, CPU)
    answers: list[Any] = []
    found = problem.evaluate(loaded.model, "test", 2, answers)
    losses, right, hits, named, told = [], [], 0, 0, 0
    drawn = multi_label().draw(Given().rows(None)).test
    for row, answer in zip(drawn, answers, strict=True):
        decisions = []
        for question, item in zip(
            multi_label().render(row, Interface.CAUSAL), ("film", "plot"), strict=True
        ):
            assert question.prompt.endswith(f"Is it the {item} ?")
            no, yes = (mean(log_p(loaded, question.prompt, c)) for c in question.choices)
            truth = item in row.values["topics"]
            losses.append(math.log1p(math.exp(no - yes if truth else yes - no)))
            decisions.append(yes > no)
            hits, named, told = hits + (truth and yes > no), named + (yes > no), told + truth
        truths = [item in row.values["topics"] for item in ("film", "plot")]
        numbers = " ".join(str(n) for n, d in enumerate(decisions) if d) or "none"
        assert answer.answer == numbers
        right.append(decisions == truths)
    assert found["loss"] == pytest.approx(mean(losses), abs=1e-4)
    assert found["accuracy"] == found["exact_match"] == mean(right)
    assert found["micro_f1"] == pytest.approx(2 * hits / (named + told))
    assert found.keys() == {"loss", "exact_match", "accuracy", "micro_f1", "macro_f1"}


def test_preferences_against_the_model_before_training(loaded: Any) -> None:
    """Margins of whole texts; the loss is log 2 at the start, and DPO's after a change."""
    import copy

    problem = preference(beta=0.5).prepare(loaded, CPU)
    found = problem.evaluate(loaded.model, "test", 2)
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-4)
    moved = copy.deepcopy(loaded)
    with torch.no_grad():
        for weight in moved.model.parameters():
            weight.mul_(1.1)
    answers: list[Any] = []
    found = problem.evaluate(moved.model, "test", 2, answers)
    losses, wins, above = [], [], []
    for [example] in preference().load().test:
        margins = []
        for model in (moved, loaded):
            chosen, rejected = (sum(log_p(model, example.prompt, c)) for c in example.choices)
            margins.append(chosen - rejected)
        losses.append(math.log1p(math.exp(-0.5 * (margins[0] - margins[1]))))
        wins.append(margins[0] > 0)
        above.append(margins[0] > margins[1])
    assert found["loss"] == pytest.approx(mean(losses), abs=1e-3)
    assert found["accuracy"] == found["win_rate"] == mean(wins)
    assert found["reward_accuracy"] == mean(above)
    assert [answer.score for answer in answers] == wins
    batch = problem.batch([0, 1, 2, 3])
    loss = problem.loss(moved.model, batch)
    assert loss.requires_grad
    rows = torch.cat([problem.outputs(moved.model, batch.cut(*ends)) for ends in ((0, 1), (1, 4))])
    torch.testing.assert_close(problem.loss_of(rows, batch), loss, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "loss"), [(regression, "error"), (multi_label, "jaccard"), (preference, "gain")]
)
def test_functions_of_ones_own(task: Any, loss: str, loaded: Any) -> None:
    """Each kind gives its outputs and golds; the loss of dev does not depend on the batch size."""
    problem = task(loss=f"{HERE}.{loss}").prepare(loaded, CPU)
    assert not problem.differentiable
    one, two = (problem.evaluate(loaded.model, "dev", size)["loss"] for size in (1, 3))
    assert one == pytest.approx(two, abs=1e-4)
    assert not problem.loss(loaded.model, problem.batch([0, 1])).requires_grad


def other(**columns: Any) -> list[dict[str, Any]]:
    """The rows, the last of them with other columns."""
    return [*ROWS[:-1], ROWS[-1] | columns]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: regression(other(stars="five")), r"row 8: column stars .* is 'five': expected a"),
        (lambda: regression(other(stars=None)), "is null: expected a number"),
        (lambda: regression(other(stars=True)), "expected a number"),
        (lambda: regression(label="grade"), "no column 'grade' .task.label.; the row has text"),
        (lambda: regression(labels=[1, 2, 3]), "task.labels: give a number for each"),
        (lambda: regression(labels=[1, 1]), "two different ones"),
        (lambda: regression(loss="mae"), "task.loss=mae: choose mse, or a function of your own"),
        (lambda: regression(metrics=["mcc"]), "task.metrics.0=mcc: choose pearson, spearman"),
        (lambda: multi_label(choices=[" Yes"]), "task.choices: give two different ones"),
        (lambda: multi_label(labels=["film"]), "task.labels: name at least two"),
        (lambda: multi_label(right="topics"), "task.right"),
        (lambda: preference(beta=0.0), "task.beta=0.0: must be above 0"),
        (lambda: preference(other(chosen="x", rejected="x")), "row 8: .* are the same text"),
    ],
)
def test_what_does_not_fit_is_said(make: Callable[[], Any], says: str, loaded: Any) -> None:
    """In one or two lines, with row and key."""
    with pytest.raises(UserError, match=says) as found:
        make().prepare(loaded, CPU)
    assert len(str(found.value).splitlines()) <= 2


def model_with_head(tokenizer: Any, labels: int) -> Any:
    """A small OPT with a classification head."""
    from transformers import OPTForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = small_config("opt")
        config.num_labels, config.init_std = labels, 0.3
        model = OPTForSequenceClassification(config).eval()
    return SimpleNamespace(model=model, tokenizer=tokenizer, interface=Interface.CLASSIFIER)


@torch.no_grad()
def test_a_classification_head_gives_logits_of_classes_or_numbers(tokenizer: Any) -> None:
    """Its own logits, one row each: sigmoids for several classes, a softmax for a number."""
    loaded = model_with_head(tokenizer, 2)
    problem = multi_label(text="{{ text }}").prepare(loaded, CPU)
    examples = problem.loss_examples["train"]
    batch = problem.batch(range(len(examples)))
    assert len(batch.input_ids) == len(examples), "one row for all classes"
    outputs = problem.reading.outputs(problem.outputs(loaded.model, batch), examples)
    numbers = regression().prepare(loaded, CPU)
    predicted = numbers.reading.outputs(
        numbers.outputs(loaded.model, numbers.batch(range(len(examples)))), examples
    )
    texts = multi_label(text="{{ text }}").load(Interface.CLASSIFIER).train
    for [example], found in zip(texts, outputs, strict=True):
        logits = loaded.model(**tokenizer(example.prompt, return_tensors="pt")).logits[0]
        assert found == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
    for [example], number in zip(regression().load().train, predicted, strict=True):
        logits = loaded.model(**tokenizer(example.prompt, return_tensors="pt")).logits[0]
        assert number == pytest.approx(
            float(logits.softmax(0) @ torch.tensor([1.0, 5.0])), abs=1e-4
        )
    with pytest.raises(UserError, match=r"task\.text: give the template"):
        multi_label().prepare(loaded, CPU)
    with pytest.raises(UserError, match="which needs a decoder"):
        preference().prepare(loaded, CPU)


def written(path: Path, made: Callable[[str, int], dict[str, Any]]) -> Path:
    """300 reviews of the shipped model's language, with columns of a task's own."""
    found = [
        made(str(r["sentence"]), int(str(r["label"]))) for r in reviews("train", count=300, seed=0)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def stars(sentence: str, label: int) -> dict[str, Any]:
    return {"text": sentence, "stars": 1 + 3 * label + len(sentence) % 2}


def nouns(sentence: str, label: int) -> dict[str, Any]:
    del label
    return {"text": sentence, "topics": [n for n in ("plot", "music", "ending") if n in sentence]}


def pairs(sentence: str, label: int) -> dict[str, Any]:
    words = ("terrible", "great")
    return {"prompt": f"{sentence} It was", "chosen": words[label], "rejected": words[1 - label]}


RUNS: dict[str, tuple[Callable[[str, int], dict[str, Any]], tuple[str, ...], set[str]]] = {
    "custom_regression": (
        stars,
        (
            *('task.prompt="{{ text }} It was"', 'task.choices=[" terrible"," great"]'),
            *("task.labels=[1,5]", "task.label=stars"),
        ),
        {"loss", "pearson", "spearman"},
    ),
    "custom_multi_label": (
        nouns,
        (
            *('task.prompt="{{ text }} the {{ item }} was"', "task.labels=[plot,music,ending]"),
            *('task.choices=[" terrible"," great"]', 'task.right="item in topics"'),
        ),
        {"loss", "exact_match", "accuracy", "micro_f1", "macro_f1"},
    ),
    "custom_preference": (
        pairs,
        ('task.prompt="{{ prompt }}"', "task.beta=1.0", "optimizer.lr=5e-4"),
        {"loss", "win_rate", "accuracy", "reward_accuracy"},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run(name: str, command: Command, tmp_path: Path) -> None:
    """MeZO on the shipped model over a file of one's own: the loss on dev falls."""
    made, settings, metrics = RUNS[name]
    data = written(tmp_path / "rows.jsonl", made)
    sizes = "task.sizes={train:150,dev:60,test:60}"
    short = ("logger=none", "threads=1", "budget.steps=60", "train.eval_every=20", sizes)
    status, out, err = command(f"task={name}", f"task.data_dir={data}", *settings, *short)
    assert status == 0, err
    assert ": done, test" in out
    (folder,) = (tmp_path / "runs").glob("*/*/")
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["dev/loss"] for row in rows if "dev/loss" in row]
    assert min(losses) < 0.98 * losses[0]
    if name == "custom_preference":
        assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    result = json.loads((folder / "result.json").read_text())
    assert result["test"].keys() == metrics
    assert (folder / "ledger.bin").is_file()
