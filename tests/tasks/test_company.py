"""What a row gets does not depend on what it is batched with, over kinds of models.

The right values are those of plain transformers: one row at a time, without padding and cache.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kinds import BOS, EOS, MASK, PAD, VOCABULARY, model_of
from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.evaluation import evaluating, in_batches, in_data_order
from zobench.tasks.side_by_side import side_by_side
from zobench.tasks.writing import Grouping, Writer

CPU = torch.device("cpu")
DECODERS = (
    *("opt", "llama", "gpt2", "qwen3", "gptj", "gpt_neox", "xglm", "mixtral", "codegen"),
    *("mistral", "gemma2", "gemma3_text", "gpt_oss", "starcoder2", "gpt_neo", "cohere2"),  # windows
    *("bloom", "mpt", "falcon"),  # ALiBi
    *("rwkv", "mamba", "falcon_mamba", "lfm2", "recurrent_gemma", "qwen3_next", "jamba"),  # states
    *("phi3", "deepseek_v2", "ctrl", "openai-gpt", "bart", "modernbert-decoder"),
)
MASKED = (
    *("bert", "roberta", "mpnet", "electra", "deberta-v2", "albert", "xlm", "esm", "longformer"),
    *("ibert", "camembert", "xlm-roberta"),
    *("fnet", "convbert", "nystromformer", "yoso", "mobilebert", "funnel"),  # padding counts
)
HEADS = (
    *("opt", "llama", "gpt2", "mpt", "bloom", "mistral", "openai-gpt", "ctrl", "phi3"),
    *("bert", "roberta", "fnet", "convbert", "xlnet", "eurobert", "mpnet"),
)
LENGTHS = (3, 27, 9, 9, 40, 5, 18, 2)
NEW = 5  # tokens that are generated


class Numbers:
    """A tokenizer whose tokens are written as their numbers."""

    pad_token_id, bos_token_id, eos_token_id, mask_token_id = PAD, BOS, EOS, MASK

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in rows]


def rows() -> list[tuple[int, ...]]:
    """Texts of different lengths; one ends in the padding token, which is a token like others."""
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randint(5, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]
    drawn[2][-1] = PAD
    return [tuple(row) for row in drawn]


def encoder_of(model: Any, interface: Interface) -> Encoder:
    return Encoder(
        SimpleNamespace(model=model, tokenizer=Numbers(), interface=interface), None, "error"
    )


@torch.no_grad()
def alone(model: Any, ids: Sequence[int]) -> Tensor:
    """Logits of one row."""
    mask = torch.ones(1, len(ids), dtype=torch.long)
    logits: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=mask).logits
    return logits[0].float()


def examples_of(interface: Interface) -> list[Encoded]:
    """An example per row, with two candidates; a decoder's are of different lengths."""
    found = []
    candidates: tuple[Candidate, ...]
    for row in rows():
        if interface is Interface.CAUSAL:
            candidates = (Candidate(row, (7,)), Candidate((*row, 9), (9, 11)))
        elif interface is Interface.MASKED:
            text = (*row[:-1], MASK, row[-1])
            candidates = tuple(Candidate(text, (word,), (len(row) - 1,)) for word in (7, 9))
        else:
            candidates = tuple(Candidate(row, (number,)) for number in (0, 1))
        found.append(Encoded(candidates, 0))
    return found


def by_hand(model: Any, interface: Interface, example: Encoded) -> Tensor:
    scores = []
    for candidate in example.candidates:
        logits = alone(model, candidate.context)
        if interface is Interface.CLASSIFIER:
            scores.append(logits[candidate.target[0]])
            continue
        log_p = logits.log_softmax(-1)
        places = zip(candidate.positions, candidate.target, strict=True)
        scores.append(torch.stack([log_p[at, token] for at, token in places]).mean())
    return torch.stack(scores)


