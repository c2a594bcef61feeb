"""The choices of every task in tokens of each kind of tokenizer: never empty, never the prompt's.

Small tokenizers of the kinds that OPT and GPT-2 (byte-level BPE, with and without a first token),
Llama (BPE that marks spaces) and BERT (WordPiece) have; theirs cannot be had offline.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.build import build
from zobench.paths import conf_dir
from zobench.tasks.encoding import encode, encode_masked
from zobench.tasks.example import Row

FILES = sorted((conf_dir() / "task").glob("*.yaml"))
OTHERS = ("custom", "synthetic_reviews", "a9a")  # without an example of text, or without text


def tokenizer_of(kind: str, texts: list[str]) -> Any:
    """A tokenizer of a few hundred tokens, trained on these texts."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    sizes: dict[str, Any] = {
        "vocab_size": 600,
        "special_tokens": special,
        "show_progress": False,
    }
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(**sizes)
    elif kind == "metaspace":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Sequence(  # a line end is never merged, as in Llama's
            [
                pre_tokenizers.Split("\n", "isolated"),
                pre_tokenizers.Metaspace(prepend_scheme="first"),
            ]
        )
        made.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(**sizes)
    else:
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**sizes, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(texts, trainer)
    ends = {"gpt2": "$A", "wordpiece": "<s> $A </s>"}
    if kind != "gpt2":
        made.post_processor = processors.TemplateProcessing(
            single=ends.get(kind, "<s> $A"), special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True))
    tokens = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, **tokens)


@pytest.fixture(scope="module")
def tasks(compose: Callable[..., dict[str, Any]]) -> dict[str, tuple[Any, Row]]:
    """Every task with choices, and its example as a decoder is shown it."""
    found = {}
    for path in FILES:
        if path.stem.startswith(OTHERS) or "tasks.choice.ChoiceTask" not in text_of(path):
            continue
        node = compose(f"task={path.stem}")["task"]
        built = build(node)
        found[path.stem] = (built, Row(node["example"]["row"], "the example"))
    assert len(found) > 30
    return found


def text_of(path: Path) -> str:
    """A yaml with those that it inherits from."""
    text = path.read_text()
    parents = [line.strip()[2:] for line in text.splitlines() if line.startswith("  - ")]
    return text + "".join(
        text_of(path.with_name(f"{p}.yaml")) for p in parents if p.isidentifier() and p != "_self_"
    )


@pytest.mark.parametrize("kind", ["opt", "gpt2", "metaspace"])
def test_a_decoder_scores_the_choice_and_no_token_of_the_prompt(
    kind: str, tasks: dict[str, tuple[Any, Row]]
) -> None:
    """The scored tokens spell the choice; what stands before them spells the prompt."""
    shown = {name: task.render(row) for name, (task, row) in tasks.items()}
    texts = [e.prompt + choice for e in shown.values() for choice in e.choices]
    tokenizer = tokenizer_of(kind, texts)
    for name, example in shown.items():
        found = encode(example, tokenizer, max_length=10_000, truncation="error")
        for candidate, choice in zip(found.candidates, example.choices, strict=True):
            said = tokenizer.decode(candidate.target)
            assert said.strip() == choice.strip(), name
            count = len(candidate.target)
            before = tokenizer.decode(
                [*candidate.context, candidate.target[-1]][:-count], skip_special_tokens=True
            )
            assert before.strip() == example.prompt.strip(), name


@pytest.mark.parametrize("kind", ["opt", "wordpiece"])
def test_a_masked_model_has_a_mask_per_token_of_the_choice(
    kind: str, tasks: dict[str, tuple[Any, Row]]
) -> None:
    """The targets spell the choice, each at a mask, and nothing else of the text is masked."""
    shown = {name: task.render_cloze(row) for name, (task, row) in tasks.items()}
    texts = [e.prompt + choice + e.after for e in shown.values() for choice in e.choices]
    tokenizer = tokenizer_of(kind, texts)
    for name, example in shown.items():
        found = encode_masked(example, tokenizer, max_length=10_000, truncation="error")
        for candidate, choice in zip(found.candidates, example.choices, strict=True):
            said = tokenizer.decode(candidate.target, clean_up_tokenization_spaces=False)
            assert said.replace(" ", "") == choice.replace(" ", ""), name
            masks = [i for i, t in enumerate(candidate.context) if t == tokenizer.mask_token_id]
            assert tuple(masks) == candidate.positions, name
