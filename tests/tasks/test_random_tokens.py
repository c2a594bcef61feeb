"""Random tokens: a task's shapes and costs, without a text."""

from typing import Any

import pytest
import torch

from tests.small_models import KINDS, MASKED, POSITIONS, VOCABULARY, small_model
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.models.language_model import load
from zobench.models.loaded import LoadedModel
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.random_tokens import RandomTokens

SIZES = {"train": 6, "dev": 3, "test": 5}
CPU = torch.device("cpu")


def task(**settings: Any) -> RandomTokens:
    usual: dict[str, Any] = {"version": 1, "length": 20, "labels": [0, 1], "sizes": SIZES}
    return RandomTokens(**usual | settings)


def small(kind: str) -> LoadedModel:
    interface = Interface.MASKED if kind in MASKED else Interface.CAUSAL
    return LoadedModel(small_model(kind), None, interface)


def problem(kind: str = "opt", **settings: Any) -> ChoiceProblem:
    return task(**settings).prepare(small(kind), CPU)


def choices(made: ChoiceProblem, split: str) -> list[tuple[int, ...]]:
    return [candidate.target for candidate in made.loss_examples[split][0].candidates]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_costs_what_was_asked_for(kind: str) -> None:
    """Rows of `length` tokens, one per example; the head sees a single place of each."""
    loaded = small(kind)
    made = task().prepare(loaded, CPU)
    batch = made.batch([0, 4, 5])
    assert (batch.tokens, batch.attention_mask.sum().item()) == (60, 60)
    seen: list[torch.Size] = []
    head = loaded.model.get_output_embeddings()
    head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    loss = made.loss(loaded.model, batch)
    assert seen == [(1, 3, 32)]
    assert loss.requires_grad and torch.isfinite(loss)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_evaluated(kind: str) -> None:
    """Loss and accuracy of dev and test, an answer for every example."""
    loaded = small(kind)
    made = task(labels=["a", "b", "c"]).prepare(loaded, CPU)
    for split in ("dev", "test"):
        answers: list[Any] = []
        found = made.evaluate(loaded.model, split, 2, answers)
        assert 0 < found["loss"] < 10 and 0 <= found["accuracy"] <= 1
        assert len(answers) == SIZES[split] == made.sizes[split]
        assert {answer.gold for answer in answers} <= {"0", "1", "2"}


def test_a_classification_head_is_asked_for_its_classes() -> None:
    """The candidates are its logits, whatever the vocabulary."""
    labels = ["a", "b", "c"]
    loaded = load(path="zobench:tiny", head="classification", labels=labels)
    made = task(labels=labels).prepare(loaded, CPU)
    batch = made.batch([0, 1])
    assert sorted(set(batch.target.flatten().tolist())) == [0, 1, 2]
    assert torch.isfinite(made.loss(loaded.model, batch))


def test_the_tokens_are_named_by_the_data_seed() -> None:
    """One seed one data set, choices and answers included; the splits do not repeat each other."""
    one, again, other = problem(), problem(), problem(data_seed=1)
    assert one.loss_examples == again.loss_examples
    assert (
        one.loss_examples["train"][0].candidates[0].target
        == one.loss_examples["test"][0].candidates[0].target
    )
    assert (
        one.loss_examples["train"][0].candidates[0].target
        != other.loss_examples["train"][0].candidates[0].target
    )
    texts = [e.candidates[0].context for found in one.loss_examples.values() for e in found]
    assert len(set(texts)) == len(texts) == sum(SIZES.values())
    assert not set(texts) & {e.candidates[0].context for e in other.loss_examples["train"]}


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_tokens_are_all_of_the_vocabulary_but_padding(kind: str) -> None:
    """RoBERTa gives padding no position, a decoder's head looks for the last token that is none."""
    made = problem(kind, length=100, sizes={"train": 300, "dev": 1, "test": 1})
    found = {t for e in made.loss_examples["train"] for t in e.candidates[0].context}
    assert found == set(range(VOCABULARY)) - {1}
    targets = {t for e in made.loss_examples["train"] for c in e.candidates for t in c.target}
    assert len(targets) == 2 and 1 not in targets
    assert {e.gold for e in made.loss_examples["train"]} == {0, 1}


def test_the_tokenizer_is_not_asked() -> None:
    """A pretrained model reads the same tokens as one that has none."""

    class Mute:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    loaded = small("opt")
    with_one = task().prepare(loaded._replace(tokenizer=Mute()), CPU)
    assert with_one.loss_examples == task().prepare(loaded, CPU).loss_examples
    assert torch.isfinite(with_one.loss(loaded.model, with_one.batch([0])))


def test_demonstrations_make_questions_longer_and_lessons_not() -> None:
    """As many times the length as there are texts, and never more than the model takes."""
    for count, length in ((2, 60), (32, POSITIONS)):
        made = problem(demonstrations=count, truncation="left")
        assert {e.length for e in made.loss_examples["dev"]} == {20}
        assert {e.length for e in (*made.eval_examples["dev"], *made.eval_examples["test"])} == {
            length
        }


def test_what_is_longer_than_the_model_is_refused_or_cut() -> None:
    """Cut to the model's length, RoBERTa's included."""
    for kind in ("opt", "roberta"):
        made = problem(kind, length=1000, truncation="left")
        assert {e.length for e in made.loss_examples["train"]} == {POSITIONS}
        assert torch.isfinite(made.loss(small_model(kind), made.batch([0])))
    with pytest.raises(
        UserError, match=rf"^task\.length: 1000 tokens, the model takes {POSITIONS};"
    ):
        problem(length=1000)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 0}, r"task\.length=0: give at least 1 token"),
        ({"labels": [0]}, r"task\.labels=\[0\]: give at least two"),
        ({"demonstrations": -1}, r"task\.demonstrations=-1"),
        ({"truncation": "right"}, r"task\.truncation=right"),
        ({"sizes": {"train": 1, "dev": 1}}, r"task\.sizes: give train, dev and test"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    """It names the key."""
    with pytest.raises(UserError, match=sentence):
        task(**settings)


def test_a_model_without_text_is_refused() -> None:
    """A point has no vocabulary."""
    with pytest.raises(UserError, match="choose a language model"):
        task().prepare(LoadedModel(torch.nn.Linear(1, 1)), CPU)
