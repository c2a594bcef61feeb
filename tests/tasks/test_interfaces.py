"""Masked language models and classification heads, put the same questions as decoders."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.choice import ChoiceTask
from zobench.tasks.encoder import Encoder
from zobench.tasks.example import Example, Row

CPU = torch.device("cpu")
ROWS = [
    {"premise": f"the {a} was {b}.", "hypothesis": f"The {a} is {c}", "label": n % 3}
    for n, (a, b, c) in enumerate(
        (a, b, c)
        for a in ("film", "story", "plot of the film")
        for b in ("long", "dull")
        for c in ("great", "terrible")
    )
]


class Given:
    """A source of the rows above, every other one of them for the test."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        del data_dir
        rows = [Row(values, f"row {number}") for number, values in enumerate(ROWS)]
        return {"train": rows[::2], "test": rows[1::2]}


def task(**changed: Any) -> ChoiceTask:
    """Inference between two sentences, with some arguments changed."""
    arguments: dict[str, Any] = {
        "version": 1,
        "prompt": "{{ premise }} {{ hypothesis }}?",
        "choices": [" Yes", " Maybe", " No it was not"],
        "label": "label",
        "labels": [0, 1, 2],
        "cloze": "{{ premise[:-1] }} ? {{ mask }}, {{ hypothesis | lower_first }}",
        "texts": ["{{ premise }}", "{{ hypothesis }}"],
        "source": Given(),
        "sizes": {"train": 4, "dev": 2, "test": 6},
    }
    return ChoiceTask(**(arguments | changed))


@pytest.fixture(scope="module")
def masked_tokenizer(request: pytest.FixtureRequest) -> Any:
    """The tests' tokenizer with a mask token, `<s> a </s>` and pairs with token types."""
    import copy

    from tokenizers import processors

    tokenizer = copy.deepcopy(request.getfixturevalue("tokenizer"))
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def model_of(kind: str, head: str, tokenizer: Any) -> Any:
    """A small random model, loud enough for differences to be seen."""
    import transformers

    make: Any = {
        ("roberta", "lm"): transformers.RobertaForMaskedLM,
        ("bert", "lm"): transformers.BertForMaskedLM,
        ("bert", "classes"): transformers.BertForSequenceClassification,
        ("opt", "classes"): transformers.OPTForSequenceClassification,
    }[kind, head]
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    own = {"ffn_dim": 64, "word_embed_proj_dim": 32} if kind == "opt" else {"intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = make.config_class(
            **size,
            **tokens,
            **own,
            max_position_embeddings=130,
            num_labels=3,
            **({"init_std": 0.3} if kind == "opt" else {"initializer_range": 0.3}),
        )
        return make(config).eval()


@pytest.fixture(params=["roberta", "bert"])
def masked(request: pytest.FixtureRequest, masked_tokenizer: Any) -> Any:
    """A masked language model."""
    model = model_of(request.param, "lm", masked_tokenizer)
    return SimpleNamespace(model=model, tokenizer=masked_tokenizer, interface=Interface.MASKED)


@pytest.fixture(params=["bert", "opt"])
def classifier(request: pytest.FixtureRequest, masked_tokenizer: Any) -> Any:
    """A classification head on an encoder and on a decoder."""
    model = model_of(request.param, "classes", masked_tokenizer)
    return SimpleNamespace(model=model, tokenizer=masked_tokenizer, interface=Interface.CLASSIFIER)


@torch.no_grad()
def test_a_masked_model_scores_choices_at_as_many_masks_as_they_have_tokens(masked: Any) -> None:
    """Against the plain loop: one row and one choice at a time, no padding."""
    tokenizer, model = masked.tokenizer, masked.model
    problem = task().prepare(masked, CPU)
    examples = problem.eval_examples["test"]
    scores = problem.encoder.scores(model, problem.encoder.batch(examples, CPU))
    rendered = task().load(Interface.MASKED).test
    for row, example in zip(scores, rendered, strict=True):
        for score, choice in zip(row, example.choices, strict=True):
            words = tokenizer(choice, add_special_tokens=False)["input_ids"]
            text = example.prompt.rstrip() + "<mask>" * len(words) + example.after
            ids = tokenizer(text)["input_ids"]
            at = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
            log_p = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            expected = sum(float(log_p[i, w]) for i, w in zip(at, words, strict=True)) / len(words)
            assert float(score) == pytest.approx(expected, abs=1e-5)
    assert float(scores.std()) > 0.1


