"""Tokenizers of every form: with and without an end token, padding, added tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import processors

from tests.kinds import model_of
from zobench.errors import UserError
from zobench.interface import Interface, padding_id
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import check_distinct, ids_of
from zobench.tasks.example import Example
from zobench.tasks.writing import Writer

CPU = torch.device("cpu")
LINES = ["A great movie it was", "the acting was terrible", "good film, no!", "yes"] * 20
TEXTS = ("A great movie", "good!", "no <end> yes", "the", "it was <end>")


def tokenizer_of(*special: str, before: bool = False, after: bool = False, **names: str) -> Any:
    """A byte-level BPE; `before` and `after` every text stands the first special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    if before or after:
        form = " ".join([special[0]] * before + ["$A"] + [special[0]] * after)
        ids = [(special[0], made.token_to_id(special[0]))]
        made.post_processor = processors.TemplateProcessing(single=form, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def plain() -> Any:
    return tokenizer_of("<end>", bos_token="<end>", eos_token="<end>")


def appending(*, before: bool = False) -> Any:
    names = {"bos_token": "<end>", "eos_token": "<end>"}
    return tokenizer_of("<end>", before=before, after=True, **names)


ROWS = len(plain())


def encoder_of(tokenizer: Any, interface: Interface, more: int = 0) -> Encoder:
    """A random Llama with an embedding for each token of `plain`, and `more`."""
    rows = ROWS + more
    head = {Interface.CAUSAL: "CausalLM", Interface.CLASSIFIER: "SequenceClassification"}
    model = model_of("llama", head[interface], vocab_size=rows, eos_token_id=0)
    if interface is Interface.CLASSIFIER:
        model.config.pad_token_id = padding_id(model, tokenizer)
    loaded = SimpleNamespace(model=model, tokenizer=tokenizer, interface=interface)
    return Encoder(loaded, None, "error")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("before", [False, True])
def test_what_a_tokenizer_appends_is_left_out(text: str, before: bool) -> None:
    """Once: an end token that stands in the text stays."""
    start = plain()("<end>")["input_ids"] if before else []
    assert ids_of(appending(before=before), text) == start + plain()(text)["input_ids"]
    assert ids_of(plain(), text) == plain()(text)["input_ids"]


def test_a_choice_is_scored_on_its_own_tokens() -> None:
    """The same candidates, context for context, with and without the end token."""
    example = Example("the acting was", (" terrible", " great"), 0, "x:1")
    with_end = encoder_of(appending(), Interface.CAUSAL)(example)
    assert with_end == encoder_of(plain(), Interface.CAUSAL)(example)
    prompt = encoder_of(appending(), Interface.CAUSAL).prompt(example, 50)
    assert prompt == tuple(plain()("the acting was")["input_ids"])


def test_generation_goes_on_from_the_prompts_last_token() -> None:
    """Both tokenizers get the same text of the same weights."""
    found = []
    for tokenizer in (plain(), appending()):
        encoder = encoder_of(tokenizer, Interface.CAUSAL)
        prompts = [encoder.prompt(Example(text, ("",), 0, "x"), 50) for text in TEXTS]
        writer = Writer(tokenizer, ("\n",), 6, encoder.padding, CPU)
        found.append(writer(encoder.model.eval(), prompts))
    assert found[0] == found[1]


@pytest.mark.parametrize("changed", ["repetition_penalty", "no_repeat_ngram_size", "do_sample"])
def test_generation_obeys_nothing_of_the_folders_config_but_ends(changed: str) -> None:
    """Whatever stands there, the largest logit is taken; any of its end tokens ends a text."""
    encoder = encoder_of(plain(), Interface.CAUSAL)
    model = encoder.model.eval()
    prompts = [tuple(plain()(text)["input_ids"]) for text in TEXTS]
    writer = Writer(plain(), (), 8, 0, CPU)
    usual = writer(model, prompts)
    values = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "do_sample": True}
    model.generation_config.update(**{changed: values[changed]})
    model.generation_config.update(min_new_tokens=8, suppress_tokens=[5, 6, 7], temperature=3.0)
    before = model.generation_config.to_dict()
    assert writer(model, prompts) == usual
    assert model.generation_config.to_dict() == before
    with torch.no_grad():
        first = int(model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [0, first]
    assert writer(model, prompts)[0] == ""


def test_a_stop_string_of_letters_that_the_vocabulary_lacks(tokenizer: Any) -> None:
    """The text is looked at, not the tokens."""
    encoder = encoder_of(plain(), Interface.CAUSAL)
    prompts = [tuple(plain()(text)["input_ids"]) for text in TEXTS]
    free = Writer(plain(), (), 8, 0, CPU)(encoder.model.eval(), prompts)
    stops = ("\N{SNOWMAN}", free[1][1:3])
    found = Writer(plain(), stops, 8, 0, CPU)(encoder.model, prompts)
    assert found == [text.split(stops[1])[0].strip() for text in free]
    del tokenizer


@pytest.mark.parametrize("text", ["good!", "!", "no!!", "<end>", "good <end>"])
def test_a_head_reads_the_last_token_whichever_is_the_padding(text: str) -> None:
    """Without padding and end tokens `!`, the first token, fills up batches; a text may hold it."""
    for tokenizer in (tokenizer_of(), plain()):
        encoder = encoder_of(tokenizer, Interface.CLASSIFIER)
        examples = [
            encoder(Example(t, ("a", "b"), 0, "x")) for t in (text, "the acting was terrible")
        ]
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = encoder.model.model(input_ids=ids).last_hidden_state[0, -1]
            wanted = encoder.model.score(hidden)
            found = encoder.scores(encoder.model, encoder.batch(examples, CPU))[0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_padding_is_an_id_that_the_model_has() -> None:
    """A padding token that was added behind the model's last embedding gives way to another."""
    tokenizer = plain()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == ROWS
    encoder = encoder_of(tokenizer, Interface.CAUSAL)
    example = Example("the acting was", (" terrible", " great"), 0, "x:1")
    usual = encoder_of(plain(), Interface.CAUSAL)
    assert encoder.padding == 0
    scores = [
        r.scores(r.model, r.batch([r(example), r(Example("no", (" a", " b"), 0, "x"))], CPU))
        for r in (encoder, usual)
    ]
    torch.testing.assert_close(scores[0], scores[1])


@pytest.mark.parametrize("interface", [Interface.CAUSAL, Interface.CLASSIFIER])
def test_a_token_without_an_embedding_is_named(interface: Interface) -> None:
    """In prompts, in choices and in texts; before anything is run."""
    tokenizer = plain()
    tokenizer.add_tokens(["movieland"])
    encoder = encoder_of(tokenizer, interface)
    said = f"^x:1: token 'movieland' has the id {ROWS} and the model embeddings for {ROWS}"
    with pytest.raises(UserError, match=said):
        encoder(Example("in movieland it was", (" a", " b"), 0, "x:1"))
    if interface is Interface.CAUSAL:
        with pytest.raises(UserError, match=said):
            encoder(Example("it was", (" a", " movieland"), 0, "x:1"))
        with pytest.raises(UserError, match=said):
            encoder.prompt(Example("movieland", ("",), 0, "x:1"), 20)
    encoder_of(tokenizer, interface, 1)(Example("in movieland", (" a", " b"), 0, "x:1"))


def test_a_tail_is_found_where_the_letter_a_has_no_token() -> None:
    """A vocabulary of four letters, with an end token after every text."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=20, special_tokens=["</s>"], show_progress=False)
    made.train_from_iterator(["ACGTACGGTTAACC"] * 5, trainer)
    bare = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")("ACGT")["input_ids"]
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    after = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
    assert after("ACGT")["input_ids"] == [*bare, 0]
    assert ids_of(after, "ACGT") == bare
    assert ids_of(after, "a") == [0]  # a text of no tokens of its own does not tell


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_head_cuts_the_end_whatever_side_the_folder_says(side: str) -> None:
    """As most GLUE code does; the tokenizer stays as it was."""
    tokenizer = plain()
    tokenizer.truncation_side = side
    encoder = encoder_of(tokenizer, Interface.CLASSIFIER)
    encoder.max_length, encoder.truncation = 4, "left"
    encoded = encoder(Example("the acting was terrible no yes", ("a", "b"), 0, "x"))
    whole = tokenizer("the acting was terrible no yes")["input_ids"]
    assert encoded.candidates[0].context == tuple(whole[:4])
    assert tokenizer.truncation_side == side


def test_choices_of_the_same_tokens_are_refused() -> None:
    """Their scores would be equal in every row."""
    example = Example("it was", (" great", " bad", " great"), 0, "x:1")
    encoded = encoder_of(plain(), Interface.CAUSAL)(example)
    with pytest.raises(
        UserError, match=r"^x:1: the choices ' great' and ' great' are the same tok"
    ):
        check_distinct(example, encoded)
    other = Example("it was", (" great", " bad"), 0, "x:1")
    check_distinct(other, encoder_of(plain(), Interface.CAUSAL)(other))


def test_embeddings_beyond_the_vocabulary_are_left_out_of_a_text() -> None:
    """A byte tokenizer cannot spell the ids that a padded embedding has."""
    writer = Writer(plain(), (), 4, 0, CPU)
    usual = plain()("yes")["input_ids"]
    assert writer._decoded([[*usual, ROWS + 3]]) == ["yes"]
