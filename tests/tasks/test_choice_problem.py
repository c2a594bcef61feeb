"""Loss and accuracy of a split."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zobench.interface import Interface
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Candidate, Encoded, encode
from zobench.tasks.example import Example
from zobench.tasks.losses import ChoiceLoss

WORDS = ("the", "film", "was", "long", "It", "great", "terrible", "music", "a", "?", "quite")


def evaluate(model: Any, examples: Sequence[Encoded], batch_size: int) -> dict[str, float]:
    """The examples as dev, read by a decoder of 64 positions whose padding is token 1."""
    config = SimpleNamespace(max_position_embeddings=64, model_type="any")
    loaded = SimpleNamespace(
        model=SimpleNamespace(config=config),
        tokenizer=SimpleNamespace(pad_token_id=1),
        interface=Interface.CAUSAL,
    )
    encoder = Encoder(loaded, None, "error")
    splits = {"train": [], "dev": examples, "test": []}
    problem = ChoiceProblem(splits, splits, ChoiceLoss(), encoder, torch.device("cpu"))
    return problem.evaluate(model, "dev", batch_size)


@pytest.fixture(scope="module")
def examples(tokenizer: Any) -> list[Encoded]:
    """Eleven examples of many lengths, with two and with three choices."""
    found = []
    for n in range(11):
        prompt = " ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 3 + (n * 7) % 12))
        choices = (" great", " terrible", " a terrible film")[: 2 + n % 2]
        found.append(
            encode(
                Example(prompt, choices, n % 2, f"row {n}"),
                tokenizer,
                max_length=64,
                truncation="error",
            )
        )
    return found


class Told(torch.nn.Module):
    """Gives token t of the vocabulary the logit that a table has for the first token read."""

    def __init__(self, table: dict[int, list[float]]) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        del attention_mask, use_cache
        last = [self.table[int(row[0])] for row in input_ids]
        return SimpleNamespace(
            logits=torch.tensor(last).unsqueeze(1).expand(-1, input_ids.shape[1], -1)
        )


def scored(gold: int, last: int) -> Encoded:
    """An example whose choices are the tokens 0 and 1, after the token `last`."""
    return Encoded((Candidate((last,), (0,)), Candidate((last,), (1,))), gold)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 11, 64])
def test_the_result_does_not_depend_on_the_batch_size(
    batch_size: int, tiny_opt: Any, examples: list[Encoded]
) -> None:
    """Nor on a last batch that is smaller than the others."""
    one = evaluate(tiny_opt, examples, 4)
    other = evaluate(tiny_opt, examples, batch_size)
    assert other["accuracy"] == one["accuracy"]
    assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)


@given(st.permutations(range(11)))
def test_the_result_does_not_depend_on_the_order(order: Sequence[int]) -> None:
    """And the examples themselves stay in the order they were in."""
    known = [scored(gold=n % 2, last=n % 4) for n in range(11)]
    table = {n: [0.1 * n, 0.4 - 0.1 * n] for n in range(4)}
    shuffled = [known[i] for i in order]
    kept = list(shuffled)
    found = evaluate(Told(table), shuffled, 3)
    assert shuffled == kept
    assert found == pytest.approx(evaluate(Told(table), known, 3), abs=1e-6)


def test_loss_and_accuracy_by_hand() -> None:
    """Cross-entropy over the choices, mean over examples; shares of right answers."""
    model = Told({5: [2.0, 0.0], 6: [0.0, 1.0], 7: [0.0, 3.0]})
    known = [scored(0, 5), scored(1, 6), scored(0, 7)]
    found = evaluate(model, known, 2)
    losses = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0)), math.log1p(math.exp(3.0))]
    assert found["loss"] == pytest.approx(sum(losses) / 3, abs=1e-6)
    assert found["accuracy"] == 2 / 3


@pytest.mark.parametrize("gold", [0, 1])
@pytest.mark.parametrize("bad", [[math.nan, 0.0], [0.0, math.nan], [math.nan, math.nan]])
def test_nan_is_a_wrong_answer(gold: int, bad: list[float]) -> None:
    """Whichever choice is right; its neighbours keep theirs, and the loss says NaN."""
    model = Told({5: bad, 6: [1.0, 0.0]})
    known = [scored(gold, 5), scored(0, 6), scored(0, 6), scored(0, 6)]
    for batch_size in (1, 4):
        found = evaluate(model, known, batch_size)
        assert found["accuracy"] == 0.75
        assert math.isnan(found["loss"])


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_models_mode_is_given_back(
    training: bool, tiny_opt: Any, examples: list[Encoded]
) -> None:
    """Evaluating in the middle of training neither adds noise nor stops it from being training."""
    import copy

    model = copy.deepcopy(tiny_opt)
    for layer in model.model.decoder.layers:
        layer.dropout = 0.5
    model.train(training)
    found = evaluate(model, examples, 4)
    assert model.training is training
    assert found == evaluate(tiny_opt, examples, 4)


def test_evaluation_builds_no_graph_and_draws_no_random_numbers(
    tiny_opt: Any, examples: list[Encoded]
) -> None:
    """Memory is inference's, and a run's noise does not depend on how often dev is evaluated."""
    seen: list[Tensor] = []
    handle = tiny_opt.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out))
    state = torch.random.get_rng_state()
    try:
        evaluate(tiny_opt, examples, 4)
    finally:
        handle.remove()
    assert seen and not any(out.requires_grad for out in seen)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batches_hold_little_padding(examples: list[Encoded]) -> None:
    """Examples are taken in order of length."""
    widths: list[int] = []

    class Watching(Told):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
            del attention_mask, use_cache
            widths.append(input_ids.shape[1])
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 400))

    evaluate(Watching({}), examples, 2)
    assert widths == sorted(widths)
    assert len(set(widths)) > 1
