"""Tasks whose answers are generated: stop strings, metrics, losses, messages."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.example import Row
from zobench.tasks.generation import GenerationTask
from zobench.tasks.metrics import f1
from zobench.tasks.writing import Writer

CPU = torch.device("cpu")
ROWS = [
    {"question": f"the {a} was {b} . What", "answers": [f"the {a}", "it"]}
    for a in ("film", "plot", "music", "story")
    for b in ("long", "dull", "great")
]


class Given:
    """A source of the rows above, the last four of them for the test."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [Row(values, f"row {number}") for number, values in enumerate(ROWS)]
        return {"train": rows[:8], "test": rows[8:]}


def task(**changed: Any) -> GenerationTask:
    """Questions about films, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ question }}?\nAnswer:",
        "answers": "answers",
        "target": " {{ answers[0] }}\n",
        "metric": "f1",
        "max_new_tokens": 8,
        "source": Given(),
        "sizes": {"train": 5, "dev": 3, "test": 4},
    }
    return GenerationTask(**(arguments | changed))


@pytest.fixture
def loaded(tiny_opt: Any, tokenizer: Any) -> Any:
    """A random decoder."""
    return SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, prompt: tuple[int, ...], most: int, stop: str) -> str:
    """The plain loop: one row, one token at a time, no cache."""
    ids = list(prompt)
    for _ in range(most):
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        text = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        if stop in text or token == model.generation_config.eos_token_id:
            break
    return (
        str(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)).split(stop)[0].strip()
    )


def test_what_is_written_is_what_the_plain_loop_writes(loaded: Any) -> None:
    """A batch of prompts of different lengths, padding on the left, and a stop string."""
    model, tokenizer = loaded.model, loaded.tokenizer
    texts = ("It was", "the film was long . It was", "a warm and knowing little film")
    prompts = [tuple(tokenizer(text)["input_ids"]) for text in texts]
    free = Writer(tokenizer, (), 12, 1, CPU)(model, prompts)
    stop = free[1][len(free[1]) // 2]  # a letter that this model writes
    found = Writer(tokenizer, (stop,), 12, 1, CPU)(model, prompts)
    assert found == [greedy(model, tokenizer, p, 12, stop) for p in prompts]
    assert all(stop not in text for text in found)
    assert found != free


@pytest.mark.parametrize("loss", ["answer", "sequence", "f1", "exact_match"])
def test_every_loss_is_evaluated_on_dev_as_in_training(loaded: Any, loss: str) -> None:
    """Dev's loss is that of all of dev in one batch, whatever the evaluation's batch size."""
    problem = task(loss=loss).prepare(loaded, CPU)
    assert problem.sizes == {"train": 5, "dev": 3, "test": 4}
    assert problem.differentiable is (loss in ("answer", "sequence"))
    found = [problem.evaluate(loaded.model, "dev", size) for size in (1, 2, 64)]
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    as_train = replace(
        problem,
        loss_examples={**problem.loss_examples, "train": problem.loss_examples["dev"]},
        eval_examples={**problem.eval_examples, "train": problem.eval_examples["dev"]},
    )
    whole = as_train.loss(loaded.model, as_train.batch(range(3)))
    assert whole.dtype == torch.float32
    assert found[0]["loss"] == pytest.approx(float(whole.detach()), abs=1e-5)


def test_the_answer_loss_is_the_mean_over_the_targets_tokens(loaded: Any) -> None:
    """By hand from the text: tokens of the target alone, one mean over all of the batch's."""
    problem = task().prepare(loaded, CPU)
    total, count = 0.0, 0
    for loss_example in problem.loss_examples["train"]:
        (candidate,) = loss_example.candidates
        ids = torch.tensor([[*candidate.context, candidate.target[-1]]])
        log_p = loaded.model(input_ids=ids).logits[0].detach().float().log_softmax(-1)
        places = range(ids.shape[1] - len(candidate.target), ids.shape[1])
        total -= sum(float(log_p[i - 1, ids[0, i]]) for i in places)
        count += len(candidate.target)
        assert loaded.tokenizer.decode(candidate.target).endswith("\n")
    loss = problem.loss(loaded.model, problem.batch(range(5)))
    assert float(loss.detach()) == pytest.approx(total / count, abs=1e-4)
    assert problem.weight(problem.batch(range(5))) == count


def test_the_metric_is_that_of_the_generated_texts(loaded: Any) -> None:
    """Mean F1 over the split, under its own name and as accuracy."""
    problem = task().prepare(loaded, CPU)
    questions = problem.eval_examples["test"]
    texts = problem.writer(loaded.model, [q.tokens for q in questions])
    expected = sum(f1(t, q.answers) for t, q in zip(texts, questions, strict=True)) / 4
    found = problem.evaluate(loaded.model, "test", 2)
    assert found["f1"] == found["accuracy"] == pytest.approx(expected)


def test_a_pattern_takes_the_last_number_out_of_the_text(loaded: Any) -> None:
    """GSM8K's answers stand behind ####; a text without one is wrong."""
    problem = task(metric="exact_match", extract=r"#### (\d+)").prepare(loaded, CPU)
    assert problem.metric("2 + 2 = 4 #### 4 or #### 5", ["5"]) == 1.0
    assert problem.metric("it is 5", ["5"]) == 0.0


def test_demonstrations_are_answered_prompts_of_train(loaded: Any) -> None:
    """Two of them before each question of dev and test; training prompts stay bare."""
    problem = task(demonstrations=2, truncation="left").prepare(loaded, CPU)
    decode = loaded.tokenizer.decode
    for question in problem.eval_examples["test"]:
        assert decode(question.tokens).count("Answer:") == 3 or len(question.tokens) == 56
    assert all(decode(q.tokens).count("Answer:") == 1 for q in problem.eval_examples["train"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"metric": "bleu"}, "task.metric=bleu: choose f1, exact_match, same_number"),
        (
            {"loss": "choice"},
            "task.loss=choice: choose answer, sequence, f1, exact_match, same_number",
        ),
        ({"max_new_tokens": 0}, "task.max_new_tokens"),
        ({"stop": [""]}, "task.stop"),
        ({"extract": "("}, "task.extract"),
        ({"answers": "nothing"}, ": task.answers: 'nothing' is undefined; the row has"),
        ({"answers": "[]"}, ": task.answers: there is none"),
        ({"max_new_tokens": 64}, "task.max_new_tokens=64: the model takes 64 tokens"),
        ({"demonstrations": 6}, "task.demonstrations=6: train has 5"),
    ],
)
def test_settings_that_make_no_task_are_refused(
    changed: dict[str, Any], says: str, loaded: Any
) -> None:
    """The message names the setting or the row."""
    with pytest.raises(UserError) as caught:
        task(**changed).prepare(loaded, CPU)
    assert says in str(caught.value)


def test_only_a_decoder_generates(loaded: Any) -> None:
    """A masked model or a classification head is refused in one sentence."""
    masked = SimpleNamespace(**{**vars(loaded), "interface": Interface.MASKED})
    with pytest.raises(UserError, match="needs a decoder"):
        task().prepare(masked, CPU)
