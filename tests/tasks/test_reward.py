"""Rewards of sampled answers: noise, verifiers, pass@k, Countdown's rows."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.small_models import small_model
from zobench.build import build
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.countdown import Countdown
from zobench.tasks.example import Row
from zobench.tasks.reward import RewardTask
from zobench.tasks.reward_problem import RewardProblem, pass_at
from zobench.tasks.sampling import Sampling
from zobench.tasks.verifiers import countdown, gsm8k

CPU = torch.device("cpu")
Compose = Callable[..., dict[str, Any]]
ROWS = [
    {"text": f"the {a} was {b}", "wanted": b}
    for a in ("film", "plot", "story of the film", "cast")
    for b in ("long", "dull", "great")
]


def share_of_letters(text: str, answers: list[str], row: dict[str, Any]) -> float:
    """How many of the wanted word's letters the text has."""
    assert answers == [row["wanted"]]
    return sum(letter in text for letter in row["wanted"]) / len(row["wanted"])


def not_a_number(text: str, answers: list[str], row: dict[str, Any]) -> float:
    del text, answers, row
    return float("nan")


class Given:
    """A source of the rows above."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [Row(values, f"row {number}") for number, values in enumerate(ROWS)]
        return {"train": rows[:8], "test": rows[8:]}


def task(**changed: Any) -> RewardTask:
    """Texts about films, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ text }} .",
        "answers": "wanted",
        "reward": share_of_letters,
        "samples": 3,
        "pass_at": [1, 2, 3],
        "max_new_tokens": 6,
        "source": Given(),
        "sizes": {"train": 5, "dev": 3, "test": 4},
    }
    return RewardTask(**(arguments | changed))


@pytest.fixture
def loaded(tiny_opt: Any, tokenizer: Any) -> Any:
    """A random decoder in float32."""
    return SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)


