"""Scores that read an example's shared prefix once, against a row per candidate."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.small_models import VOCABULARY, small_config
from zobench.interface import Interface
from zobench.tasks.batch import Batch, collate
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.losses import ChoiceLoss
from zobench.tasks.scoring import language_scores
from zobench.tasks.shared_prefix import shared_prefix_scores
from zobench.tuning.lora import lora
from zobench.tuning.prefix import prefix
from zobench.tuning.prompt import prompt

KINDS = ("opt", "llama", "qwen3", "gpt2")
# examples as (tokens of the prompt, tokens of each choice)
SHAPES: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "alike": [(9, (4, 4)), (9, (4, 4))],
    "ragged": [(31, (5, 1, 2)), (4, (2, 7)), (17, (1, 1, 1, 6))],
    "one candidate": [(12, (4,)), (9, (3, 5)), (20, (1,))],
    "one example": [(25, (2, 3, 4, 5, 6))],
    "one token before": [(1, (6, 6, 6)), (2, (5, 6))],
    "up to the last position": [(118, (11, 3)), (40, (8, 2, 11))],
}


def loud(config: Any) -> Any:
    """A random decoder whose weights are so large that any slip moves a score."""
    from transformers import AutoModelForCausalLM

    config.initializer_range = config.init_std = 0.3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    """One model of each family."""
    return loud(small_config(request.param))


def encoded(prompt: int, choices: tuple[int, ...], seed: int, *, common: int = 0) -> Encoded:
    """Random tokens; the choices have their first `common` tokens in common."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    before, same = draw(prompt), draw(common)
    candidates = []
    for length in choices:
        target = (same + draw(length))[:length]
        candidates.append(Candidate((before + target)[:-1], target))
    return Encoded(tuple(candidates), 0)


def batch_of(shape: list[tuple[int, tuple[int, ...]]], *, common: int = 0) -> Batch:
    """A batch of examples of these lengths."""
    examples = [encoded(p, c, seed, common=common) for seed, (p, c) in enumerate(shape)]
    return collate(examples, 1, 128)


def shared(model: Any, batch: Batch, at_once: int = 4, *, summed: bool = False) -> Tensor:
    """Scores that must have been got the short way."""
    found = shared_prefix_scores(model, batch, at_once, summed=summed)
    assert found is not None
    return found


def assert_close(scores: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5, whatever the size of the scores."""
    torch.testing.assert_close(scores, expected, rtol=0.0, atol=1e-5)


@contextmanager
def calls_of(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The shapes of the inputs of every forward pass."""
    calls: list[tuple[int, int]] = []

    def note(_model: Any, _args: Any, inputs: dict[str, Any]) -> None:
        calls.append(tuple(inputs["input_ids"].shape))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("common", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_those_of_a_row_per_candidate(
    shape: str, common: int, summed: bool, model: Any
) -> None:
    """Whatever the lengths, the number of candidates, and where they part."""
    batch = batch_of(SHAPES[shape], common=common)
    expected = language_scores(model, batch, summed=summed)
    # the sum of several log-probabilities has their errors added up
    found = shared(model, batch, summed=summed)
    torch.testing.assert_close(found, expected, rtol=1e-6 if summed else 0.0, atol=1e-5)
    assert found.dtype == torch.float32
    known = expected[expected > -math.inf]
    assert float(known.std()) > 0.1, "the model is too flat for this test to see anything"


@torch.no_grad()
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_no_more_rows_than_that_are_read_at_once(at_once: int, model: Any) -> None:
    """The scores stay what they are."""
    batch = batch_of(SHAPES["ragged"])
    with calls_of(model) as calls:
        found = shared(model, batch, at_once)
    assert all(rows <= at_once for rows, _ in calls[1:])
    assert_close(found, language_scores(model, batch))


@torch.no_grad()
def test_fewer_tokens_are_read_and_only_what_predicts_a_choice_gets_logits(model: Any) -> None:
    """A prompt of 60 and four choices of 5: 60 + 4 x 4 tokens, 1 + 4 x 4 logits an example."""
    batch = batch_of([(60, (5, 5, 5, 5))] * 2)
    logits = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _m, _i, out: logits.append(out.shape[1]))
    with calls_of(model) as calls:
        shared(model, batch, 100)
    handle.remove()
    assert calls == [(2, 60), (8, 4)]
    assert logits == [2, 2 * 4 * 4]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ([(9, (1, 1)), (5, (1, 1, 1))], "choices of one token have one row"),
        ([(9, (4,)), (5, (3,))], "one candidate each"),
        ([(60, (1, 1)), (2, (40, 40))], "padding would cost more than is saved"),
    ],
)
def test_rows_are_left_alone_where_nothing_is_saved(shape: Any, why: str, model: Any) -> None:
    """Without a forward pass."""
    with calls_of(model) as calls:
        assert shared_prefix_scores(model, batch_of(shape), 4) is None, why
    assert not calls


