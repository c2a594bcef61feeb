"""Other ways to ask a decoder: demonstrations, calibration, losses, several right answers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.example import Example, Row
from zobench.tasks.in_context import with_demonstrations

CPU = torch.device("cpu")
WORDS = ("film", "plot", "music", "story", "dull film", "warm little film")


class Given:
    """A source of numbered reviews."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [
            Row(
                {
                    "text": f"the {w} was {v}",
                    "label": n % 2,
                    "names": WORDS[:3],
                    "known": WORDS[1:3],
                },
                f"row {n}",
            )
            for n, (w, v) in enumerate((w, v) for w in WORDS for v in ("long", "great", "a"))
        ]
        return {"train": rows[:12], "test": rows[12:]}


def task(**changed: Any) -> ChoiceTask:
    """Reviews, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} . It was",
        "choices": [" terrible", " a great film"],
        "label": "label",
        "labels": [0, 1],
        "source": Given(),
        "sizes": {"train": 8, "dev": 4, "test": 6},
    }
    return ChoiceTask(**(arguments | changed))


CANDIDATES: dict[str, Any] = {
    "label": None,
    "labels": None,
    "each": "names",
    "right": "item in known",
    "choices": [" {{ item }}"],
}


@pytest.fixture
def loaded(tiny_opt: Any, tokenizer: Any) -> Any:
    """A random decoder."""
    return SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)


@torch.no_grad()
def log_p(loaded: Any, prompt: str, choice: str) -> torch.Tensor:
    """Log-probabilities of the tokens that a choice adds to a prompt, by the plain loop."""
    ids = loaded.tokenizer(prompt + choice)["input_ids"]
    start = len(loaded.tokenizer(prompt)["input_ids"])
    table = loaded.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return torch.stack([table[i - 1, ids[i]] for i in range(start, len(ids))])


def accuracy_by_hand(task: ChoiceTask, score: Any) -> float:
    """Share of test examples whose best choice by `score(prompt, choice)` is right."""
    found = [
        max(range(len(e.choices)), key=lambda i: float(score(e.prompt, e.choices[i]))) in e.right
        for e in task.load().test
    ]
    return sum(found) / len(found)


def test_calibration_takes_the_choices_prior_away(loaded: Any) -> None:
    """Sums of log p, less those after the content-free prompt (MeZO's sfc)."""
    calibrated = task(calibrated=True, content_free="It was")
    problem = calibrated.prepare(loaded, CPU)

    def score(prompt: str, choice: str) -> torch.Tensor:
        return log_p(loaded, prompt, choice).sum() - log_p(loaded, "It was", choice).sum()

    examples = problem.eval_examples["test"]
    batch = problem.encoder.batch(examples, CPU)
    scores = problem._scores(loaded.model, examples, batch, 4)
    for row, example in zip(scores, calibrated.load().test, strict=True):
        expected = torch.stack([score(example.prompt, choice) for choice in example.choices])
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-4)
    found = problem.evaluate(loaded.model, "test", 4)
    assert found["accuracy"] == pytest.approx(accuracy_by_hand(calibrated, score))


def test_any_of_several_right_answers_counts_and_the_first_is_taught(loaded: Any) -> None:
    """ReCoRD: candidates from the row, right if among the row's answers."""
    several = task(**CANDIDATES, loss="answer")
    example = several.load().test[0]
    assert (example.choices, example.gold, example.right) == (
        (" film", " plot", " music"),
        1,
        (1, 2),
    )
    problem = several.prepare(loaded, CPU)
    found = problem.evaluate(loaded.model, "test", 4)

    def score(prompt: str, choice: str) -> torch.Tensor:
        return log_p(loaded, prompt, choice).mean()

    assert found["accuracy"] == pytest.approx(accuracy_by_hand(several, score))
    tokens = [log_p(loaded, e.prompt, e.choices[e.gold]) for e in several.load().test]
    assert found["loss"] == pytest.approx(-float(torch.cat(tokens).mean()), abs=1e-5)