def texts(problem: RewardProblem, model: Any, numbers: list[int]) -> list[list[str]]:
    """The samples of these rows of train, as one batch."""
    batch = problem.batch(numbers)
    return [[s.text for s in samples] for samples in problem.sampled(model, batch.prompts)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_row_gets_does_not_depend_on_its_batch(loaded: Any, dtype: torch.dtype) -> None:
    """Every subset and order of the rows: the same texts and the same bits of the rewards."""
    model = small_model("llama").to(dtype)
    problem = task().prepare(SimpleNamespace(**{**vars(loaded), "model": model}), CPU)
    alone = [texts(problem, model, [number])[0] for number in range(5)]
    assert len({text for some in alone for text in some}) > 5
    for numbers in ([4, 0, 2], [0, 1, 2, 3, 4], [3, 3, 1]):
        assert texts(problem, model, numbers) == [alone[number] for number in numbers]
    whole = problem.batch(range(5))
    rewards = problem.outputs(model, whole)
    assert rewards.shape == (5, 3) and rewards.std() > 0
    for first, last in ((0, 2), (2, 5)):
        assert torch.equal(problem.outputs(model, whole.cut(first, last)), rewards[first:last])
    assert float(problem.loss(model, whole)) == pytest.approx(-float(rewards.mean()))


@pytest.mark.parametrize("kind", ["opt", "llama", "qwen3", "gpt2"])
def test_rows_that_are_continued_together_get_the_same_texts(loaded: Any, kind: str) -> None:
    """In float32, whatever `rows_at_once` is, and with the prompt read once or per sample."""
    model = small_model(kind)
    problem = task().prepare(SimpleNamespace(**{**vars(loaded), "model": model}), CPU)
    expected = texts(problem, model, [*range(5)])
    assert texts(replace(problem, rows_at_once=4), model, [*range(5)]) == expected
    alone = replace(problem, samples=1)
    assert [some[:1] for some in expected] == texts(alone, model, [*range(5)])


def test_samples_are_those_of_the_plain_loop(loaded: Any) -> None:
    """One sequence, one token at a time, no cache: a race within the nucleus."""
    model, tokenizer = loaded.model, loaded.tokenizer
    problem = task(temperature=0.8, top_p=0.9).prepare(loaded, CPU)
    for place, prompt in enumerate(problem.prompts["train"]):
        for sample in range(3):
            ids = list(prompt.tokens)
            noise = problem.sampling.noise((0, place), sample)
            for _ in range(6):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
                p = (logits / 0.8).softmax(-1).tolist()
                nucleus, held = set[int](), 0.0
                for token in sorted(range(len(p)), key=lambda token: -p[token]):
                    nucleus.add(token)
                    held += p[token]
                    if held >= 0.9:
                        break
                times = noise.standard_exponential(len(p), dtype="float32")
                token = min(nucleus, key=lambda token: times[token] / p[token])
                ids.append(token)
                text = tokenizer.decode(ids[len(prompt.tokens) :], skip_special_tokens=True)
                if token == model.generation_config.eos_token_id or "\n" in text:
                    break
            found = problem.sampled(model, [prompt])[0][sample].text
            assert found == text.split("\n")[0].strip()


def test_the_global_generator_is_neither_read_nor_moved(loaded: Any) -> None:
    """Whatever its seed, the samples are the same, and its state is as before."""
    problem = task().prepare(loaded, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = texts(problem, loaded.model, [0, 1])
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert texts(problem, loaded.model, [0, 1]) == one
        assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_of_the_seed_the_row_the_sample_and_the_step(loaded: Any) -> None:
    """Another seed, split, row, sample or step has other numbers."""

    def times(seed: int, place: tuple[int, int], sample: int, *draw: int) -> tuple[float, ...]:
        noise = Sampling(1.0, 1.0, seed).noise(place, sample, draw)
        return tuple(noise.standard_exponential(3))

    keys = [*itertools.product((0, 1), (0, 1), (0, 1), (0, 1))]
    assert len({times(seed, (split, row), n) for seed, split, row, n in keys}) == 16
    assert times(1, (0, 1), 2) == times(1, (0, 1), 2)
    draws = [(), (0, 0), (1, 0), (0, 1)]  # of an evaluation, of three batches
    assert len({times(1, (0, 1), 2, *draw) for draw in draws}) == 4
    one, other = (task(data_seed=seed).prepare(loaded, CPU) for seed in (0, 1))
    prompt = one.prompts["train"][0]
    assert one.sampled(loaded.model, [prompt]) != other.sampled(loaded.model, [prompt])


def test_draws_have_the_distribution_of_the_nucleus() -> None:
    """20,000 draws: the shares of the tokens within 0.02 of the probabilities."""
    logits = torch.tensor([[2.0, -torch.inf, 1.0, 0.0, -4.0]]).expand(20_000, -1)
    times = torch.empty(20_000, 5).exponential_(generator=torch.Generator().manual_seed(0))
    found = Sampling(2.0, 0.95, seed=0).draw(logits, times).bincount(minlength=5) / 20_000
    p = torch.tensor([2.0, -torch.inf, 1.0, 0.0, -torch.inf]).div(2.0).softmax(-1)
    assert torch.allclose(found, p, atol=0.02) and not found[1] and not found[4]


def test_a_small_change_of_the_model_changes_few_tokens() -> None:
    """No more than twice the total variation, although every probability has changed."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1000, generator=generator).expand(5000, -1)
    other = logits + 0.01 * torch.randn(1, 1000, generator=generator)
    times = torch.empty(5000, 1000).exponential_(generator=generator)
    sampling = Sampling(1.0, 1.0, seed=0)
    changed = (sampling.draw(logits, times) != sampling.draw(other, times)).float().mean()
    variation = (logits[0].softmax(-1) - other[0].softmax(-1)).abs().sum() / 2
    assert 0 < changed < 2 * variation


def test_logits_or_rewards_that_are_not_finite_are_a_loss_that_is_not(loaded: Any) -> None:
    """So the step is refused, as with every other loss."""
    problem = task().prepare(loaded, CPU)
    broken = small_model("opt")
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    batch = problem.batch([0, 1])
    assert problem.loss(broken, batch).isnan()
    for rewards in ([math.inf, -math.inf], [1e308, 1e308]):  # of a function of the user's own
        assert problem.loss_of(torch.tensor(rewards, dtype=torch.float64), batch).isnan()


@pytest.mark.parametrize(("samples", "right"), [(5, 0), (5, 2), (6, 5), (4, 4), (1, 1)])
def test_pass_at_k_is_the_count_over_all_choices_of_k_samples(samples: int, right: int) -> None:
    """The share of subsets of size k that hold a right sample."""
    drawn = [number < right for number in range(samples)]
    for k in range(1, samples + 1):
        subsets = list(itertools.combinations(drawn, k))
        share = sum(map(any, subsets)) / len(subsets)
        assert pass_at(k, samples=samples, right=right) == pytest.approx(share)


def test_dev_reports_means_and_pass_at_k_in_the_order_of_the_data(loaded: Any) -> None:
    """From the samples by hand, for any batch size; an answer is the first sample."""
    problem = task(passes=0.5).prepare(loaded, CPU)
    rows = problem.sampled(loaded.model, problem.prompts["test"])
    answers: list[Any] = []
    found = problem.evaluate(loaded.model, "test", 3, answers)
    assert found == problem.evaluate(loaded.model, "test", 64)
    rewards = [[sample.reward for sample in row] for row in rows]
    right = [sum(reward >= 0.5 for reward in row) for row in rewards]
    assert found["reward"] == pytest.approx(torch.tensor(rewards).mean().item())
    assert found["loss"] == -found["reward"]
    assert found["accuracy"] == pytest.approx(sum(right) / 12)
    assert found["pass_at_1"] == pytest.approx(found["accuracy"])
    assert found["pass_at_3"] == sum(map(bool, right)) / 4
    assert 0 < found["pass_at_1"] < found["pass_at_2"] < found["pass_at_3"]
    assert [a.answer for a in answers] == [row[0].text for row in rows]
    assert [a.score for a in answers] == pytest.approx([count / 3 for count in right])
    assert [a.gold for a in answers] == [p.answers[0] for p in problem.prompts["test"]]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("3 * 7", 1.0),
        ("(7*3) = 21", 1.0),
        ("7 * 3\nMake 4 from", 1.0),
        ("3 + 7", 0.1),
        ("7", 0.1),
        ("21", 0.0),  # not one of the numbers
        ("3 * 7 * 1", 0.0),
        ("3 * 7 + 7 - 7", 0.0),
        ("3 and 7", 0.0),
        ("", 0.0),
        ("= 21", 0.0),
        ("3 * (7", 0.0),
        ("3 ** 7", 0.0),
        ("3 // 7", 0.0),
        ("3(7)", 0.0),
        ("-3 * -7", 0.0),
        ("03 * 7", 0.0),
        ("3.0 * 7", 0.0),
        ("7 / (3 - 3)", 0.0),
        ("__import__('os')", 0.0),
        ("(" * 90 + "3", 0.0),
        ("(" * 49 + "3" + ")" * 49, 0.1),
        ("9" * 5000, 0.0),
        ("٣ * 7", 0.0),
    ],
)
def test_countdown_accepts_expressions_over_the_numbers(text: str, reward: float) -> None:
    """Each number at most once, exact arithmetic, nothing but the four operations."""
    row = {"numbers": [3, 7], "target": 21}
    assert countdown(text, [], row, well_formed=0.1) == reward
    assert countdown(text, [], row) == float(reward == 1.0)


def test_countdown_counts_equal_numbers_and_computes_exactly() -> None:
    """A number that is given twice may be used twice; thirds are no floats."""
    assert countdown("4 + 4", [], {"numbers": [4, 4], "target": 8}) == 1.0
    assert countdown("4 + 4", [], {"numbers": [4, 5], "target": 8}) == 0.0
    assert countdown("1 / 3 * 3", [], {"numbers": [1, 3, 3], "target": 1}) == 1.0
    assert countdown("4 + 4", [], {"numbers": [4.0, 4.0], "target": "8"}) == 1.0
    unread = ([1], None), ("[3, 5]", 8), (["3", "5"], 8), ([3, 5], math.inf), ([0.5, 3], 8)
    for numbers, target in unread:  # none of them is 0 without a word
        with pytest.raises(UserError, match="needs the columns numbers"):
            countdown("3 + 5", [], {"numbers": numbers, "target": target})


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("6 * 200 = 1200\n#### 1200", 1.0),
        ("#### 1,200.00", 1.0),
        ("#### 3 #### 1200", 1.0),
        ("#### 1200 #### 3", 0.0),
        ("#### -1200", 0.0),
        ("1200", 0.0),
        ("#### many", 0.0),
    ],
)
def test_gsm8k_reads_the_last_number_behind_the_signs(text: str, reward: float) -> None:
    """The answer is the row's text, or its number."""
    assert gsm8k(text, ["There are 6 * 200.\n#### 1,200"], {}) == reward
    assert gsm8k(text, ["1200"], {}) == reward


def test_gsm8k_judges_as_the_task_of_that_name(compose: Compose) -> None:
    """The same pattern, and so the same numbers."""
    from zobench.tasks import verifiers

    assert compose("task=gsm8k")["task"]["extract"] == verifiers._FINAL.pattern


def test_countdowns_rows_are_solvable_and_distinct() -> None:
    """Splits share no problem; a longer train leaves dev and test as they are."""
    sizes = {"train": 100, "dev": 20, "test": 30}
    made = Countdown(sizes=sizes, seed=3, count=2, largest=20).rows(None)
    assert {split: len(rows) for split, rows in made.items()} == sizes
    values = [row.values for rows in made.values() for row in rows]
    assert max(Counter((*sorted(v["numbers"]), v["target"]) for v in values).values()) == 1
    for value in values:
        a, b = value["numbers"]
        tries = [f"{x} {o} {y}" for x, y in ((a, b), (b, a)) for o in "+-*/"]
        assert max(countdown(text, [], value) for text in tries) == 1.0
        assert value["target"] > 0
    longer = Countdown(sizes=sizes | {"train": 120}, seed=3, count=2, largest=20).rows(None)
    assert (longer["dev"], longer["test"]) == (made["dev"], made["test"])
    assert longer["train"][:100] == made["train"]
    other = Countdown(sizes=sizes, seed=4, count=3, largest=20).rows(None)["test"][0].values
    assert len(other["numbers"]) == 3 and other != made["test"][0].values
    with pytest.raises(UserError, match=r"task\.sizes: there are not many more than"):
        Countdown(sizes={"train": 100, "dev": 1, "test": 1}, seed=0, count=2, largest=3).rows(None)


def test_the_countdown_yaml_renders_its_example(compose: Compose) -> None:
    """To the character; and all of its rows can be drawn."""
    node = compose("task=countdown")["task"]
    built = build(node)
    shown, answers = built.render(Row(node["example"]["row"], "the example"))
    assert shown.prompt == node["example"]["prompt"] and answers == ()
    pools = built.source.rows(None)
    assert {split: len(rows) for split, rows in pools.items()} == node["sizes"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"reward": "bleu"}, "task.reward=bleu: choose gsm8k, countdown, or a function"),
        ({"reward": str.upper}, "is called with (output, gold, row)"),
        ({"reward": not_a_number}, "task.reward=not_a_number: returned nan"),
        ({"reward": "countdown"}, "task.reward=countdown: needs the columns numbers"),
        ({"samples": 0}, "task.samples and task.rows_at_once must be at least 1"),
        ({"rows_at_once": 0}, "task.samples and task.rows_at_once must be at least 1"),
        ({"pass_at": [1, 4]}, "task.pass_at=[1, 4]: choose 1 to task.samples=3"),
        ({"temperature": 0.0}, "task.temperature=0.0"),
        ({"top_p": 1.5}, "task.top_p=1.5"),
        ({"max_new_tokens": 0}, "task.max_new_tokens"),
        ({"max_new_tokens": 64}, "task.max_new_tokens=64: the model takes 64 tokens"),
        ({"stop": [""]}, "task.stop"),
    ],
)
def test_settings_that_make_no_task_are_refused(
    changed: dict[str, Any], says: str, loaded: Any
) -> None:
    """The message names the setting and says what to do."""
    with pytest.raises(UserError) as caught:
        task(**changed).prepare(loaded, CPU)
    assert says in str(caught.value)


def test_only_a_decoder_is_sampled(loaded: Any) -> None:
    """A masked model or a classification head is refused in one sentence."""
    masked = SimpleNamespace(**{**vars(loaded), "interface": Interface.MASKED})
    with pytest.raises(UserError, match="needs a decoder"):
        task().prepare(masked, CPU)