def test_contexts_that_were_cut_to_begin_differently_are_left_alone(model: Any) -> None:
    """Cutting on the left can take the beginning off one candidate and not off another."""
    pair = encoded(20, (3, 6), 0).candidates
    cut = Candidate(pair[1].context[3:], pair[1].target)
    batch = collate([Encoded((pair[0], cut), 0), encoded(20, (3, 3), 1)], 1, 128)
    assert shared_prefix_scores(model, batch, 4) is None


@torch.no_grad()
@pytest.mark.parametrize("window", [16, 24, 25, 64])
def test_a_window_must_be_longer_than_the_text(window: int) -> None:
    """Padding counts for a window: one that is shorter than prefix and rest would see less."""
    from transformers import MistralConfig

    config = MistralConfig(**{**small_config("llama").to_dict(), "sliding_window": window})
    model = loud(config)
    batch = batch_of([(20, (5, 5)), (7, (3, 4))])
    if window <= 24:
        assert shared_prefix_scores(model, batch, 4) is None
    else:
        assert_close(shared(model, batch), language_scores(model, batch))


def test_a_text_that_becomes_long_on_the_way_is_left_alone() -> None:
    """LongRoPE turns the keys of a long text otherwise than those of its beginning."""
    model = loud(small_config("llama"))
    for most, short in ((24, True), (23, False)):
        model.config.rope_parameters["original_max_position_embeddings"] = most
        found = shared_prefix_scores(model, batch_of([(20, (5, 5)), (7, (3, 4))]), 4)
        assert (found is not None) is short


def test_models_with_recurrent_states_or_without_a_cache_are_left_alone() -> None:
    """A state cannot be padded on the left."""
    from transformers import FalconMambaConfig, Lfm2Config

    small: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
    mamba = loud(FalconMambaConfig(**small, state_size=4))
    lfm = loud(
        Lfm2Config(
            **small,
            intermediate_size=32,
            num_attention_heads=2,
            num_key_value_heads=1,
            layer_types=["conv", "full_attention"],
        )
    )
    for model in (mamba, lfm, torch.nn.Linear(2, 2)):
        assert shared_prefix_scores(model, batch_of(SHAPES["alike"]), 4) is None


def test_lora_is_scored_the_short_way_and_virtual_tokens_are_not() -> None:
    """These take the cache, or the first positions, for themselves."""
    batch = batch_of(SHAPES["ragged"])
    tuned = lora(loud(small_config("opt")), seed=0).eval()
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)  # they begin at zero, where an adapter says nothing
    assert_close(shared(tuned, batch), language_scores(tuned, batch))
    for tuning in (prefix, prompt):
        tuned = tuning(loud(small_config("opt")), seed=0).eval()
        assert shared_prefix_scores(tuned, batch, 4) is None


@pytest.mark.parametrize("failing", [1, 2])
def test_no_graph_and_no_hook_stay(failing: int, model: Any) -> None:
    """Not even after a failure, in either pass."""
    batch = batch_of(SHAPES["alike"])
    assert not shared(model, batch).requires_grad
    head, passes = model.get_output_embeddings(), []

    def fail(*_: Any) -> None:
        passes.append(True)
        if len(passes) == failing:
            raise RuntimeError("broken")

    handle = head.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="broken"):
            shared_prefix_scores(model, batch, 4)
    finally:
        handle.remove()
    assert not head._forward_pre_hooks


@pytest.fixture
def evaluate(model: Any) -> Callable[..., dict[str, float]]:
    """`evaluate(examples, interface)`: as dev, in batches of 3."""

    def evaluate(examples: list[Encoded], interface: Interface) -> dict[str, float]:
        tokenizer = SimpleNamespace(pad_token_id=1)
        loaded = SimpleNamespace(model=model, tokenizer=tokenizer, interface=interface)
        splits = {"train": [], "dev": examples, "test": []}
        encoder = Encoder(loaded, 128, "error")
        problem = ChoiceProblem(splits, splits, ChoiceLoss(), encoder, torch.device("cpu"))
        return problem.evaluate(model, "dev", 3)

    return evaluate


@pytest.mark.parametrize("calibrated", [False, True])
def test_evaluation_reads_prefixes_once_and_says_the_same(
    calibrated: bool, model: Any, evaluate: Callable[..., dict[str, float]]
) -> None:
    """Only of decoders: what a masked model reads depends on both sides."""
    examples = []
    for seed in range(7):
        asked = encoded(30 + seed, (4, 6), seed)
        prior = asked.candidates
        prior = tuple(Candidate(c.context[20:], c.target) for c in prior) if calibrated else ()
        examples.append(Encoded(asked.candidates, seed % 2, prior=prior))
    with calls_of(model) as short:
        found = evaluate(examples, Interface.CAUSAL)
    with calls_of(model) as long:
        expected = evaluate(examples, Interface.MASKED)
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4 if calibrated else 1e-5)
    tokens = [sum(rows * width for rows, width in calls) for calls in (short, long)]
    assert tokens[0] < 0.8 * tokens[1]