def test_the_cloze_is_lm_bffs(masked: Any) -> None:
    """`S1 ? M , s2`; without a cloze the mask follows the prompt."""
    shown = task().render_cloze(Row(ROWS[0], "row 0"))
    assert (shown.prompt, shown.after) == ("the film was long ? ", ", the film is great")
    bare = task(cloze=None).render_cloze(Row(ROWS[0], "row 0"))
    assert (bare.prompt, bare.after) == ("the film was long. The film is great?", ".")
    del masked


@torch.no_grad()
def test_a_head_reads_the_pair_and_gives_a_score_per_class(classifier: Any) -> None:
    """Against the model itself, one row at a time, with token types where it has them."""
    problem = task().prepare(classifier, CPU)
    examples = problem.eval_examples["test"]
    batch = problem.encoder.batch(examples, CPU)
    scores = problem.encoder.scores(classifier.model, batch)
    assert len(batch.input_ids) == len(examples), "one row for all classes"
    types = classifier.model.config.model_type == "bert"
    for found, example in zip(scores, task().load(Interface.CLASSIFIER).test, strict=True):
        pair = classifier.tokenizer(example.prompt, example.after, return_tensors="pt")
        pair = pair if types else {"input_ids": pair["input_ids"]}
        torch.testing.assert_close(found, classifier.model(**pair).logits[0], rtol=0, atol=1e-5)
    assert float(scores.std()) > 0.01


@pytest.mark.parametrize("loss", ["choice", "answer", "accuracy"])
def test_a_masked_model_is_trained_on_any_loss_but_that_of_the_sequence(
    loss: str, masked: Any
) -> None:
    """And dev's loss does not depend on the evaluation's batch size."""
    problem = task(loss=loss).prepare(masked, CPU)
    one, two = (problem.evaluate(masked.model, "dev", size) for size in (1, 8))
    assert one == pytest.approx(two, abs=1e-5)
    value = problem.loss(masked.model, problem.batch(range(4)))
    assert value.requires_grad is problem.differentiable


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"loss": "answer"}, "task.loss: a classification head has no tokens"),
        ({"loss": "sequence"}, "task.loss=sequence: only a decoder"),
        ({"demonstrations": 1}, "a classification head reads no prompts"),
        ({"calibrated": True}, "a classification head reads no prompts"),
        ({"texts": ["a", "b", "c"]}, "one text or a pair"),
        ({"max_length": 4}, "row .*task.truncation=left"),
    ],
)
def test_what_a_head_cannot_do_is_said(changed: dict[str, Any], says: str, classifier: Any) -> None:
    """In one sentence, before training."""
    with pytest.raises(UserError, match=says):
        task(**changed).prepare(classifier, CPU)


@pytest.mark.parametrize("cloze", ["no mask here", "{{ mask }} and {{ mask }}"])
def test_a_cloze_has_one_mask(cloze: str, masked: Any) -> None:
    """None and two are refused."""
    with pytest.raises(UserError, match=r"task\.cloze: needs \{\{ mask \}\} exactly once"):
        task(cloze=cloze).prepare(masked, CPU)


def test_a_mask_token_in_the_text_is_refused(masked: Any) -> None:
    """It could not be told from the choice's."""
    encoder = Encoder(masked, None, "error")
    with pytest.raises(UserError, match="a mask token of its own"):
        encoder(Example("a <mask> film", (" great",), 0, "row 7", "."))


def test_cutting_a_cloze_keeps_its_end_or_says_that_the_mask_is_lost(masked: Any) -> None:
    """`<s>` and the last tokens stay."""
    encoder = Encoder(masked, 20, "left")
    long = Example("the film was long . " * 9 + "It was", (" great",), 0, "row 7", " .")
    (found,) = encoder(long).candidates
    (whole,) = Encoder(masked, 128, "error")(long).candidates
    assert len(found.context) == 20
    assert found.context == whole.context[:1] + whole.context[-19:]
    with pytest.raises(UserError, match="cut before the mask"):
        encoder(Example("It was", (" great",), 0, "row 7", " the film was long" * 20))