def test_the_sequence_loss_is_the_mean_over_every_token_of_the_text(loaded: Any) -> None:
    """Prompt and right choice, each token but the first."""
    problem = task(loss="sequence").prepare(loaded, CPU)
    tokens = []
    for e in task().load().train:
        ids = loaded.tokenizer(e.prompt + e.choices[e.gold])["input_ids"]
        with torch.no_grad():
            table = loaded.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        tokens += [float(table[i - 1, ids[i]]) for i in range(1, len(ids))]
    loss = problem.loss(loaded.model, problem.batch(range(8))).detach()
    assert float(loss) == pytest.approx(-sum(tokens) / len(tokens), abs=1e-5)


def test_the_accuracy_loss_is_minus_the_accuracy_and_has_no_gradient(loaded: Any) -> None:
    """Of the batch in training, of the split in evaluation."""
    problem = task(loss="accuracy").prepare(loaded, CPU)
    found = problem.evaluate(loaded.model, "dev", 3)
    assert found["loss"] == pytest.approx(-found["accuracy"])
    loss = problem.loss(loaded.model, problem.batch(range(8)))
    assert not loss.requires_grad and float(loss) * 8 == pytest.approx(round(float(loss) * 8))
    assert not problem.differentiable


def test_micro_batches_weigh_what_their_mean_is_over(loaded: Any) -> None:
    """Examples for choices, tokens for language modelling."""
    problem = task().prepare(loaded, CPU)
    assert problem.weight(problem.batch(range(3))) == 3
    problem = task(loss="answer").prepare(loaded, CPU)
    batch = problem.batch(range(3))
    assert problem.weight(batch) == int((batch.target >= 0).sum())


def examples(count: int) -> list[Example]:
    """Numbered examples."""
    return [Example(f"prompt {n}", (" no", " yes"), n % 2, f"row {n}") for n in range(count)]


def test_demonstrations_are_answered_and_differ_from_example_to_example() -> None:
    """MeZO draws a new set for each; the same seed draws the same sets."""
    train, own = examples(20), examples(5)
    shown = with_demonstrations(own, train, 3, seed=0)
    answered = {f"prompt {n}{(' no', ' yes')[n % 2]}" for n in range(20)}
    sets = []
    for before, after in zip(own, shown, strict=True):
        *demonstrations, question = after.prompt.split("\n\n")
        assert question == before.prompt
        assert len(set(demonstrations)) == 3 and set(demonstrations) <= answered
        assert (after.choices, after.gold) == (before.choices, before.gold)
        sets.append(frozenset(demonstrations))
    assert len(set(sets)) > 1
    assert with_demonstrations(own, train, 3, seed=0) == shown
    assert with_demonstrations(own, train, 3, seed=1) != shown
    assert with_demonstrations(own, train, 0, seed=0) == own


def test_demonstrations_come_from_train_alone(loaded: Any) -> None:
    """No dev or test example is shown with its answer; training prompts stay bare."""
    problem: ChoiceProblem = task(demonstrations=2, truncation="left").prepare(loaded, CPU)
    bare = task().prepare(loaded, CPU)
    assert problem.loss_examples == bare.loss_examples
    assert problem.eval_examples["test"] != bare.eval_examples["test"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"loss": "hinge"}, "task.loss=hinge: choose choice, answer, sequence, accuracy"),
        ({"demonstrations": -1}, "task.demonstrations=-1"),
        ({"demonstrations": 9}, "task.demonstrations=9: train has 8 examples only"),
        ({**CANDIDATES, "right": None}, "task.each: give `right`"),
        ({**CANDIDATES, "label": "label"}, "task.each: give `right`"),
        ({**CANDIDATES, "right": "item == 'x'"}, ": none of the 3 candidates is right"),
        ({**CANDIDATES, "each": "nothing"}, "task.each: 'nothing' is undefined; the row has"),
        ({"label": None}, "task.label: name the column"),
        ({"prompt": "It was"}, "task.prompt: 'It was' is the same for every row"),
    ],
)
def test_settings_that_make_no_task_are_refused(
    changed: dict[str, Any], says: str, loaded: Any
) -> None:
    """The message names the setting or the row."""
    with pytest.raises(UserError) as caught:
        task(**changed).prepare(loaded, CPU)
    assert says in str(caught.value)