def check_scores(model: Any, interface: Interface) -> Encoder:
    """Scores in training and in evaluation, in batches of 1, 3 and all, are those by hand."""
    encoder, examples = encoder_of(model, interface), examples_of(interface)
    wanted = torch.stack([by_hand(model, interface, example) for example in examples])
    encoder.probe_padding(examples, CPU)
    with evaluating(model):
        for size in (1, 3, 64):
            batches = [encoder.batch(some, CPU) for some in in_batches(examples, size)]
            found = torch.cat([encoder.evaluated(model, batch, size) for batch in batches])
            ordered = torch.stack(in_data_order(examples, list(found)))
            torch.testing.assert_close(ordered, wanted, atol=2e-5, rtol=2e-5)
        trained = encoder.scores(model, encoder.batch(examples, CPU))
        torch.testing.assert_close(trained, wanted, atol=2e-5, rtol=2e-5)
    return encoder


def check_texts(model: Any) -> Writer:
    """Generations in one batch, and one by one, are those of a loop that feeds whole texts."""
    prompts = rows()
    encoder = encoder_of(model, Interface.CAUSAL)
    writer = Writer(encoder.tokenizer, (), NEW, encoder.padding, CPU)
    with evaluating(model):
        short, long = min(prompts, key=len), max(prompts, key=len)
        writer = replace(writer, grouping=writer.grouping_of(model, short, long, MASK))
        wanted = []
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(NEW):
                token = int(alone(model, ids)[-1].argmax())
                if token == EOS:
                    break
                ids.append(token)
            wanted.append(" ".join(map(str, ids[len(prompt) :])))
        assert writer(model, prompts) == wanted
        assert [writer(model, [prompt])[0] for prompt in prompts] == wanted
    return writer


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """transformers warns of architectures that are out of use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", DECODERS)
def test_scores_and_generations_of_decoders(kind: str) -> None:
    """Windows, ALiBi, recurrent and linear states, switched rotations among them."""
    model = model_of(kind, "CausalLM")
    check_scores(model, Interface.CAUSAL)
    check_texts(model)


@pytest.mark.parametrize("kind", MASKED)
def test_scores_of_masked_models(kind: str) -> None:
    """With an attention mask that works, and without."""
    encoder = check_scores(model_of(kind, "MaskedLM"), Interface.MASKED)
    assert encoder.alone == (kind in MASKED[MASKED.index("fnet") :])


@pytest.mark.parametrize("kind", HEADS)
def test_classes(kind: str) -> None:
    """A decoder reads the last token of the text, whichever it is."""
    model = model_of(kind, "SequenceClassification")
    model.config.pad_token_id = None
    encoder, examples = encoder_of(model, Interface.CLASSIFIER), examples_of(Interface.CLASSIFIER)
    each = torch.stack([by_hand(model, Interface.CLASSIFIER, e) for e in examples])
    model.config.pad_token_id = PAD
    encoder.probe_padding(examples, CPU)
    with evaluating(model):
        for first, last in ((0, 8), (0, 1), (2, 3), (2, 5)):
            batch = encoder.batch(examples[first:last], CPU)
            found = encoder.scores(model, batch)
            torch.testing.assert_close(found, each[first:last], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("tuning", ["prefix", "prompt", "lora"])
@pytest.mark.parametrize(
    "kind", ["llama", "mistral", "gemma2", "gemma3_text", "gpt_neo", "bloom", "opt"]
)
def test_tuned_decoders(kind: str, tuning: str) -> None:
    """Virtual tokens stand before a text wherever its batch begins."""
    module = importlib.import_module(f"zobench.tuning.{tuning}")
    model = getattr(module, tuning)(model_of(kind, "CausalLM"), seed=0)
    check_scores(model, Interface.CAUSAL)
    check_texts(model)


@pytest.mark.parametrize("tuning", ["prefix", "prompt"])
@pytest.mark.parametrize("kind", ["llama", "opt", "bert", "gpt2"])
def test_tuned_heads(kind: str, tuning: str) -> None:
    """Virtual tokens are no reason to read another token's class."""
    module = importlib.import_module(f"zobench.tuning.{tuning}")
    base = model_of(kind, "SequenceClassification")
    base.config.pad_token_id = PAD
    model = getattr(module, tuning)(base, seed=0)
    encoder, examples = encoder_of(model, Interface.CLASSIFIER), examples_of(Interface.CLASSIFIER)
    encoder.probe_padding(examples, CPU)
    with evaluating(model):
        whole = encoder.scores(model, encoder.batch(examples, CPU))
        each = [encoder.scores(model, encoder.batch([e], CPU)) for e in examples]
    torch.testing.assert_close(whole, torch.cat(each), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kind", ["xlnet", "bert", "xlm"])
def test_what_reads_later_tokens_is_no_decoder(kind: str) -> None:
    """It is refused, in a sentence, before it is asked anything."""
    model = model_of(kind, "CausalLM")
    with pytest.raises(UserError, match="no left-to-right decoder"):
        encoder_of(model, Interface.CAUSAL).probe_padding(examples_of(Interface.CAUSAL), CPU)


@pytest.mark.parametrize("kind", ["opt", "llama", "mistral", "lfm2"])
def test_sixteen_bits_are_seen_as_what_they_are(kind: str) -> None:
    """Rounding is not taken for padding that shows, nor padding for rounding."""
    prompts = rows()
    short, long = min(prompts, key=len), max(prompts, key=len)
    model = model_of(kind, "CausalLM").bfloat16()
    encoder = encoder_of(model, Interface.CAUSAL)
    encoder.probe_padding(examples_of(Interface.CAUSAL), CPU)
    assert not encoder.alone
    writer = Writer(encoder.tokenizer, (), NEW, encoder.padding, CPU)
    grouping = Grouping.LENGTH if kind == "lfm2" else Grouping.ANY
    with evaluating(model):
        assert writer.grouping_of(model, short, long, MASK) is grouping
    masked = encoder_of(model_of("convbert", "MaskedLM").bfloat16(), Interface.MASKED)
    masked.probe_padding(examples_of(Interface.MASKED), CPU)
    assert masked.alone


def test_a_model_that_fails_is_named_but_a_lack_of_memory_stays_one() -> None:
    """One is a fault of the model or the data, the other is not."""
    model = model_of("llama", "CausalLM")
    encoder, examples = encoder_of(model, Interface.CAUSAL), examples_of(Interface.CAUSAL)
    failing: Any = RuntimeError("sizes do not match")
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(failing))
    with pytest.raises(UserError, match="LlamaForCausalLM failed on rows of this task"):
        encoder.probe_padding(examples, CPU)
    failing = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
    with pytest.raises(RuntimeError, match="allocate memory"):
        encoder.probe_padding(examples, CPU)


def test_a_model_that_lets_padding_through_does_not_pack() -> None:
    """Its rows are sorted by length, which no stack of batches can be."""
    encoder = encoder_of(model_of("fnet", "MaskedLM"), Interface.MASKED)
    examples = examples_of(Interface.MASKED)
    encoder.probe_padding(examples, CPU)
    batch = encoder.batch(examples, CPU)
    with pytest.raises(UserError, match="do not pack"):
        side_by_side([batch, batch], lambda _: torch.zeros(()))


@pytest.mark.parametrize(
    "kind", ["roberta", "mpnet", "ibert", "camembert", "xlm-roberta", "longformer", "esm", "bert"]
)
def test_positions_that_begin_after_the_padding_token(kind: str) -> None:
    """A text of as many tokens as the model takes goes through; one more is refused before."""
    model = model_of(kind, "MaskedLM", max_position_embeddings=34)
    most = encoder_of(model, Interface.MASKED).max_length
    assert most == (34 if kind == "bert" else 34 - PAD - 1)
    alone(model, [5] * most)
